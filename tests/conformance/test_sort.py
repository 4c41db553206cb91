"""Sorting, selection, searching, counting and distinct values, against torch."""

import pytest
import torch

import aclnn
import cases

TYPES = [*cases.REAL, torch.bool]


def inputs(dtype):
    for layout in cases.LAYOUTS:
        yield cases.tensor((3, 5, 7), dtype, layout, -40, 40, 1), layout
    for shape in [(2, 3000), (900, 3), (7, 513)]:
        yield cases.tensor(shape, dtype, "contiguous", -100, 100, 2), "contiguous"
    if dtype.is_floating_point:
        x = cases.tensor((6, 700), dtype, "contiguous", -2, 2, 3)
        x[0, ::7], x[1, 3::9], x[2, 5::11], x[3, ::2], x[4] = float("nan"), float("inf"), -float("inf"), -0.0, float("nan")
        x[3, 1::2] = 0.0
        yield x, "contiguous"


def output(shape, dtype, layout):
    return cases.lay(torch.full(shape, 77.0, dtype=torch.float64).to(dtype), cases.OUTPUT_LAYOUTS.get(layout, layout))


def dims(x):
    return range(-1, max(1, x.dim()))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("descending", [False, True])
def test_sort(dtype, descending):
    for x, layout in inputs(dtype):
        for dim in dims(x):
            values, indices = output(x.shape, dtype, layout), output(x.shape, torch.int64, layout)
            aclnn.call("Sort", x, True, dim, descending, values, indices)
            e = torch.sort(x, dim=dim, descending=descending, stable=True)
            cases.compare(values, e.values)
            assert torch.equal(indices, e.indices)
            alone = output(x.shape, torch.int64, layout)
            aclnn.call("Argsort", x, dim, descending, alone)
            assert torch.equal(alone, e.indices)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("largest", [False, True])
