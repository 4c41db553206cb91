"""Running sums, products and extrema along every dimension, against torch."""

import pytest
import torch

import aclnn
import cases


def inputs(dtype, low=-3.0, high=3.0):
    for layout in cases.LAYOUTS:
        yield cases.tensor((3, 5, 7), dtype, layout, low, high), layout
    yield cases.tensor((20, 300), dtype, "contiguous", low, high), "contiguous"
    yield cases.tensor((300, 20), dtype, "contiguous", low, high), "transposed"


def output(x, dtype, layout):
    return cases.lay(torch.full(x.shape, 77.0, dtype=torch.float64).to(dtype), cases.OUTPUT_LAYOUTS.get(layout, layout))


def dims(x):
    return range(-1, max(1, x.dim()))


@pytest.mark.parametrize("dtype", cases.ALL)
def test_cumsum(dtype):
    to = dtype if dtype.is_floating_point or dtype.is_complex else torch.int64
    for x, layout in inputs(dtype):
        for dim in dims(x):
            out = output(x, to, layout)
            aclnn.call("Cumsum", x, dim, to, out)
            cases.compare(out, cases.wide(x).cumsum(dim))


@pytest.mark.parametrize("dtype", [*cases.REAL, *cases.COMPLEX])
@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_cumsum_v2(dtype, exclusive, reverse):
    for x, layout in inputs(dtype):
        for dim in dims(x):
            out = output(x, dtype, layout)
            aclnn.call("CumsumV2", x, dim, exclusive, reverse, out)
            w = cases.wide(x)
            w = w.flip(dim) if reverse else w
            e = w.cumsum(dim) - w if exclusive else w.cumsum(dim)
            cases.compare(out, e.flip(dim) if reverse else e)


@pytest.mark.parametrize("dtype", cases.ALL)
def test_cumprod(dtype):
    to = dtype if dtype.is_floating_point or dtype.is_complex else torch.int64
    for x, layout in inputs(dtype, 0.9, 1.1):
        if dtype.is_complex and x.numel() > 1000:
            continue
        for dim in dims(x):
            out = output(x, to, layout)
            aclnn.call("Cumprod", x, dim, to, out)
            cases.compare(out, cases.wide(x).cumprod(dim))
            if layout != "expanded" and to == dtype:
                y = x.clone()
                aclnn.call("InplaceCumprod", y, dim)
                cases.compare(y, cases.wide(x).cumprod(dim))


@pytest.mark.parametrize("dtype", [*cases.REAL, torch.bool])
@pytest.mark.parametrize("op,reference", [("Cummax", torch.cummax), ("Cummin", torch.cummin)])
def test_running_extrema(op, reference, dtype):
    for x, layout in inputs(dtype):
        if dtype.is_floating_point and layout in ("contiguous", "offset"):
            x.view(-1)[3] = float("nan")
        for dim in dims(x):
            values, indices = output(x, dtype, layout), output(x, torch.int64, layout)
            aclnn.call(op, x, dim, values, indices)
            e = reference(x, dim)
            cases.compare(values, e.values)
            assert torch.equal(indices, e.indices)
