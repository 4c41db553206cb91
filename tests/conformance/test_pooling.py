"""Pooling operators against PyTorch: exact for maxima and their places, in float64 for averages."""

import math

import pytest
import torch
import torch.nn.functional as F

import aclnn
from test_norm import arrange, check, empty, make

TYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
LAYOUTS = ["contiguous", "transposed", "offset", "channels_last"]

# shape, kernel, stride, padding, dilation, ceil_mode
MAX2D = [
    ((2, 3, 8, 8), 2, 2, 0, 1, False), ((2, 3, 9, 7), (3, 2), (2, 1), (1, 0), 1, True), ((1, 2, 112, 110), 3, 2, 1, 1, False),
    ((3, 10, 11), 3, 1, 1, 2, False), ((2, 2, 5, 130), (2, 3), (1, 3), 0, 1, True), ((1, 1, 1, 1), 1, 1, 0, 1, False),
    ((2, 3, 40, 200), 17, 5, 8, 1, True), ((2, 3, 6, 6), 3, [], 1, 1, True), ((2, 1, 60, 60), (20, 20), 2, 0, 1, False),
]
MAX3D = [((2, 3, 4, 6, 8), 2, 2, 0, 1, False), ((2, 5, 6, 7), (2, 3, 2), (1, 2, 3), (1, 1, 0), (2, 1, 1), True),
         ((1, 2, 3, 20, 100), 3, 1, 1, 1, False)]
AVG2D = [
    ((2, 3, 8, 8), 2, 2, 0, False), ((2, 3, 9, 7), (3, 2), (2, 1), (1, 1), True), ((1, 2, 112, 110), 3, 2, 1, False),
    ((3, 10, 11), 3, 1, 1, True), ((2, 2, 5, 130), (2, 3), (1, 3), 0, True), ((2, 3, 7, 7), 7, 1, 0, False), ((2, 3, 6, 6), 3, [], 1, True),
]
AVG3D = [((2, 3, 4, 6, 8), 2, 2, 0, False), ((2, 5, 6, 7), (2, 3, 2), (1, 2, 3), (1, 1, 0), True), ((1, 2, 3, 20, 100), 3, 1, 1, False)]


def many(value, dims):
    return list(value) if isinstance(value, (tuple, list)) else [value] * dims


def distinct(shape, dtype, layout):
    """Values with many ties, exactly representable in every type."""
    return arrange(torch.randint(-50, 50, shape).to(dtype), layout)


def reference_max(x, kernel, stride, padding, dilation, ceil_mode, dims):
    f = F.max_pool2d if dims == 2 else F.max_pool3d
    return f(x, kernel, stride or None, padding, dilation, ceil_mode, return_indices=True)


@pytest.mark.parametrize("dtype", TYPES + [torch.int32, torch.int64, torch.uint8])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", MAX2D)
def test_max_pool2d(dtype, layout, case):
    torch.manual_seed(0)
    shape, kernel, stride, padding, dilation, ceil_mode = case
    x = distinct(shape, dtype, layout)
    expected, places = reference_max(x.double().contiguous(), kernel, stride, padding, dilation, ceil_mode, 2)
    attributes = many(kernel, 2), many(stride, 2), many(padding, 2), many(dilation, 2), ceil_mode
    out, indices = torch.empty(expected.shape, dtype=dtype), torch.empty(expected.shape, dtype=torch.int32)
    aclnn.call("MaxPool2dWithIndices", x, *attributes, out, indices)
    assert torch.equal(out.double(), expected)
    assert torch.equal(indices.long(), places)
    if not dtype.is_floating_point:
        return
    dy = make(expected.shape, dtype)
    xr = x.double().clone(memory_format=torch.contiguous_format).requires_grad_()
    reference_max(xr, kernel, stride, padding, dilation, ceil_mode, 2)[0].backward(dy.double())
    dx = empty(shape, dtype, layout)
    aclnn.call("MaxPool2dWithIndicesBackward", dy, x, indices, *attributes, dx)
    check(dx, xr.grad)
    # The mask as torch_npu allocates it.
    area = math.prod(many(kernel, 2))
    mask = torch.full((*shape[:-2], area, (math.ceil(expected.shape[-1] * expected.shape[-2] / 16) + 1) * 32), -1, dtype=torch.int8)
    out.zero_()
    aclnn.call("MaxPool2dWithMask", x, *attributes, out, mask)
    assert torch.equal(out.double(), expected)
    dx.zero_()
    aclnn.call("MaxPool2dWithMaskBackward", dy, x, mask, *attributes, dx)
    check(dx, xr.grad)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", MAX3D)
