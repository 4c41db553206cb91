"""Interpolation and grid sampling with their gradients, against torch in float64."""

import pytest
import torch
import torch.nn.functional as F

import aclnn
import cases
from test_shape import check

A = torch.ops.aten
SIZES = {1: ((7,), (10,), (4,), (14,), (1,), (7,)), 2: ((7, 6), (10, 13), (4, 9), (14, 12), (1, 5), (7, 6)),
         3: ((4, 5, 6), (7, 5, 9), (2, 10, 3), (8, 10, 12))}


def shapes(dims):
    source, *results = SIZES[dims]
    return [((2, 3, *source), result) for result in results]


def scale_choices(source, result):
    """No scales, and the ones that a caller who asks for a factor passes."""
    return [[None] * len(result), [r / s + 0.01 for s, r in zip(source, result)]]


def given(scales):
    return [0.0 if s is None else s for s in scales]


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("dtype", [*cases.FLOATS, torch.uint8])
def test_nearest(dims, exact, dtype):
    name = f"UpsampleNearest{'Exact' if exact else ''}{dims}d"
    forward = getattr(A, f"_upsample_nearest_exact{dims}d" if exact else f"upsample_nearest{dims}d")
    backward = getattr(A, f"_upsample_nearest_exact{dims}d_backward" if exact else f"upsample_nearest{dims}d_backward")
    for shape, result in shapes(dims):
        for scales in scale_choices(shape[2:], result):
            x = cases.tensor(shape, dtype, "strided")
            # The nearest neighbour is chosen in float32, whatever the type of the values: so is its place.
            places = torch.arange(x.numel(), dtype=torch.float32).view(shape)
            expected = x.flatten()[forward(places, result, *scales).long()]
            if exact or dims == 3:
                check(name, x, result, *given(scales), expected=expected)
            elif scales[0] is None:
                check(name, x, result, expected=expected)
            if not exact and dims < 3:
                check(name + "V2", x, result, *given(scales), expected=expected, layout="transposed")
            if dtype == torch.uint8:
                continue
            grad = cases.tensor((*shape[:2], *result), dtype)
            expected = backward(cases.wide(grad), result, shape, *scales)
            check(name + "Backward", grad, result, shape, *given(scales), expected=expected, dtype=dtype)


FILTERS = {"Linear1d": (1, "upsample_linear1d", "Backward"), "Bilinear2d": (2, "upsample_bilinear2d", "Backward"),
           "Trilinear3d": (3, "upsample_trilinear3d", "Backward"), "Bicubic2d": (2, "upsample_bicubic2d", "Backward"),
           "Bilinear2dAA": (2, "_upsample_bilinear2d_aa", "Backward"), "Bicubic2dAA": (2, "_upsample_bicubic2d_aa", "Grad")}


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("dtype", cases.FLOATS)
def test_filters(name, align, dtype):
    dims, reference, suffix = FILTERS[name]
    forward, backward = getattr(A, reference), getattr(A, reference + "_backward")
    for shape, result in shapes(dims):
        for scales in scale_choices(shape[2:], result):
            for layout in ("contiguous", "strided"):
                x = cases.tensor(shape, dtype, layout)
                check(f"Upsample{name}", x, result, align, *given(scales), dtype=dtype, layout=layout,
                      expected=forward(cases.wide(x), result, align, *scales))
                grad = cases.tensor((*shape[:2], *result), dtype, layout)
                check(f"Upsample{name}{suffix}", grad, result, shape, align, *given(scales), dtype=dtype, layout=layout,
                      expected=backward(cases.wide(grad), result, shape, align, *scales))
                if name == "Bilinear2d":
                    check("UpsampleBilinear2dBackwardV2", grad, result, shape, align, *given(scales), dtype=dtype,
                          expected=backward(cases.wide(grad), result, shape, align, *scales))


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("name", ["Bilinear2d", "Bicubic2d", "Bilinear2dAA", "Bicubic2dAA"])
def test_byte_images(name, align):
    """Rounded to the nearest: at most half a step from the exact value."""
    forward = getattr(A, FILTERS[name][1])
    for shape, result in shapes(2):
        x = cases.values(shape, torch.uint8, 0, 255, seed=3)
        out = torch.empty((*shape[:2], *result), dtype=torch.uint8)
        aclnn.call(f"Upsample{name}", x, result, align, 0.0, 0.0, out)
        exact = forward(x.double(), result, align, None, None).clamp(0, 255)
        assert (out.double() - exact).abs().max() <= 0.5 + 1e-4


def test_sizes_are_checked():
    with pytest.raises(aclnn.Failed, match=r"out has shape \[1,1,4,4\], expected \[1,1,4,5\]"):
        aclnn.call("UpsampleBilinear2d", torch.rand(1, 1, 2, 2), [4, 5], False, 0.0, 0.0, torch.rand(1, 1, 4, 4))
    with pytest.raises(aclnn.Failed, match=r"outputSize\[0\] is 0"):
        aclnn.call("UpsampleNearest2d", torch.rand(1, 1, 2, 2), [0, 5], torch.rand(1, 1, 0, 5))


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("dtype", cases.FLOATS)
def test_affine_grid(dims, align, dtype):
    theta = cases.tensor((2, dims, dims + 1), dtype)
    size = (2, 3, 4, 5, 6)[:dims + 2]
    check("AffineGrid", theta, size, align, expected=F.affine_grid(cases.wide(theta), size, align), dtype=dtype)


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("padding", range(3))
@pytest.mark.parametrize("mode", range(3))
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("dtype", cases.FLOATS)
def test_grid_sampler(dims, mode, padding, align, dtype):
    if dims == 3 and mode == 2:
        return
    x = cases.tensor((2, 3, 5, 6, 4)[:dims + 2], dtype)
    grid = cases.tensor((2, *(3, 4, 7)[:dims], dims), dtype, low=-1.7, high=1.7)
    wide_x, wide_grid = cases.wide(x).requires_grad_(), cases.wide(grid).requires_grad_()
    expected = getattr(torch, f"grid_sampler_{dims}d")(wide_x, wide_grid, mode, padding, align)
    check(f"GridSampler{dims}D", x, grid, mode, padding, align, expected=expected.detach(), dtype=dtype)
    grad = cases.tensor(expected.shape, dtype, seed=2)
    expected.backward(cases.wide(grad))
    gx, gg = torch.full_like(x, 7), torch.full_like(grid, 7)
    aclnn.call(f"GridSampler{dims}DBackward", grad, x, grid, mode, padding, align, [True, True], gx, gg)
    loose = {} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 4e-3, "atol": 4e-3} if dtype == torch.float16 else {"atol": 3e-2}
    cases.compare(gx, wide_x.grad, **loose)
    cases.compare(gg, wide_grid.grad, **loose)
