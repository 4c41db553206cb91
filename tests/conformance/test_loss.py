"""Losses and their gradients, against torch in float64."""

import pytest
import torch
import torch.nn.functional as F

import aclnn
import cases

REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}

# name, low and high of self and target, extra arguments, reference(self, target, weight, reduction)
ELEMENTWISE = [
    ("L1Loss", (-3, 3), (-3, 3), (), lambda x, t, w, r: F.l1_loss(x, t, reduction=r)),
    ("MseLoss", (-3, 3), (-3, 3), (), lambda x, t, w, r: F.mse_loss(x, t, reduction=r)),
    ("SmoothL1Loss", (-3, 3), (-3, 3), (0.75,), lambda x, t, w, r: F.smooth_l1_loss(x, t, reduction=r, beta=0.75)),
    ("SmoothL1Loss", (-3, 3), (-3, 3), (0.0,), lambda x, t, w, r: F.smooth_l1_loss(x, t, reduction=r, beta=0.0)),
    ("SoftMarginLoss", (-30, 30), (-1, 1), (), lambda x, t, w, r: F.soft_margin_loss(x, t, reduction=r)),
    ("KlDiv", (-3, 0), (0, 1), (False,), lambda x, t, w, r: F.kl_div(x, t, reduction=r)),
    ("KlDiv", (-3, 0), (-3, 0), (True,), lambda x, t, w, r: F.kl_div(x, t, reduction=r, log_target=True)),
]


def pairs(dtype, a, b):
    for layout in cases.LAYOUTS:
        yield cases.tensor((3, 5, 7), dtype, layout, *a, 1), cases.tensor((3, 5, 7), dtype, layout, *b, 2)
    yield cases.tensor((50, 1500), dtype, "contiguous", *a, 1), cases.tensor((50, 1500), dtype, "contiguous", *b, 2)
    yield cases.tensor((30, 50), dtype, "transposed", *a, 1), cases.tensor((30, 50), dtype, "contiguous", *b, 2)


def loose(dtype):  # the gradient of a mean is tiny: compare relative to its size
    return {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2, torch.float64: 1e-7}[dtype]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", cases.FLOATS)
@pytest.mark.parametrize("name,a,b,extra,reference", ELEMENTWISE)
def test_elementwise(name, a, b, extra, reference, dtype):
    for x, t in pairs(dtype, a, b):
        for r, code in REDUCTIONS.items():
            wx, wt = cases.wide(x).clone().requires_grad_(), cases.wide(t)
            e = reference(wx, wt, None, r)
            out = cases.empty(e.shape, dtype, "strided")
            aclnn.call(name, x, t, code, *extra, out)
            cases.compare(out, e.detach(), rtol=loose(dtype))
            g = cases.values(e.shape, dtype, -2, 2, 5)
            (e_grad,) = torch.autograd.grad(e, wx, cases.wide(g))
            grad = cases.empty(x.shape, dtype, "transposed")
            aclnn.call(name + "Backward", g, x, t, code, *extra, grad)
            cases.compare(grad, e_grad, rtol=loose(dtype))


@pytest.mark.parametrize("dtype", cases.FLOATS)
@pytest.mark.parametrize("log_target", [False, True])
def test_kl_div_target_backward(dtype, log_target):
    x, t = cases.tensor((5, 7), dtype, "contiguous", -3, 0, 1), cases.tensor((5, 7), dtype, "contiguous", 0.1, 1, 2)
    wt = cases.wide(t).requires_grad_()
    e = F.kl_div(cases.wide(x), wt, reduction="sum", log_target=log_target)
    (e_grad,) = torch.autograd.grad(e, wt)
    grad = cases.empty(x.shape, dtype)
    aclnn.call("KlDivTargetBackward", torch.ones((), dtype=dtype), x, t, 2, log_target, grad)
    cases.compare(grad, e_grad, rtol=loose(dtype))


@pytest.mark.parametrize("dtype", cases.FLOATS)
@pytest.mark.parametrize("weighted", [False, True])
def test_binary_cross_entropy(dtype, weighted):
    for x, t in pairs(dtype, (0, 1), (0, 1)):
        w = cases.values(x.shape[-1:], dtype, 0, 2, 7) if weighted else None
        ww = cases.wide(w) if weighted else None
        for r, code in REDUCTIONS.items():
            wx = cases.wide(x).clone().requires_grad_()
            e = F.binary_cross_entropy(wx, cases.wide(t), ww, reduction=r)
            out = cases.empty(e.shape, dtype, "strided")
            aclnn.call("BinaryCrossEntropy", x, t, w, code, out)
            cases.compare(out, e.detach(), rtol=loose(dtype))
            g = cases.values(e.shape, dtype, -2, 2, 5)
            (e_grad,) = torch.autograd.grad(e, wx, cases.wide(g))
            grad = cases.empty(x.shape, dtype)
            aclnn.call("BinaryCrossEntropyBackward", g, x, t, w, code, grad)
            cases.compare(grad, e_grad, rtol=loose(dtype))