def test_max_pool3d(dtype, layout, case):
    torch.manual_seed(0)
    shape, kernel, stride, padding, dilation, ceil_mode = case
    x = distinct(shape, dtype, layout)
    xr = x.double().clone(memory_format=torch.contiguous_format).requires_grad_()
    expected, places = reference_max(xr, kernel, stride, padding, dilation, ceil_mode, 3)
    attributes = many(kernel, 3), many(stride, 3), many(padding, 3), many(dilation, 3), ceil_mode
    out, indices = torch.empty(expected.shape, dtype=dtype), torch.empty(expected.shape, dtype=torch.int32)
    aclnn.call("MaxPool3dWithArgmax", x, *attributes, out, indices)
    assert torch.equal(out.double(), expected) and torch.equal(indices.long(), places)
    dy = make(expected.shape, dtype)
    expected.backward(dy.double())
    dx = empty(shape, dtype, layout)
    aclnn.call("MaxPool3dWithArgmaxBackward", dy, x, indices, *attributes, dx)
    check(dx, xr.grad)


@pytest.mark.parametrize("width", [6, 100])
def test_max_pool_of_nan_and_infinity(width):
    """A NaN wins, the last one; a window of -inf keeps its first place."""
    x = torch.full((1, 2, 4, width), -math.inf)
    x[0, 0, 0, 0] = x[0, 0, 1, 1] = x[0, 1, 3, 2] = math.nan
    x[0, 1, 0, 1] = math.inf
    expected, places = F.max_pool2d(x, 2, return_indices=True)
    out, indices = torch.empty(expected.shape), torch.empty(expected.shape, dtype=torch.int64)
    aclnn.call("MaxPool2dWithIndices", x, [2, 2], [2, 2], [0, 0], [1, 1], False, out, indices)
    torch.testing.assert_close(out, expected, equal_nan=True, rtol=0, atol=0)
    assert torch.equal(indices, places)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_max_pool_without_indices(dtype, layout):
    x = make((2, 3, 9, 9), dtype, layout)
    expected = F.max_pool2d(F.pad(x, (1, 0, 1, 1), value=-math.inf), 3, 2)
    out = torch.empty_like(expected)
    aclnn.call("MaxPool", x, [3, 3], [2, 2], 0, [1, 1, 1, 0], [1, 1], 0, out)
    assert torch.equal(out, expected)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(2, 3, 7), (2, 3, 8, 70), (2, 5, 4, 5, 6), (1, 1, 1)])
def test_global_max_pool(dtype, layout, shape):
    x = make(shape, dtype, layout)
    x[(-1, -1, *[0] * (len(shape) - 2))] = math.nan
    expected = x.flatten(2).amax(2).view(*shape[:2], *[1] * (len(shape) - 2))
    out = empty(expected.shape, dtype, layout)
    aclnn.call("GlobalMaxPool", x, out)
    torch.testing.assert_close(out, expected, equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", AVG2D + AVG3D)
@pytest.mark.parametrize("include,divisor", [(True, None), (False, None), (True, 5)])
def test_avg_pool(dtype, layout, case, include, divisor):
    torch.manual_seed(0)
    shape, kernel, stride, padding, ceil_mode = case
    dims = 2 if case in AVG2D else 3
    x = make(shape, dtype, layout)
    xr = x.double().clone(memory_format=torch.contiguous_format).requires_grad_()
    f = F.avg_pool2d if dims == 2 else F.avg_pool3d
    expected = f(xr, kernel, stride or None, padding, ceil_mode, include, divisor)
    out = torch.empty(expected.shape, dtype=dtype)
    attributes = many(kernel, dims), many(stride, dims), many(padding, dims), ceil_mode, include, divisor or 0
    cube = (0,) if dims == 2 else ()
    aclnn.call(f"AvgPool{dims}d", x, *attributes, *cube, out)
    check(out, expected)
    dy = make(expected.shape, dtype)
    expected.backward(dy.double())
    dx = empty(shape, dtype, layout)
    aclnn.call(f"AvgPool{dims}dBackward", dy, x, *attributes, *cube, dx)
    check(dx, xr.grad, factor=2)


def test_avg_pool_of_integers():
    x = torch.randint(-100, 100, (2, 3, 9, 9))
    expected = F.avg_pool2d(x, 3, 2, 1)
    out = torch.empty_like(expected)
    aclnn.call("AvgPool2d", x, [3, 3], [2, 2], [1, 1], False, True, 0, 0, out)
    assert torch.equal(out, expected)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape,size", [((2, 3, 8, 8), (1, 1)), ((2, 3, 7, 9), (3, 4)), ((3, 5, 6), (7, 2)), ((2, 2, 4, 5, 6), (2, 3, 4)),
                                        ((2, 4, 5, 6), (1, 1, 1))])
