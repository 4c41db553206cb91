"""Normalisation operators against PyTorch in float64, over types and layouts."""

import pytest
import torch
import torch.nn.functional as F

import accuracy
import aclnn

TYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
LAYOUTS = ["contiguous", "transposed", "offset", "channels_last"]


def make(shape, dtype, layout="contiguous", mean=0.0, std=1.0):
    """Values with a mean that isn't 0, in memory of the given layout."""
    values = (torch.randn(shape, dtype=torch.float64) * std + mean).to(dtype)
    return arrange(values, layout)


def arrange(values, layout):
    if layout == "transposed" and values.dim() >= 2:
        return values.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "offset":
        padded = torch.zeros([s + 2 for s in values.shape], dtype=values.dtype)
        inner = padded[tuple(slice(1, 1 + s) for s in values.shape)]
        inner.copy_(values)
        return inner
    if layout == "channels_last" and values.dim() == 4:
        return values.contiguous(memory_format=torch.channels_last)
    return values


def empty(shape, dtype, layout="contiguous"):
    return arrange(torch.full(shape, 7, dtype=dtype), layout)


def check(actual, expected, dtype=None, factor=1.0):
    tolerance = TOLERANCE[dtype or actual.dtype] * factor
    expected = expected.detach().double()
    scale = expected.abs().max().item() if expected.numel() else 1.0
    torch.testing.assert_close(actual.double(), expected, rtol=tolerance, atol=tolerance * max(scale, 1.0), equal_nan=True)
    accuracy.record(aclnn.writers(actual), actual, expected)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape,dims", [((5, 7), 1), ((3, 4, 33), 1), ((2, 3, 4, 5), 2), ((130, 768), 1), ((2, 5000), 1), ((1, 1), 1)])
@pytest.mark.parametrize("affine", [True, False])
def test_layer_norm(dtype, layout, shape, dims, affine):
    torch.manual_seed(0)
    x, dy = make(shape, dtype, layout, mean=3), make(shape, dtype, layout)
    n = list(shape[-dims:])
    weight, bias = (make(n, dtype), make(n, dtype)) if affine else (None, None)
    y = empty(shape, dtype, layout)
    statistics = torch.float64 if dtype == torch.float64 else torch.float32
    mean, rstd = (torch.empty(shape[:-dims] + (1,) * dims, dtype=statistics) for _ in range(2))
    aclnn.call("LayerNorm", x, n, weight, bias, 1e-5, y, mean, rstd)
    xr = x.double().requires_grad_()
    wr, br = (weight.double().requires_grad_(), bias.double().requires_grad_()) if affine else (None, None)
    expected = F.layer_norm(xr, n, wr, br, 1e-5)
    check(y, expected)
    check(mean, xr.reshape(*shape[:-dims], -1).mean(-1).reshape(mean.shape))
    expected.backward(dy.double())
    dx = empty(shape, dtype, layout)
    dw, db = (torch.empty(n, dtype=statistics) for _ in range(2))
    aclnn.call("LayerNormBackward", dy, x, n, mean, rstd, weight, bias, [True, affine, affine], dx, dw if affine else None,
               db if affine else None)
    check(dx, xr.grad, factor=2)
    if affine:
        check(dw, wr.grad, dtype=dtype, factor=4)
        check(db, br.grad, dtype=dtype, factor=4)


def test_layer_norm_of_large_mean():
    """Statistics must not cancel when the mean is large beside the deviation."""
    x = make((4, 4096), torch.float32, mean=1e4)
    y, mean, rstd = torch.empty_like(x), torch.empty(4, 1), torch.empty(4, 1)
    aclnn.call("LayerNorm", x, [4096], None, None, 1e-5, y, mean, rstd)
    check(rstd.reshape(4), 1 / (x.double().var(-1, unbiased=False) + 1e-5).sqrt(), factor=5)


