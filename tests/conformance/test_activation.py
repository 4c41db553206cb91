"""Activations, gated units and their gradients against PyTorch in float64. Gradients come from PyTorch's autograd, or from
its own backward functions where those take what ours take."""

import pytest
import torch
from torch.nn import functional as F

import aclnn
import cases

FLOATS = cases.FLOATS


# PyTorch's own formulas of gelu and its gradient cancel for negative x.
def gelu(x):
    return 0.5 * x * torch.special.erfc(x * -(0.5 ** 0.5))


def gelu_tanh(x):
    return x * torch.sigmoid(2 * (2 / torch.pi) ** 0.5 * (x + 0.044715 * x ** 3))


def gelu_gradient(g, x):
    return g * (0.5 * torch.special.erfc(x * -(0.5 ** 0.5)) + x * torch.exp(-0.5 * x * x) / (2 * torch.pi) ** 0.5)


def gelu_tanh_gradient(g, x):
    twice = 2 * (2 / torch.pi) ** 0.5
    s = torch.sigmoid(twice * (x + 0.044715 * x ** 3))
    return g * (s + x * s * (1 - s) * twice * (1 + 3 * 0.044715 * x ** 2))


FLOATING = [*cases.FLOATS, *cases.COMPLEX]
aten = torch.ops.aten


def gradient(f):
    """(g, x) -> d f(x) / dx * g"""
    def backward(g, x):
        if g.shape != f(x).shape:
            g, x = torch.broadcast_tensors(g, x)
        x = x.detach().clone().requires_grad_(True)
        f(x).backward(g.contiguous())
        return x.grad
    return backward


def hardswish_gradient(g, x):  # PyTorch's x / 3 + 1 / 2 cancels
    return torch.where(x <= -3, 0.0, torch.where(x < 3, g * (2 * x + 3) / 6, g))


def swish_gradient(beta):
    def backward(g, x):
        s = torch.sigmoid(beta * x)
        return g * (s * (1 + beta * x * (1 - s)))
    return backward


FORWARD = [
    ("Relu", F.relu, ()), ("LeakyRelu", lambda x: F.leaky_relu(x, 0.1), (0.1,)), ("Elu", lambda x: aten.elu(x, 1.3, 1.1, 0.9), (1.3, 1.1, 0.9)),
    ("Celu", lambda x: F.celu(x, 0.7), (0.7,)), ("Selu", F.selu, ()), ("Threshold", lambda x: F.threshold(x, 0.5, 20.0), (0.5, 20.0)),
    ("Hardtanh", lambda x: F.hardtanh(x, -0.5, 1.5), (-0.5, 1.5)), ("Hardsigmoid", F.hardsigmoid, ()), ("Hardswish", F.hardswish, ()),
    ("Hardshrink", lambda x: F.hardshrink(x, 0.6), (0.6,)), ("Softshrink", lambda x: F.softshrink(x, 0.6), (0.6,)),
    ("Softplus", lambda x: F.softplus(x, 1.5, 3.0), (1.5, 3.0)), ("Mish", F.mish, ()), ("Silu", F.silu, ()), ("LogSigmoid", F.logsigmoid, ()),
    ("Swish", lambda x: x * torch.sigmoid(1.2 * x), (1.2,)), ("Gelu", gelu, ()),
    ("FastGelu", lambda x: x * torch.sigmoid(1.702 * x), ()), ("GeluV2", gelu, (0,)), ("GeluV2", gelu_tanh, (1,)),
    ("Logit", lambda x: torch.logit(x, 0.1), (0.1,)), ("Logit", lambda x: torch.logit(x, 0.6), (0.6,)), ("Logit", torch.logit, (-1.0,)),
]


@pytest.mark.parametrize("op, reference, extra", FORWARD, ids=lambda v: v if isinstance(v, str) else "")
def test_forward(op, reference, extra):
    low, high = (0.01, 0.99) if op == "Logit" else (-5, 5)
    cases.elementwise(op, reference, FLOATS, extra=extra, low=low, high=high)