@pytest.mark.parametrize("dtype", cases.FLOATS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("positive", [False, True])
def test_binary_cross_entropy_with_logits(dtype, weighted, positive):
    for x, t in pairs(dtype, (-20, 20), (0, 1)):
        w = cases.values(x.shape, dtype, 0, 2, 7) if weighted else None
        p = cases.values(x.shape[-1:], dtype, 0, 2, 8) if positive else None
        ww, wp = (cases.wide(v) if v is not None else None for v in (w, p))
        for r, code in REDUCTIONS.items():
            wx, wt = cases.wide(x).clone().requires_grad_(), cases.wide(t).clone().requires_grad_()
            e = F.binary_cross_entropy_with_logits(wx, wt, ww, reduction=r, pos_weight=wp)
            out = cases.empty(e.shape, dtype, "strided")
            aclnn.call("BinaryCrossEntropyWithLogits", x, t, w, p, code, out)
            cases.compare(out, e.detach(), rtol=loose(dtype))
            g = cases.values(e.shape, dtype, -2, 2, 5)
            e_grad, e_target = torch.autograd.grad(e, (wx, wt), cases.wide(g))
            for op, expected in (("Backward", e_grad), ("TargetBackward", e_target)):
                grad = cases.empty(x.shape, dtype)
                aclnn.call("BinaryCrossEntropyWithLogits" + op, g, x, t, w, p, code, grad)
                cases.compare(grad, expected, rtol=loose(dtype))


def class_cases(dtype):
    for shape in [(5, 7), (7,), (3, 4, 5, 6), (1, 1), (40, 1000)]:
        for layout in ("contiguous", "transposed", "strided"):
            x = cases.lay(cases.values(shape, dtype, -4, 0, 1), layout)
            classes = shape[0] if len(shape) == 1 else shape[1]
            target_shape = () if len(shape) == 1 else (shape[0], *shape[2:])
            t = torch.randint(0, classes, target_shape, generator=torch.Generator().manual_seed(3))
            if t.numel() > 2:
                t.view(-1)[1] = -100
            yield x, t, cases.values((classes,), dtype, 0.1, 2, 4)


@pytest.mark.parametrize("dtype", cases.FLOATS)
@pytest.mark.parametrize("weighted", [False, True])
def test_nll(dtype, weighted):
    for x, t, w in class_cases(dtype):
        for r, code in REDUCTIONS.items():
            wx, w = cases.wide(x).contiguous().clone().requires_grad_(), w if weighted else None
            e, e_total = torch.ops.aten.nll_loss_forward(wx, t, cases.wide(w) if weighted else None, code, -100) if x.dim() < 4 else \
                torch.ops.aten.nll_loss2d_forward(wx, t, cases.wide(w) if weighted else None, code, -100)
            op = "NLLLoss" if x.dim() < 4 else "NLLLoss2d"
            out, total = cases.empty(e.shape, dtype, "strided"), cases.empty((), dtype)
            aclnn.call(op, x, t, w, code, -100, out, total)
            cases.compare(out, e.detach(), rtol=loose(dtype))
            if r != "none":
                cases.compare(total, e_total.detach(), rtol=loose(dtype))
            g = cases.values(e.shape, dtype, -2, 2, 5)
            (e_grad,) = torch.autograd.grad(e, wx, cases.wide(g))
            grad = cases.empty(x.shape, dtype, "transposed")
            aclnn.call(op + "Backward", g, x, t, w, code, -100, total, grad)
            cases.compare(grad, e_grad, rtol=2e-3 if dtype == torch.float16 else loose(dtype))


def test_nll_bad_target():
    out, total = torch.empty(()), torch.empty(())
    with pytest.raises(aclnn.Failed, match=r"target is 9 at position 1, expected a class in \[0,4\)"):
        aclnn.call("NLLLoss", torch.zeros(3, 4), torch.tensor([0, 9, 1]), None, 1, -100, out, total)


@pytest.mark.parametrize("dtype", cases.FLOATS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy(dtype, weighted, smoothing):
    for x, t, w in class_cases(dtype):
        if x.dim() != 2:
            continue
        for r, code in REDUCTIONS.items():
            wx, w = cases.wide(x).clone().requires_grad_(), w if weighted else None
            e = F.cross_entropy(wx, t, cases.wide(w) if weighted else None, reduction=r, label_smoothing=smoothing)
            out, log_prob = cases.empty(e.shape, dtype), cases.empty(x.shape, dtype)
            z, lse = torch.empty(0, dtype=dtype), torch.empty(x.shape[0], dtype=dtype)
            aclnn.call("CrossEntropyLoss", x, t, w, r, -100, smoothing, 0.0, False, out, log_prob, z, lse)
            cases.compare(out, e.detach(), rtol=loose(dtype))
            cases.compare(log_prob, cases.wide(x).log_softmax(1))
            cases.compare(lse, cases.wide(x).logsumexp(1))
            g = cases.values(e.shape, dtype, -2, 2, 5)
            (e_grad,) = torch.autograd.grad(e, wx, cases.wide(g))
            grad = cases.empty(x.shape, dtype, "transposed")
            aclnn.call("CrossEntropyLossGrad", g, log_prob, t, w, None, None, r, -100, smoothing, 0.0, grad)
            cases.compare(grad, e_grad, rtol=1e-2 if dtype == torch.float16 else 3 * loose(dtype), atol=3e-2 if dtype == torch.bfloat16 else 2e-3 if dtype == torch.float16 else None)


@pytest.mark.parametrize("dtype", cases.FLOATS)
def test_softmax_cross_entropy_with_logits(dtype):
    for x in (cases.values((5, 7), dtype, -9, 9, 1), cases.values((4, 3000), dtype, -9, 9, 1)):
        labels = torch.softmax(cases.values(x.shape, torch.float64, -2, 2, 3), 1).to(dtype)
        loss, gradient = cases.empty(x.shape[:1], dtype), cases.empty(x.shape, dtype)
        aclnn.call("SoftmaxCrossEntropyWithLogits", x, labels, loss, gradient)
        wx, wl = cases.wide(x), cases.wide(labels)
        cases.compare(loss, -(wl * wx.log_softmax(1)).sum(1), rtol=loose(dtype))
        cases.compare(gradient, wx.softmax(1) - wl, rtol=loose(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("zero_infinity", [False, True])
def test_ctc(dtype, flat, zero_infinity):
    g = torch.Generator().manual_seed(2)
    lp = torch.randn(12, 4, 5, generator=g, dtype=torch.float64).log_softmax(2).to(dtype)
    targets = torch.randint(1, 5, (4, 6), generator=g)
    steps, labels = [12, 10, 3, 8], [6, 4, 6, 0]  # the third can't be aligned
    t = torch.cat([targets[i, :n] for i, n in enumerate(labels)]) if flat else targets
    e, e_alpha = torch.ops.aten._ctc_loss(lp.double(), t, steps, labels, 0, zero_infinity)
    loss, alpha = cases.empty((4,), dtype), cases.empty((4, 12, 16), dtype)
    aclnn.call("CtcLoss", lp, t, steps, labels, 0, zero_infinity, loss, alpha)
    cases.compare(loss, e)
    for n in range(4):
        s = 2 * labels[n] + 1
        cases.compare(alpha[n, :steps[n], :s], e_alpha[n, :steps[n], :s], rtol=1e-5)
    grad = torch.rand(4, generator=g, dtype=torch.float64).to(dtype)
    e_grad = torch.ops.aten._ctc_loss_backward(grad.double(), lp.double(), t, steps, labels, e, e_alpha, 0, zero_infinity)
    out = cases.empty(lp.shape, dtype, "transposed")
    aclnn.call("CtcLossBackward", grad, lp, t, steps, labels, loss, alpha, 0, zero_infinity, out)
    keep = [0, 1, 2, 3] if zero_infinity else [0, 1, 3]
    for n in keep:
        cases.compare(out[:, n], e_grad[:, n], rtol=1e-4)


@pytest.mark.parametrize("dtype", cases.FLOATS)
def test_multilabel_margin(dtype):
    x = cases.values((3, 5), dtype, -1, 1, 1)
    t = torch.tensor([[3, 0, -1, 1, 2], [-1, 0, 0, 0, 0], [4, 3, 2, 1, 0]])
    for r, code in REDUCTIONS.items():
        e, e_target = torch.ops.aten.multilabel_margin_loss_forward(cases.wide(x), t, code)
        out, is_target = cases.empty(e.shape, dtype), cases.empty(x.shape, dtype)
        aclnn.call("MultilabelMarginLoss", x, t, code, out, is_target)
        cases.compare(out, e, rtol=loose(dtype))
        cases.compare(is_target, e_target)