def test_layer_norm_backward_of_no_rows():
    x = torch.empty(0, 8)
    dw, db = torch.full((8,), 5.0), torch.full((8,), 5.0)
    aclnn.call("LayerNormBackward", x, x, [8], torch.empty(0, 1), torch.empty(0, 1), torch.ones(8), torch.ones(8),
               [False, True, True], None, dw, db)
    assert dw.eq(0).all() and db.eq(0).all()


def test_layer_norm_propagates_nan():
    x = torch.randn(3, 8)
    x[1, 2] = float("nan")
    y = torch.empty_like(x)
    aclnn.call("LayerNorm", x, [8], None, None, 1e-5, y, None, None)
    assert y[1].isnan().all() and not y[0].isnan().any() and not y[2].isnan().any()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(6, 40), (2, 3, 515), (200, 64)])
def test_rms_norm(dtype, layout, shape):
    torch.manual_seed(0)
    x, x2, dy, gamma = make(shape, dtype, layout), make(shape, dtype), make(shape, dtype, layout), make(shape[-1:], dtype)
    statistics = torch.float64 if dtype == torch.float64 else torch.float32
    y, rstd = empty(shape, dtype, layout), torch.empty(shape[:-1] + (1,), dtype=statistics)
    aclnn.call("RmsNorm", x, gamma, 1e-6, y, rstd)
    xr, gr = x.double().requires_grad_(), gamma.double().requires_grad_()
    expected = F.rms_norm(xr, shape[-1:], gr, 1e-6)
    check(y, expected)
    expected.backward(dy.double())
    dx, dgamma = empty(shape, dtype, layout), torch.empty(shape[-1:], dtype=statistics)
    aclnn.call("RmsNormGrad", dy, x, rstd, gamma, dx, dgamma)
    check(dx, xr.grad, factor=2)
    check(dgamma, gr.grad, dtype=dtype, factor=4)
    total = empty(shape, dtype)
    aclnn.call("AddRmsNorm", x, x2, gamma, 1e-6, y, rstd, total)
    check(total, x.double() + x2.double())
    check(y, F.rms_norm(x.double() + x2.double(), shape[-1:], gamma.double(), 1e-6))
    aclnn.call("GemmaRmsNorm", x, gamma, 1e-6, y, rstd)
    check(y, F.rms_norm(x.double(), shape[-1:], gamma.double() + 1, 1e-6))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(6, 40), (2, 3, 515), (4, 3, 5, 8)])
