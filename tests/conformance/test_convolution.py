"""Convolutions and their gradients against PyTorch in float64, over axes, types, attributes and layouts."""

import itertools

import pytest
import torch
import torch.nn.functional as F

import aclnn
import cases

FLOATS = cases.FLOATS
FORWARD = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}

# (batch, in channels, out channels, groups, size, kernel, stride, padding, dilation, output padding)
PLAIN = [
    (2, 3, 5, 1, (9,), (3,), (1,), (1,), (1,), (0,)),
    (3, 4, 6, 2, (17,), (4,), (3,), (2,), (2,), (1,)),
    (2, 1, 16, 1, (8, 8), (3, 3), (1, 1), (1, 1), (1, 1), (0, 0)),
    (5, 16, 33, 1, (8, 8), (3, 3), (1, 1), (1, 1), (1, 1), (0, 0)),
    (2, 8, 12, 4, (10, 13), (3, 2), (2, 3), (1, 0), (1, 2), (1, 2)),
    (2, 6, 6, 6, (11, 12), (3, 3), (1, 1), (1, 1), (1, 1), (0, 0)),
    (1, 6, 12, 6, (11, 12), (5, 3), (2, 2), (2, 1), (1, 1), (1, 1)),
    (3, 20, 40, 1, (7, 7), (1, 1), (1, 1), (0, 0), (1, 1), (0, 0)),
    (2, 10, 9, 1, (14, 15), (1, 1), (2, 2), (0, 0), (1, 1), (1, 0)),
    (1, 3, 24, 1, (40, 40), (7, 7), (2, 2), (3, 3), (1, 1), (1, 1)),
    (2, 5, 7, 1, (9, 9), (3, 3), (1, 1), (2, 2), (2, 2), (0, 0)),
    (2, 5, 7, 1, (12, 9), (2, 3), (4, 3), (0, 0), (3, 1), (3, 0)),
    (2, 4, 6, 2, (5, 6, 7), (3, 2, 3), (1, 2, 1), (1, 0, 1), (1, 1, 2), (0, 1, 0)),
    (1, 3, 4, 1, (6, 5, 8), (2, 2, 2), (2, 2, 2), (0, 1, 0), (1, 1, 1), (1, 1, 1)),
    (4, 130, 70, 1, (6, 6), (3, 3), (1, 1), (1, 1), (1, 1), (0, 0)),
]


def tolerance(dtype, terms):
    unit = {torch.float32: 6e-8, torch.float64: 2e-16}.get(dtype, 6e-8)
    r, a = cases.TOLERANCE[dtype]
    return dict(rtol=r, atol=max(a if dtype in (torch.float16, torch.bfloat16) else 0, unit * (terms + 8 * (terms + 1) ** 0.5)))