def test_forward_of_integers():
    cases.elementwise("Relu", F.relu, cases.INTS)
    cases.elementwise("Hardtanh", lambda x: F.hardtanh(x, -1, 2), cases.SIGNED, extra=(-1, 2))
    cases.elementwise("Threshold", lambda x: F.threshold(x, 1, 7), cases.INTS, extra=(1, 7))


def test_logit_of_integers():
    cases.elementwise("Logit", lambda x: torch.logit(x.double(), 0.1), [*cases.INTS, torch.bool], extra=(0.1,), low=0, high=1,
                      out_dtype=lambda _: torch.float32)


def test_complex():
    cases.elementwise("Silu", F.silu, cases.COMPLEX)
    cases.elementwise("SigmoidBackward", aten.sigmoid_backward, FLOATING, inputs=2)
    cases.elementwise("TanhBackward", aten.tanh_backward, FLOATING, inputs=2)


BACKWARD = [
    ("LeakyReluBackward", gradient(lambda x: F.leaky_relu(x, 0.1)), (0.1, False)),
    ("ThresholdBackward", lambda g, x: aten.threshold_backward(g, x, 0.5), (0.5,)),
    ("HardtanhBackward", lambda g, x: aten.hardtanh_backward(g, x, -0.5, 1.5), (-0.5, 1.5)),
    ("HardsigmoidBackward", lambda g, x: torch.where((x > -3) & (x < 3), g / 6, 0.0), ()), ("HardswishBackward", hardswish_gradient, ()),
    ("HardswishBackwardV2", hardswish_gradient, ()), ("HardshrinkBackward", lambda g, x: aten.hardshrink_backward(g, x, 0.6), (0.6,)),
    ("SoftshrinkBackward", lambda g, x: aten.softshrink_backward(g, x, 0.6), (0.6,)),
    ("SoftplusBackward", lambda g, x: aten.softplus_backward(g, x, 1.5, 3.0), (1.5, 3.0)), ("MishBackward", gradient(F.mish), ()),
    ("SiluBackward", gradient(F.silu), ()), ("SwishBackward", swish_gradient(1.2), (1.2,)),
    ("FastGeluBackward", swish_gradient(1.702), ()), ("GeluBackward", gelu_gradient, ()),
    ("GeluBackwardV2", gelu_gradient, ("none",)), ("GeluBackwardV2", gelu_tanh_gradient, ("tanh",)),
]


@pytest.mark.parametrize("op, reference, extra", BACKWARD, ids=lambda v: v if isinstance(v, str) else "")
def test_backward(op, reference, extra):
    cases.elementwise(op, reference, FLOATS, inputs=2, extra=extra, low=-5, high=5)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("layout", cases.LAYOUTS)
@pytest.mark.parametrize("is_result", [False, True])
def test_elu_backward(dtype, layout, is_result):
    g, x = (cases.tensor((3, 5, 7), dtype, layout, -3, 3, s) for s in (1, 2))
    out = cases.empty((3, 5, 7), dtype, layout)
    aclnn.call("EluBackward", g, 1.3, 1.1, 0.9, is_result, x, out)
    cases.compare(out, aten.elu_backward(cases.wide(g), 1.3, 1.1, 0.9, is_result, cases.wide(x)))
    aclnn.call("SeluBackward", g, x, out)
    alpha, scale = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
    cases.compare(out, aten.elu_backward(cases.wide(g), alpha, scale, 1, True, cases.wide(x)))