def test_sums_normalised_by_rms(dtype, layout, shape):
    x1, x2, gamma, beta = make(shape, dtype, layout), make(shape, dtype), make(shape[-1:], dtype, layout), make(shape[-1:], dtype)
    total = x1.double() + x2.double()
    expected, root = F.rms_norm(total, shape[-1:], gamma.double(), 1e-6), 1 / (total.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    rstd = torch.empty(shape[:-1] + (1,), dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    y, y2, x = (empty(shape, t, layout) for t in (dtype, torch.float32, dtype))
    aclnn.call("AddRmsNormBias", x1, x2, gamma, beta, 1e-6, y, rstd, x)
    check(y, expected + beta.double())
    check(x, total)
    check(rstd, root, dtype=dtype)
    aclnn.call("AddRmsNormCast", x1, x2, gamma, 1e-6, y2, y, rstd.zero_(), x.zero_())
    check(y, expected)
    check(y2, expected)
    check(x, total)
    check(rstd, root, dtype=dtype)
    aclnn.call("InplaceAddRmsNorm", x1, x2, gamma, 1e-6, rstd.zero_())
    check(x1, expected)
    check(x2, total)
    check(rstd, root, dtype=dtype)


@pytest.mark.parametrize("dtype", TYPES)
def test_add_layer_norm(dtype):
    torch.manual_seed(0)
    shape = (3, 17, 48)
    x1, x2, dy, dsum = (make(shape, dtype) for _ in range(4))
    gamma, beta, bias = (make(shape[-1:], dtype) for _ in range(3))
    statistics = torch.float64 if dtype == torch.float64 else torch.float32
    y, total, dx = empty(shape, dtype), empty(shape, dtype), empty(shape, dtype)
    mean, rstd = (torch.empty(shape[:-1] + (1,), dtype=statistics) for _ in range(2))
    aclnn.call("AddLayerNorm", x1, x2, gamma, beta, bias, 1e-5, True, y, mean, rstd, total)
    s = x1.double() + x2.double() + bias.double()
    check(total, s)
    check(y, F.layer_norm(s, shape[-1:], gamma.double(), beta.double(), 1e-5), factor=2)
    aclnn.call("AddLayerNorm", x1, x2, gamma, beta, None, 1e-5, False, y, mean, rstd, None)
    s = (x1.double() + x2.double()).requires_grad_()
    gr, br = gamma.double().requires_grad_(), beta.double().requires_grad_()
    F.layer_norm(s, shape[-1:], gr, br, 1e-5).backward(dy.double())
    dgamma, dbeta = (torch.empty(shape[-1:], dtype=statistics) for _ in range(2))
    aclnn.call("AddLayerNormGrad", dy, x1, x2, rstd, mean, gamma, dsum, dx, dgamma, dbeta)
    check(dx, s.grad + dsum.double(), factor=2)
    check(dgamma, gr.grad, dtype=dtype, factor=4)
    check(dbeta, br.grad, dtype=dtype, factor=4)


@pytest.mark.parametrize("dtype", TYPES)
def test_deep_norm(dtype):
    torch.manual_seed(0)
    shape, alpha = (3, 9, 40), 0.7
    x, gx, dy = (make(shape, dtype) for _ in range(3))
    gamma, beta = (make(shape[-1:], dtype) for _ in range(2))
    statistics = torch.float64 if dtype == torch.float64 else torch.float32
    mean, rstd = (torch.empty(shape[:-1] + (1,), dtype=statistics) for _ in range(2))
    y, dx, dgx = (empty(shape, dtype) for _ in range(3))
    aclnn.call("DeepNorm", x, gx, beta, gamma, alpha, 1e-6, mean, rstd, y)
    xr, gxr, gr, br = (t.double().requires_grad_() for t in (x, gx, gamma, beta))
    expected = F.layer_norm(xr * alpha + gxr, shape[-1:], gr, br, 1e-6)
    check(y, expected, factor=2)
    expected.backward(dy.double())
    dgamma, dbeta = (torch.empty(shape[-1:], dtype=statistics) for _ in range(2))
    aclnn.call("DeepNormGrad", dy, x, gx, gamma, mean, rstd, alpha, dx, dgx, dbeta, dgamma)
    check(dx, xr.grad, factor=2)
    check(dgx, gxr.grad, factor=2)
    check(dgamma, gr.grad, dtype=dtype, factor=4)
    check(dbeta, br.grad, dtype=dtype, factor=4)


BATCHES = [(6, 5), (200, 130), (4, 3, 9), (3, 5, 4, 4), (4, 6, 10, 11), (2, 3, 150, 130), (2, 3, 4, 5, 6), (70, 64, 2, 2)]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", BATCHES)
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm(dtype, layout, shape, training):
    torch.manual_seed(0)
    channels = shape[1]
    x, dy = make(shape, dtype, layout, mean=2, std=3), make(shape, dtype, layout)
    parameter = torch.float64 if dtype == torch.float64 else torch.float32
    weight, bias = make([channels], parameter), make([channels], parameter)
    running_mean, running_var = make([channels], parameter), make([channels], parameter).abs() + 0.1
    reference_mean, reference_var = running_mean.double(), running_var.double()
    before = running_mean.clone(), running_var.clone()
    y = empty(shape, dtype, layout)
    mean, invstd = (torch.empty(channels, dtype=parameter) for _ in range(2))
    aclnn.call("BatchNorm", x, weight, bias, running_mean, running_var, training, 0.1, 1e-5, y, mean, invstd)
    xr, wr, br = (t.double().requires_grad_() for t in (x, weight, bias))
    expected = F.batch_norm(xr, reference_mean, reference_var, wr, br, training, 0.1, 1e-5)
    check(y, expected, factor=2)
    if training:
        check(running_mean, reference_mean, factor=2)
        check(running_var, reference_var, factor=2)
    else:
        assert torch.equal(running_mean, before[0]) and torch.equal(running_var, before[1])
    expected.backward(dy.double())
    dx = empty(shape, dtype, layout)
    dw, db = (torch.empty(channels, dtype=parameter) for _ in range(2))
    aclnn.call("BatchNormBackward", dy, x, weight, running_mean, running_var, mean, invstd, training, 1e-5,
               [True, True, True], dx, dw, db)
    check(dx, xr.grad, factor=4)
    check(dw, wr.grad, factor=8)
    check(db, br.grad, factor=8)


def test_batch_norm_without_parameters():
    x = torch.randn(8, 3, 5)
    y = torch.empty_like(x)
    aclnn.call("BatchNorm", x, None, None, None, None, True, 0.1, 1e-5, y, torch.empty(3), torch.empty(3))
    check(y, F.batch_norm(x.double(), None, None, None, None, True))
    with pytest.raises(aclnn.Failed, match="runningMean is null"):
        aclnn.call("BatchNorm", x, None, None, None, None, False, 0.1, 1e-5, y, torch.empty(3), torch.empty(3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_batch_norm_over_processes(dtype):
    """Two processes' pieces give the result of one batch."""
    torch.manual_seed(0)
    parts = [make((n, 6, 5, 7), dtype, mean=1) for n in (3, 4)]
    whole = torch.cat(parts).double()
    statistics = []
    for part in parts:
        mean, invstd = torch.empty(6), torch.empty(6)
        aclnn.call("BatchNormStats", part, 1e-5, mean, invstd)
        check(mean, part.double().mean((0, 2, 3)))
        statistics.append((mean, invstd))
    means, invstds = (torch.stack(s) for s in zip(*statistics))
    counts = torch.tensor([float(p.numel() // 6) for p in parts])
    running_mean, running_var = torch.zeros(6), torch.ones(6)
    mean, invstd = torch.empty(6), torch.empty(6)
    aclnn.call("BatchNormGatherStatsWithCounts", parts[0], means, invstds, running_mean, running_var, 0.1, 1e-5, counts, mean,
               invstd)
    check(mean, whole.mean((0, 2, 3)))
    check(invstd, 1 / (whole.var((0, 2, 3), unbiased=False) + 1e-5).sqrt(), factor=5)
    check(running_var, 0.9 + 0.1 * whole.var((0, 2, 3)), factor=5)
    weight, bias, dy = make([6], torch.float32), make([6], torch.float32), make(whole.shape, dtype)
    wr, xr = weight.double().requires_grad_(), whole.clone().requires_grad_()
    expected = F.batch_norm(xr, None, None, wr, bias.double(), True)
    expected.backward(dy.double())
    y = torch.empty_like(parts[0])
    aclnn.call("BatchNormElemt", parts[0], weight, bias, mean, invstd, 1e-5, y)
    check(y, expected[:3], factor=2)
    sums = [torch.empty(6) for _ in range(4)]
    aclnn.call("BatchNormReduceBackward", dy, whole.to(dtype), mean, invstd, weight, True, True, True, *sums)
    check(sums[2], wr.grad, factor=10)
    dx = torch.empty_like(parts[0])
    aclnn.call("BatchNormElemtBackward", dy[:3], parts[0], mean, invstd, weight, sums[0], sums[1],
               torch.tensor([int(c) for c in counts], dtype=torch.int32), dx)
    check(dx, xr.grad[:3], factor=2)


def test_sync_batch_norm_sums():
    torch.manual_seed(0)
    parts = [torch.randn(n, 6, 5) + 1 for n in (3, 4)]
    whole = torch.cat(parts).double()
    sums = []
    for part in parts:
        total, squares = torch.empty(6), torch.empty(6)
        aclnn.call("BatchNormReduce", part, total, squares)
        check(total, part.double().sum((0, 2)))
        check(squares, part.double().square().sum((0, 2)))
        sums.append((total, squares))
    mean, invstd, running_mean, running_var = torch.empty(6), torch.empty(6), torch.zeros(6), torch.ones(6)
    aclnn.call("SyncBatchNormGatherStats", *(torch.stack(s) for s in zip(*sums)), torch.tensor([15, 20], dtype=torch.int32),
               running_mean, running_var, 0.1, 1e-5, mean, invstd)
    check(mean, whole.mean((0, 2)))
    check(invstd, 1 / (whole.var((0, 2), unbiased=False) + 1e-5).sqrt(), factor=5)
    check(running_mean, 0.1 * whole.mean((0, 2)), factor=5)
    check(running_var, 0.9 + 0.1 * whole.var((0, 2)), factor=5)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape,groups", [((2, 6, 5, 7), 3), ((3, 4), 2), ((2, 8, 100, 90), 2), ((1, 5, 3), 5), ((4, 6, 4), 1)])
@pytest.mark.parametrize("affine", [True, False])
def test_group_norm(dtype, layout, shape, groups, affine):
    torch.manual_seed(0)
    n, channels = shape[:2]
    hw = torch.Size(shape[2:]).numel()
    x, dy = make(shape, dtype, layout, mean=2), make(shape, dtype, layout)
    gamma, beta = (make([channels], dtype), make([channels], dtype)) if affine else (None, None)
    y = empty(shape, dtype, layout)
    statistics = torch.float64 if dtype == torch.float64 else torch.float32
    mean, rstd = (torch.empty(n, groups, dtype=statistics) for _ in range(2))
    aclnn.call("GroupNorm", x, gamma, beta, n, channels, hw, groups, 1e-5, y, mean, rstd)
    xr = x.double().requires_grad_()
    gr, br = (gamma.double().requires_grad_(), beta.double().requires_grad_()) if affine else (None, None)
    expected = F.group_norm(xr, groups, gr, br, 1e-5)
    check(y, expected, factor=2)
    expected.backward(dy.double())
    dx = empty(shape, dtype, layout)
    dgamma, dbeta = (torch.empty(channels, dtype=statistics) for _ in range(2)) if affine else (None, None)
    aclnn.call("GroupNormBackward", dy, x, mean, rstd, gamma, n, channels, hw, groups, [True, affine, affine], dx, dgamma, dbeta)
    check(dx, xr.grad, factor=4)
    if affine:
        check(dgamma, gr.grad, dtype=dtype, factor=8)
        check(dbeta, br.grad, dtype=dtype, factor=8)
        aclnn.call("GroupNormSilu", x, gamma, beta, groups, 1e-5, y, mean, rstd)
        check(y, F.silu(expected), factor=4)
        aclnn.call("GroupNormSiluV2", x, gamma, beta, groups, 1e-5, False, y, mean, rstd)
        check(y, expected, factor=2)
        for activate, scale in ((False, 1.7), (True, 1.7)):
            aclnn.call("GroupNormSwish", x, gamma, beta, groups, "NCHW", 1e-5, activate, scale, y, mean, rstd)
            check(y, expected * torch.sigmoid(scale * expected) if activate else expected, factor=4)


def test_errors_name_the_argument():
    x = torch.randn(2, 6, 4)
    with pytest.raises(aclnn.Failed, match=r"normalizedShape is \[5\], which is not the end of input's shape \[2,6,4\]"):
        aclnn.call("LayerNorm", x, [5], None, None, 1e-5, torch.empty_like(x), None, None)
    with pytest.raises(aclnn.Failed, match=r"weight has shape \[5\], expected \[6\]"):
        aclnn.call("BatchNorm", x, torch.ones(5), None, None, None, True, 0.1, 1e-5, torch.empty_like(x), None, None)
    with pytest.raises(aclnn.Failed, match="C must be a multiple of group"):
        aclnn.call("GroupNorm", x, None, None, 2, 6, 4, 4, 1e-5, torch.empty_like(x), None, None)