def test_adaptive_pools(dtype, layout, shape, size):
    torch.manual_seed(0)
    dims = len(size)
    x = distinct(shape, dtype, layout)
    for kind in ("Avg", "Max"):
        xr = x.double().clone(memory_format=torch.contiguous_format).requires_grad_()
        f = getattr(F, f"adaptive_{kind.lower()}_pool{dims}d")
        result = f(xr, size) if kind == "Avg" else f(xr, size, return_indices=True)
        expected = result if kind == "Avg" else result[0]
        out, dx, dy = torch.empty(expected.shape, dtype=dtype), empty(shape, dtype, layout), make(expected.shape, dtype)
        expected.backward(dy.double())
        if kind == "Avg":
            aclnn.call(f"AdaptiveAvgPool{dims}d", x, list(size), out)
            check(out, expected)
            aclnn.call(f"AdaptiveAvgPool{dims}dBackward", dy, x, dx)
        else:
            for index_type in (torch.int32, torch.int64):
                indices = torch.empty(expected.shape, dtype=index_type)
                aclnn.call(f"AdaptiveMaxPool{dims}d", x, list(size), out, indices)
                assert torch.equal(out.double(), expected) and torch.equal(indices.long(), result[1])
            aclnn.call(f"AdaptiveMaxPool{dims}dBackward", dy, x, indices, dx)
        check(dx, xr.grad, factor=2)


@pytest.mark.parametrize("dtype", TYPES + [torch.int32])
@pytest.mark.parametrize("dims", [2, 3])
def test_max_unpool(dtype, dims):
    torch.manual_seed(0)
    size = [6] * dims
    x = distinct((2, 3, *size), dtype, "contiguous")
    f, unpool = (F.max_pool2d, F.max_unpool2d) if dims == 2 else (F.max_pool3d, F.max_unpool3d)
    values, places = f(x.double(), 2, return_indices=True)
    values = arrange(values.to(dtype), "offset")
    expected = unpool(values.double(), places, 2)
    out = torch.full(expected.shape, 9, dtype=dtype)
    extra = ([2] * dims, [0] * dims) if dims == 3 else ()
    aclnn.call(f"MaxUnpool{dims}d", values, places, size, *extra, out)
    assert torch.equal(out.double(), expected)
    dx = torch.empty(values.shape, dtype=dtype)
    aclnn.call(f"MaxUnpool{dims}dBackward", x, values, places, size, *extra, dx)
    assert torch.equal(dx, x.flatten(2).gather(2, places.flatten(2)).reshape(dx.shape))


def test_index_outside_is_an_error():
    with pytest.raises(aclnn.Failed, match="outside of"):
        aclnn.call("MaxUnpool2d", torch.ones(1, 1, 2, 2), torch.full((1, 1, 2, 2), 99), [4, 4], torch.empty(1, 1, 4, 4))
    with pytest.raises(aclnn.Failed, match="outside of"):
        aclnn.call("MaxPool2dWithMaskBackward", torch.ones(1, 1, 2, 2), torch.ones(1, 1, 4, 4), torch.full((1, 1, 4, 64), 77, dtype=torch.int8),
                   [2, 2], [2, 2], [0, 0], [1, 1], False, torch.empty(1, 1, 4, 4))


def test_empty_batch():
    out = torch.empty(0, 3, 4, 4)
    aclnn.call("MaxPool2dWithIndices", torch.empty(0, 3, 8, 8), [2, 2], [2, 2], [0, 0], [1, 1], False, out, out.int())
    aclnn.call("AvgPool2d", torch.empty(0, 3, 8, 8), [2, 2], [2, 2], [0, 0], False, True, 0, 0, out)


def test_errors_name_the_argument():
    x, out = torch.ones(1, 1, 8, 8), torch.empty(1, 1, 4, 4)
    with pytest.raises(aclnn.Failed, match="padding is 2 in dimension 0, expected at most half"):
        aclnn.call("AvgPool2d", x, [2, 2], [2, 2], [2, 2], False, True, 0, 0, out)
    with pytest.raises(aclnn.Failed, match=r"out has shape \[1,1,4,4\], expected \[1,1,3,3\]"):
        aclnn.call("AvgPool2d", x, [4, 4], [2, 2], [0, 0], False, True, 0, 0, out)