@pytest.mark.parametrize("eps", [-1.0, 0.1])
def test_logit_backward(eps):
    """PyTorch's vector loop and its scalar one answer differently for NaN and -0: the scalar one's answers, so one by one."""
    def reference(x, g):
        x, g = torch.broadcast_tensors(x, g)
        return torch.stack([aten.logit_backward(b, a, eps if eps >= 0 else None) for a, b in zip(x.reshape(-1), g.reshape(-1))]).view(
            x.shape) if x.numel() else x
    cases.elementwise("LogitGrad", reference, FLOATS, inputs=2, extra=(eps,), low=0.0, high=1.0)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_log_sigmoid(dtype, layout):
    x, g = (cases.tensor((3, 5, 7), dtype, layout, -5, 5, s) for s in (1, 2))
    out = cases.empty((3, 5, 7), dtype, layout)
    for buffer in (torch.empty(0, dtype=dtype), cases.empty((3, 5, 7), dtype, layout)):
        aclnn.call("LogSigmoidForward", x, out, buffer)
        cases.compare(out, F.logsigmoid(cases.wide(x)))
        aclnn.call("LogSigmoidBackward", g, x, buffer, out)
        cases.compare(out, gradient(F.logsigmoid)(cases.wide(g), cases.wide(x)))


def gates(dtype, layout, dim):
    shape = [4, 6, 8]
    if layout == "empty":
        shape[0] = 0
    half = list(shape)
    half[dim] //= 2
    x = cases.lay(cases.values(shape, dtype, -4, 4, 1), layout)
    g = cases.lay(cases.values(half, dtype, -2, 2, 2), layout)
    return x, g, cases.lay(torch.full(half, 77, dtype=torch.float64).to(dtype), cases.OUTPUT_LAYOUTS.get(layout, layout)), cases.empty(
        [4, *shape[1:]], dtype, layout)


GATES = {
    "Glu": lambda x, d: F.glu(x, d), "SwiGlu": lambda x, d: F.silu(x.chunk(2, d)[0]) * x.chunk(2, d)[1]}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("layout", [n for n in cases.LAYOUTS if n not in ("scalar", "expanded")])
@pytest.mark.parametrize("dim", [-1, 0, 1])
def test_gates(dtype, layout, dim):
    x, g, out, grad = gates(dtype, layout, dim)
    for op, reference in GATES.items():
        aclnn.call(op, x, dim, out)
        cases.compare(out, reference(cases.wide(x), dim))
        backward = "SwiGluGrad" if op == "SwiGlu" else op + "Backward"
        aclnn.call(backward, g, x, dim, grad)
        cases.compare(grad, gradient(lambda v: reference(v, dim))(cases.wide(g), cases.wide(x)))
    for approximate, name in enumerate(("none", "tanh")):
        for left in (False, True):
            def reference(v):
                a, b = v.chunk(2, dim) if left else v.chunk(2, dim)[::-1]
                return F.gelu(a, approximate=name) * b
            gelu = torch.empty_like(out)
            aclnn.call("GeGluV3", x, dim, approximate, left, out, gelu)
            cases.compare(out, reference(cases.wide(x)))
            cases.compare(gelu, F.gelu(cases.wide(x).chunk(2, dim)[0 if left else 1], approximate=name))
            aclnn.call("GeGluV3Backward", g, x, gelu, dim, approximate, left, grad)
            expected = gradient(reference)(cases.wide(g), cases.wide(x))
            cases.compare(grad, expected, rtol=2 * cases.TOLERANCE[dtype][0])  # gelu was rounded to dtype on the way
            if not left:
                aclnn.call("GeGlu", x, dim, approximate, out, gelu)
                cases.compare(out, reference(cases.wide(x)))
    if dim == -1:
        a, b = cases.wide(x).chunk(2, -1)
        aclnn.call("GeluMul", x, "tanh", out)
        cases.compare(out, F.gelu(a, approximate="tanh") * b)
        aclnn.call("FatreluMul", x, torch.tensor([0.5], dtype=dtype), out)
        cases.compare(out, torch.where(a > 0.5, a, 0.0) * b)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(4, 3, 5, 7), (6, 3), (5,), (), (0, 3, 2), (2, 3, 64, 64)])