def test_topk(dtype, largest):
    for x, layout in inputs(dtype):
        for dim in dims(x):
            n = x.shape[dim] if x.dim() else 1
            for k in {0, min(1, n), min(3, n), n // 2, n}:
                e = torch.sort(x, dim=dim, descending=largest, stable=True)
                e_values, e_indices = (t if x.dim() == 0 and k else t.narrow(dim, 0, k) if x.dim() else None for t in e)
                if e_values is None:
                    continue
                values, indices = output(e_values.shape, dtype, layout), output(e_values.shape, torch.int64, layout)
                aclnn.call("TopkV2", x, k, dim, largest, True, 0, values, indices)
                cases.compare(values, e_values)
                assert torch.equal(indices, e_indices)


@pytest.mark.parametrize("dtype", cases.REAL)
def test_selection(dtype):
    for x, layout in inputs(dtype):
        if x.numel() == 0:
            continue
        c = x.contiguous()  # torch 2.14's own median of an expanded tensor is wrong
        for dim in dims(x):
            n = x.shape[dim] if x.dim() else 1
            for keepdim in (False, True):
                runs = [("Kthvalue", (k, dim, keepdim), torch.kthvalue(c, k, dim, keepdim)) for k in {1, (n + 1) // 2, n}]
                runs += [("MedianDim", (dim, keepdim), torch.median(c, dim, keepdim)), ("NanMedianDim", (dim, keepdim), torch.nanmedian(c, dim, keepdim))]
                for op, arguments, e in runs:
                    values, indices = output(e.values.shape, dtype, "contiguous"), output(e.values.shape, torch.int64, "strided")
                    aclnn.call(op, x, *arguments, values, indices)
                    cases.compare(values, e.values)
                    i = indices if keepdim or x.dim() == 0 else indices.unsqueeze(dim)
                    got = (x if x.dim() == 0 else x.gather(dim, i)).reshape(values.shape)
                    cases.compare(got, values)
        for op, e in [("Median", torch.median(c)), ("NanMedian", torch.nanmedian(c))]:
            out = cases.empty((), dtype)
            aclnn.call(op, x, out)
            cases.compare(out, e)


def small(dtype, shape, seed):
    return cases.values(shape, dtype, -4, 4, seed) if not dtype.is_floating_point else cases.values(shape, dtype, -4, 4, seed).round()


@pytest.mark.parametrize("dtype", TYPES)
def test_unique(dtype):
    for shape in [(30,), (3, 50), (0,), (), (2000,)]:
        x = small(dtype, shape, 5)
        if dtype.is_floating_point and shape == (30,):
            x[3], x[7] = float("nan"), float("nan")
        for layout in ("contiguous", "strided", "transposed"):
            y = cases.lay(x, layout)
            values, inverse, counts = torch.empty(x.numel(), dtype=dtype), torch.full(shape, -1), torch.full((x.numel(),), -1)
            (m,) = aclnn.call("Unique2", y, True, True, True, values, inverse, counts, return_shape_of=4)
            e = torch.unique(x, return_inverse=True, return_counts=True)
            cases.compare(values[:m], e[0])
            assert torch.equal(inverse, e[1]) and torch.equal(counts[:m], e[2])
            (m,) = aclnn.call("Unique", y, True, False, values, torch.empty(0, dtype=torch.int64), return_shape_of=3)
            cases.compare(values[:m], e[0])
            values, inverse, counts = torch.empty(x.numel(), dtype=dtype), torch.full(shape, -1), torch.full((x.numel(),), -1)
            (m,) = aclnn.call("UniqueConsecutive", y, True, True, 1000, values, inverse, counts, return_shape_of=4)
            e = torch.unique_consecutive(x, return_inverse=True, return_counts=True)
            cases.compare(values[:m], e[0])
            assert torch.equal(inverse, e[1]) and torch.equal(counts[:m], e[2])


@pytest.mark.parametrize("dtype", TYPES)
def test_unique_dim(dtype):
    for shape in [(30, 2), (3, 50), (4, 3, 5)]:
        x = cases.values(shape, dtype, -1, 1, 5).to(torch.int64).to(dtype)
        for dim in range(-1, x.dim()):
            n = x.shape[dim]
            values, inverse, counts = torch.empty(shape, dtype=dtype), torch.full((n,), -1), torch.full((n,), -1)
            got = aclnn.call("UniqueDim", x, True, True, dim, values, inverse, counts, return_shape_of=4)
            e = torch.unique(x, dim=dim, return_inverse=True, return_counts=True)
            assert got == e[0].shape
            cases.compare(values.view(-1)[:e[0].numel()].view(e[0].shape), e[0])
            assert torch.equal(inverse, e[1]) and torch.equal(counts[:got[dim]], e[2])
            got = aclnn.call("UniqueConsecutive", x, True, True, dim, values, inverse, counts, return_shape_of=4)
            e = torch.unique_consecutive(x, dim=dim, return_inverse=True, return_counts=True)
            assert got == e[0].shape
            cases.compare(values.view(-1)[:e[0].numel()].view(e[0].shape), e[0])
            assert torch.equal(inverse, e[1]) and torch.equal(counts[:got[dim]], e[2])


@pytest.mark.parametrize("dtype", cases.REAL)
@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize("int32", [False, True])
def test_search_sorted(dtype, right, int32):
    to = torch.int32 if int32 else torch.int64
    side = "right" if right else "left"
    for shape, layout in [((3, 5, 7), l) for l in ("contiguous", "transposed", "strided")]:
        values = cases.tensor(shape, dtype, layout, -9, 9, 1)
        if dtype.is_floating_point:
            values[0, 0, 0] = float("nan")
        sequence = cases.tensor((3, 5, 11), dtype, layout, -9, 9, 2)
        ordered, sorter = sequence.sort(-1)
        for s, order in ((ordered, None), (sequence, sorter)):
            out = output(shape, to, layout)
            aclnn.call("SearchSorted", s, values, int32, right, order, out)
            assert torch.equal(out, torch.searchsorted(s, values, right=right, out_int32=int32, sorter=order))
        line = ordered[0, 0].contiguous()
        out = output(shape, to, layout)
        aclnn.call("SearchSorted", line, values, int32, right, None, out)
        assert torch.equal(out, torch.searchsorted(line, values, side=side, out_int32=int32))
        out = output(shape, to, layout)
        aclnn.call("Bucketize", values, line, int32, right, out)
        assert torch.equal(out, torch.bucketize(values, line, right=right, out_int32=int32))
        one = output((), to, "contiguous")
        aclnn.call("SearchSorteds", line, 2.0, int32, right, None, one)
        assert one == torch.searchsorted(line, 2.0, right=right)


@pytest.mark.parametrize("dtype", cases.REAL)
def test_is_in(dtype):
    for layout in cases.LAYOUTS:
        x = cases.tensor((3, 5, 7), dtype, layout, -3, 3, 1)
        for value in (2, 77):
            for invert in (False, True):
                out = output(x.shape, torch.bool, layout)
                aclnn.call("IsInTensorScalar", x, value, False, invert, out)
                assert torch.equal(out, torch.isin(x, value, invert=invert))
                one = output((), torch.bool, "contiguous")
                aclnn.call("IsInScalarTensor", value, x, False, invert, one)
                assert torch.equal(one, torch.isin(value, x, invert=invert).reshape(()))


@pytest.mark.parametrize("dtype", cases.INTS)
def test_bincount(dtype):
    for n in (0, 7, 5000):
        x = cases.values((n,), dtype, 0, 9, 4)
        for weights in (None, torch.rand(n), torch.rand(n, dtype=torch.float64)):
            e = torch.bincount(x, weights, minlength=12)
            out = torch.full(e.shape, 77).to(e.dtype)
            aclnn.call("Bincount", x, weights, 12, out)
            cases.compare(out, e.double() if e.is_floating_point() else e)
    with pytest.raises(aclnn.Failed, match="self holds 9"):
        aclnn.call("Bincount", torch.tensor([9]), None, 0, torch.zeros(5, dtype=torch.int64))


@pytest.mark.parametrize("dtype", cases.FLOATS)
def test_histc(dtype):
    for layout in ("contiguous", "strided", "transposed"):
        x = cases.tensor((3, 5, 70), dtype, layout, -3, 3, 1)
        for bins, low, high in [(10, 0, 0), (7, -1, 2), (1, 0, 1)]:
            out = torch.full((bins,), 77, dtype=dtype)
            aclnn.call("Histc", x, bins, low, high, out)
            # Of the narrow types, as everything, in float32; PyTorch finds the bins in the type itself.
            e = torch.histc(x if dtype == torch.float64 else x.float(), bins, low, high)
            assert torch.equal(out, e.to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("with_k", [True, False])
@pytest.mark.parametrize("with_p", [True, False])
def test_top_k_top_p(dtype, with_k, with_p):
    x = torch.stack([torch.randperm(50) for _ in range(9)]).div(8).to(dtype)
    k, p = torch.randint(1, 51, (9,), dtype=torch.int32), torch.rand(9).to(dtype)
    p[0] = 1.0
    k[1] = 1
    expected = torch.full((9, 50), -torch.inf, dtype=torch.float64)
    for r in range(9):
        order = x[r].double().sort(stable=True).indices
        values = x[r].double()[order]
        if with_k:
            values = values.masked_fill(values < values[50 - k[r]], -torch.inf)
        if with_p:
            passed = torch.softmax(values, -1).cumsum(-1) <= 1 - p[r].double()
            passed[-1] = False
            values = values.masked_fill(passed, -torch.inf)
        expected[r, order] = values
    out = torch.empty_like(x)
    aclnn.call("ApplyTopKTopP", x, p if with_p else None, k if with_k else None, out)
    assert torch.equal(out.double(), expected)
