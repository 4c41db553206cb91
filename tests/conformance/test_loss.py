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
    ("SmoothL1Loss", (-3, 3), (-3, 3), (0.7,), lambda x, t, w, r: F.smooth_l1_loss(x, t, reduction=r, beta=0.7)),
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