@pytest.mark.parametrize("one", [True, False])
def test_prelu(dtype, shape, one):
    x, g = cases.values(shape, dtype, -3, 3, 1), cases.values(shape, dtype, -3, 3, 2)
    channels = 1 if one or len(shape) < 2 else shape[1]
    for layout in ("contiguous", "transposed"):
        x, g = cases.lay(x, layout), cases.lay(g, layout)
        for weight_shape in {(channels,), (1, channels, *[1] * (len(shape) - 2)) if len(shape) > 1 else (channels,)}:
            w = cases.values(weight_shape, dtype, 0, 1, 3)
            xx, ww = (cases.wide(t).detach().clone().requires_grad_(True) for t in (x, w))
            expected = F.prelu(xx, ww.reshape(-1))
            out, gx, gw = torch.full_like(x, 77), torch.full_like(x, 77), torch.full_like(w, 77)
            aclnn.call("Prelu", x, w, out)
            cases.compare(out, expected.detach())
            expected.backward(cases.wide(g))
            aclnn.call("PreluBackward", g, x, w, gx, gw)
            cases.compare(gx, xx.grad)
            cases.compare(gw, ww.grad)


def test_shrink():
    def reference(x):
        return torch.where(x < -0.6, x + 0.25, torch.where(x > 0.6, x - 0.25, torch.where(x.isnan(), x, 0.0)))
    cases.elementwise("Shrink", reference, FLOATS, extra=(0.6, 0.25))


def test_add_relu():
    cases.elementwise("AddRelu", lambda a, b: F.relu(a + 2 * b), [*FLOATS, *cases.SIGNED], inputs=2, extra=(2,))


def test_gelu_tails():
    """No cancellation for negative x: better than x/2 (1 + erf) in float32."""
    x = torch.linspace(-5.4, 5.4, 20001)
    out = torch.empty_like(x)
    aclnn.call("Gelu", x, out)
    expected = 0.5 * x.double() * torch.erfc(-x.double() * 0.5**0.5)
    torch.testing.assert_close(out.double(), expected, rtol=4e-6, atol=0)
    far = torch.tensor([-200.0, -14.0, 100.0, float("inf"), float("nan")])
    out = torch.empty_like(far)
    aclnn.call("Gelu", far, out)
    torch.testing.assert_close(out, torch.tensor([-0.0, -0.0, 100.0, float("inf"), float("nan")]), equal_nan=True, rtol=0, atol=1e-30)


def test_errors():
    x = torch.zeros(2, 3)
    with pytest.raises(aclnn.Failed, match=r"self has shape \[2,3\], expected an even size of dimension 1"):
        aclnn.call("Glu", x, -1, x)
    with pytest.raises(aclnn.Failed, match="approximate is \"erf\", expected \"none\" or \"tanh\""):
        aclnn.call("GeluBackwardV2", x, x, "erf", x)
    with pytest.raises(aclnn.Failed, match=r"weight has shape \[2\], expected one value or as many as dimension 1 of self \[2,3\]"):
        aclnn.call("Prelu", x, torch.zeros(2), x)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_rrelu(dtype, layout):
    x = cases.tensor((30, 5, 70), dtype, layout, -3, 3)
    out, noise = cases.empty((30, 5, 70), dtype, layout), cases.empty((30, 5, 70), dtype, layout)
    aclnn.call("RReluWithNoise", x, noise, 0.1, 0.4, True, 7, 0, out)
    negative = x <= 0
    assert (noise[~negative] == 1).all()
    assert ((noise[negative] >= 0.0999) & (noise[negative] <= 0.4001)).all()
    if negative.sum() > 1000:
        assert abs(noise[negative].double().mean() - 0.25) < 0.01
    cases.compare(out, cases.wide(x) * cases.wide(noise))
    again = torch.empty_like(x.contiguous()).copy_(x)
    if layout == "contiguous":
        aclnn.call("InplaceRReluWithNoise", again, noise, 0.1, 0.4, True, 7, 0)
        assert torch.equal(again, out)
    aclnn.call("RReluWithNoise", x, noise, 0.1, 0.4, False, 7, 0, out)
    cases.compare(out, F.rrelu(cases.wide(x), 0.1, 0.4))