def operands(case, dtype, transposed, layout="contiguous"):
    n, ci, co, groups, size, kernel, *_ = case
    filter_shape = (ci, co // groups, *kernel) if transposed else (co, ci // groups, *kernel)
    x = cases.tensor((n, ci, *size), dtype, layout, -1, 1, cases.seed_of("x", case))
    w = cases.tensor(filter_shape, dtype, layout, -1, 1, cases.seed_of("w", case))
    b = cases.tensor((co,), dtype, layout, -1, 1, cases.seed_of("b", case))
    return x, w, b


def reference(case, transposed, x, w, b):
    _, _, _, groups, size, _, stride, padding, dilation, output_padding = case
    axes = len(size)
    if transposed:
        return TRANSPOSED[axes](x, w, b, stride, padding, output_padding, groups, dilation)
    return FORWARD[axes](x, w, b, stride, padding, dilation, groups)


def valid(case, transposed):
    stride, dilation, output_padding = case[6], case[8], case[9]
    return not transposed or all(o < max(s, d) for o, s, d in zip(output_padding, stride, dilation))


def attributes(case, transposed):
    _, _, _, groups, _, _, stride, padding, dilation, output_padding = case
    return stride, padding, dilation, transposed, output_padding if transposed else [0] * len(stride), groups


def forward(case, transposed, x, w, b, out):
    aclnn.call("Convolution", x, w, b, *attributes(case, transposed), out, 0)


@pytest.mark.parametrize("transposed", [False, True])
def test_integers(transposed):
    for case in filter(lambda c: valid(c, transposed), PLAIN):
        x, w, b = operands(case, torch.int64, transposed)
        x, w = x * 2**40 + 3, w * 2**21 + 1  # products that wrap
        for layout in ("contiguous", "strided"):
            x, w = cases.lay(x, layout), cases.lay(w, layout)
            for bias in (b, None):
                expected = reference(case, transposed, x, w, bias)
                out = cases.empty(expected.shape, torch.int64, layout)
                forward(case, transposed, x, w, bias, out)
                cases.compare(out, expected)
    with pytest.raises(aclnn.Failed, match="weight has type float32, expected int64 as input has"):
        forward(case, transposed, x, w.float(), None, out)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", FLOATS)
def test_forward(dtype, transposed):
    for case in filter(lambda c: valid(c, transposed), PLAIN):
        x, w, b = operands(case, dtype, transposed)
        terms = w[0].numel() * (case[0] if transposed else 1)
        for bias in (b, None):
            expected = reference(case, transposed, x.double(), w.double(), None if bias is None else b.double())
            out = cases.empty(tuple(expected.shape), dtype)
            forward(case, transposed, x, w, bias, out)
            cases.compare(out, expected, **tolerance(dtype, terms))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("layout", ["transposed", "strided", "offset", "expanded", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layouts(dtype, layout, transposed):
    for case in PLAIN[1], PLAIN[4], PLAIN[3], PLAIN[12]:
        if layout == "channels_last":
            x, w, b = operands(case, dtype, transposed)
            if x.dim() == 4:
                x, w = (t.contiguous(memory_format=torch.channels_last) for t in (x, w))
        else:
            x, w, b = operands(case, dtype, transposed, layout)
        expected = reference(case, transposed, x.double(), w.double(), b.double())
        out = cases.empty(tuple(expected.shape), dtype, "transposed" if layout == "channels_last" else layout)
        forward(case, transposed, x, w, b, out)
        cases.compare(out, expected, **tolerance(dtype, w[0].numel() * case[0]))
        backward(case, transposed, x, w, b, dtype)


def backward(case, transposed, x, w, b, dtype, mask=(True, True, True)):
    xd, wd, bd = (t.double().detach().requires_grad_() for t in (x, w, b))
    out = reference(case, transposed, xd, wd, bd)
    grad = cases.tensor(tuple(out.shape), dtype, "contiguous", -1, 1, 9)
    expected = torch.autograd.grad(out, (xd, wd, bd), grad.double())
    results = [cases.empty(tuple(t.shape), dtype) if m else None for t, m in zip((x, w, b), mask)]
    stride, padding, dilation, _, output_padding, groups = attributes(case, transposed)
    aclnn.call("ConvolutionBackward", grad, x, w, list(b.shape), stride, padding, dilation, transposed, output_padding, groups,
               list(mask), 0, *results)
    points = grad.numel() // grad.shape[1] if grad.dim() > 1 else 1
    terms = (w.numel() // w.shape[1], max(points, x.numel() // x.shape[1]), points)
    for result, e, n in zip(results, expected, terms):
        if result is not None:
            cases.compare(result, e, **tolerance(dtype, n))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", FLOATS)
def test_backward(dtype, transposed):
    for case in filter(lambda c: valid(c, transposed), PLAIN):
        backward(case, transposed, *operands(case, dtype, transposed), dtype)


@pytest.mark.parametrize("mask", list(itertools.product([True, False], repeat=3)))
def test_output_mask(mask):
    backward(PLAIN[3], False, *operands(PLAIN[3], torch.float32, False), torch.float32, mask)


def test_large_batch_and_odd_pixels():
    """Panels that cross images, several pieces of depth."""
    for case in [(67, 16, 32, 1, (7, 7), (3, 3), (1, 1), (1, 1), (1, 1), (0, 0)), (33, 48, 40, 1, (13, 11), (3, 3), (2, 2), (1, 1), (1, 1), (0, 0))]:
        for dtype in (torch.float32, torch.bfloat16):
            x, w, b = operands(case, dtype, False)
            expected = reference(case, False, x.double(), w.double(), b.double())
            out = cases.empty(tuple(expected.shape), dtype)
            forward(case, False, x, w, b, out)
            cases.compare(out, expected, **tolerance(dtype, w[0].numel()))
            backward(case, False, x, w, b, dtype)


def test_unbatched_and_empty():
    x, w, b = operands(PLAIN[3], torch.float32, False)
    expected = F.conv2d(x[0].double(), w.double(), b.double(), padding=1)
    out = cases.empty(tuple(expected.shape), torch.float32)
    forward(PLAIN[3], False, x[0], w, b, out)
    cases.compare(out, expected, **tolerance(torch.float32, 144))
    forward(PLAIN[3], False, x[:0], w, b, torch.empty(0, 33, 8, 8))
    grads = [torch.full((0, 16, 8, 8), 7.0), torch.full_like(w, 7), torch.full_like(b, 7)]
    aclnn.call("ConvolutionBackward", torch.empty(0, 33, 8, 8), x[:0], w, [33], [1, 1], [1, 1], [1, 1], False, [0, 0], 1,
               [True, True, True], 0, *grads)
    assert grads[1].abs().sum() == 0 and grads[2].abs().sum() == 0


def test_padding_pairs():
    x, w, b = operands(PLAIN[3], torch.float32, False)
    expected = F.conv2d(F.pad(x.double(), (2, 0, 1, 3)), w.double(), b.double())
    out = cases.empty(tuple(expected.shape), torch.float32)
    aclnn.call("Convolution", x, w, b, [1, 1], [1, 3, 2, 0], [1, 1], False, [0, 0], 1, out, 0)
    cases.compare(out, expected, **tolerance(torch.float32, 144))


@pytest.mark.parametrize("dtype", FLOATS)
def test_depthwise(dtype):
    for multiple in (1, 2):
        x = cases.tensor((2, 9, 12, 40), dtype, "contiguous", -1, 1, 1)
        w = cases.tensor((9 * multiple, 1, 3, 5), dtype, "contiguous", -1, 1, 2)
        b = cases.tensor((9 * multiple,), dtype, "contiguous", -1, 1, 3)
        for stride, padding, dilation in [([1, 1], [1, 2], [1, 1]), ([2, 1], [0, 3], [1, 2]), ([2, 2], [1, 1], [1, 1])]:
            expected = F.conv2d(x.double(), w.double(), b.double(), stride, padding, dilation, 9)
            out = cases.empty(tuple(expected.shape), dtype)
            aclnn.call("ConvDepthwise2d", x, w, [3, 5], b, stride, padding, dilation, out, 0)
            cases.compare(out, expected, **tolerance(dtype, 15))


@pytest.mark.parametrize("layout", ["contiguous", "transposed", "strided"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_time_batch_channels(dtype, layout):
    x = cases.tensor((11, 3, 6), dtype, layout, -1, 1, 1)
    w = cases.tensor((4, 6, 5), dtype, layout, -1, 1, 2)
    b = cases.tensor((5,), dtype, layout, -1, 1, 3)
    leaves = [t.double().contiguous().requires_grad_() for t in (x, w, b)]
    expected = torch.conv_tbc(*leaves, 2)
    out = cases.empty(tuple(expected.shape), dtype, layout)
    aclnn.call("ConvTbc", x, w, b, 2, out, 0)
    cases.compare(out, expected.detach(), **tolerance(dtype, 24))
    grad = cases.tensor(tuple(out.shape), dtype, "contiguous", -1, 1, 4)
    wanted = torch.autograd.grad(expected, leaves, grad.double())
    results = [cases.empty(tuple(t.shape), dtype, layout) for t in (x, w, b)]
    aclnn.call("ConvTbcBackward", grad, x, w, b, 2, 0, *results)
    for result, e in zip(results, wanted):
        cases.compare(result, e, **tolerance(dtype, 42))


@pytest.mark.parametrize("change,part", [
    (dict(groups=2), "groups 2"), (dict(stride=[0, 1]), "stride is 0"), (dict(padding=[-1, 0]), "padding is -1"),
    (dict(dilation=[9, 9]), "doesn't fit"), (dict(stride=[1, 1, 1]), "stride has 3 values"), (dict(groups=0), "groups is 0"),
    (dict(out=torch.zeros(2, 4, 8, 7)), "output has shape [2,4,8,7], expected [2,4,8,8]"),
    (dict(bias=torch.zeros(3)), "bias has shape [3], expected [4]"),
])
def test_errors(change, part):
    a = dict(x=torch.zeros(2, 3, 8, 8), w=torch.zeros(4, 3, 3, 3), bias=None, stride=[1, 1], padding=[1, 1], dilation=[1, 1],
             groups=1, out=torch.zeros(2, 4, 8, 8)) | change
    with pytest.raises(aclnn.Failed) as failure:
        aclnn.call("Convolution", a["x"], a["w"], a["bias"], a["stride"], a["padding"], a["dilation"], False, [0, 0], a["groups"],
                   a["out"], 0)
    assert part in str(failure.value) and failure.value.code == 161002
