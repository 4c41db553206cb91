"""Index, gather, scatter, embedding and mask operators against torch."""

import pytest
import torch
import torch.nn.functional as F

import aclnn
import cases
from test_shape import LAYOUTS, check

LARGE = 40000  # elements that make kernels split their work


def integers(shape, high, dtype=torch.int64, seed=0, layout="contiguous", low=0):
    g = torch.Generator().manual_seed(seed)
    return cases.lay(torch.randint(low, high, shape, generator=g).to(dtype), layout)


@pytest.mark.parametrize("index_dtype", [torch.int64, torch.int32])
@pytest.mark.parametrize("layout", [x for x in LAYOUTS if x != "empty"])
@pytest.mark.parametrize("dtype", cases.ALL)
def test_selection(dtype, layout, index_dtype):
    x = cases.tensor((6, 7, 5), dtype, layout)
    for dim in (0, 1, 2, -1):
        i = integers((9,), x.shape[dim], index_dtype, layout="strided")
        check("IndexSelect", x, dim, i, expected=x.index_select(dim, i), layout=layout)
    table, i = cases.tensor((11, 5), dtype, layout), integers((2, 3), 11, index_dtype, layout=layout)
    check("Embedding", table, i, expected=table[i.long()], layout=layout)
    check("Embedding", table, i[0, 0], expected=table[i[0, 0].long()])
    flat = integers((3, 4), x.numel(), index_dtype) - 100
    check("Take", x, flat, expected=x.take(flat.long()), layout=layout)
    i = integers((2, 4), 7, index_dtype)
    check("GatherV2", x, 1, i, expected=x[:, i.long()], layout=layout)
    i = integers((6, 4), 7, index_dtype)
    check("GatherV3", x, 1, i, 1, 0, expected=torch.stack([x[b][i[b].long()] for b in range(6)]), layout=layout)


def test_selection_errors_name_the_index():
    x = torch.rand(5, 3)
    with pytest.raises(aclnn.Failed, match="index 7 at position 3 is out of range for dimension 0 of size 5"):
        aclnn.call("IndexSelect", x, 0, torch.tensor([1, 2, 3, 7]), torch.rand(4, 3))
    with pytest.raises(aclnn.Failed, match="index -1 at position 0 is out of range"):
        aclnn.call("Embedding", x, torch.tensor([-1]), torch.rand(1, 3))
    with pytest.raises(aclnn.Failed, match="index -6 at position 1 is out of range for dimension 0 of size 5"):
        aclnn.call("Index", x, [torch.tensor([0, -6])], torch.rand(2, 3))
    with pytest.raises(aclnn.Failed, match="out of range for dimension 1 of size 3"):
        aclnn.call("Gather", x, 1, torch.tensor([[3]]), torch.rand(1, 1))
    with pytest.raises(aclnn.Failed, match="index has type float32"):
        aclnn.call("IndexSelect", x, 0, torch.rand(4), torch.rand(4, 3))


@pytest.mark.parametrize("layout", [x for x in LAYOUTS if x != "empty"])
@pytest.mark.parametrize("dtype", cases.ALL)
def test_index(dtype, layout):
    x = cases.tensor((5, 6, 4, 3), dtype, layout)
    a, b = integers((7,), 10, seed=1) - 5, integers((7,), 8, torch.int32, seed=2) - 4
    c = integers((2, 1), 3, seed=3)
    none = torch.empty(0, dtype=dtype)
    check("Index", x, [a], expected=x[a], layout=layout)
    check("Index", x, [none, a % 6], expected=x[:, a % 6], layout=layout)
    check("Index", x, [None, None, b], expected=x[:, :, b.long()], layout=layout)
    check("Index", x, [none, a % 6, b], expected=x[:, a % 6, b.long()], layout=layout)
    check("Index", x, [a, none, b], expected=x[a, :, b.long()], layout=layout)
    check("Index", x, [a, none, none, c], expected=x[a, :, :, c], layout=layout)
    check("Index", x, [none, none, none, c], expected=x[:, :, :, c], layout=layout)
    check("Index", x, [a, a % 6, b, c], expected=x[a, a % 6, b.long(), c], layout=layout)
    mask = cases.values((5, 6), torch.bool)
    check("Index", x, [mask], expected=x[mask], layout=layout)
    check("Index", x, [none, mask[0], b[:1]], expected=x[:, mask[0], b[:1].long()], layout=layout)


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("dtype", cases.ALL)
def test_index_put(dtype, accumulate):
    a, b = integers((7,), 10, seed=1) - 5, integers((7,), 8, seed=2) - 4
    if not accumulate:
        a, b = torch.tensor([0, -1, 3, 2]), torch.tensor([1, 0, -1, 2])
    none = torch.empty(0, dtype=dtype)
    mask = cases.values((5, 6), torch.bool)
    for layout in ("contiguous", "transposed", "strided"):
        for given, used in (([a], (a,)), ([none, a], (slice(None), a)), ([a, none, b], (a, slice(None), b)),
                            ([none, none, b], (slice(None), slice(None), b)), ([mask], (mask,))):
            x = cases.tensor((5, 6, 4), dtype, layout)
            shape = x[used].shape
            for values in (cases.tensor(shape, dtype, seed=1), cases.tensor((), dtype), cases.tensor(shape[-1:], dtype)):
                if dtype == torch.bool and accumulate:
                    expected = put(x.int(), used, values.int(), True).bool()
                else:
                    expected = put(cases.wide(x), used, cases.wide(values), accumulate)
                y = cases.lay(x.clone(), layout)
                aclnn.call("IndexPutImpl", y, given, values, accumulate, False)
                cases.compare(y, expected)


def put(x, used, values, accumulate):
    return torch.ops.aten.index_put(x, [None if isinstance(u, slice) else u for u in used], values, accumulate)


def test_put_without_index_changes_nothing():
    x = torch.rand(4, 3)
    y = x.clone()
    aclnn.call("IndexPutImpl", y, [torch.empty(0, dtype=torch.int64)], torch.tensor(1.0), False, False)
    assert torch.equal(x, y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int64])
def test_large_accumulation_with_duplicates(dtype):
    """Exact in integers; float16 sums that would stop at 2048 if they were not kept in float32."""
    i = integers((LARGE,), 7)
    ones = torch.ones(LARGE, dtype=dtype)
    counts = torch.bincount(i, minlength=7)
    x = torch.zeros(7, dtype=dtype)
    aclnn.call("IndexPutImpl", x, [i], ones, True, False)
    assert torch.equal(x, counts.to(dtype))
    check("IndexAdd", torch.zeros(7, dtype=dtype), 0, i, ones, 1, expected=counts.to(dtype))
    check("ScatterAdd", torch.zeros(7, dtype=dtype), 0, i, ones, expected=counts.to(dtype))
    if dtype.is_floating_point:
        rows = ones.view(-1, 1).expand(-1, 3)
        check("EmbeddingDenseBackward", rows, i, 7, -1, False, expected=counts.to(dtype).view(-1, 1).expand(-1, 3))
    wide = torch.rand(LARGE, 40).to(dtype) if dtype == torch.float32 else torch.ones(LARGE, 40, dtype=dtype)
    out = torch.empty(7, 40, dtype=dtype)
    aclnn.call("IndexAdd", torch.zeros(7, 40, dtype=dtype), 0, i, wide, 1, out)
    # 5,700 float32 additions one after another.
    cases.compare(out, torch.zeros(7, 40, dtype=torch.float64).index_add(0, i, wide.double()), rtol=1e-5)


@pytest.mark.parametrize("layout", [x for x in LAYOUTS if x != "empty"])
@pytest.mark.parametrize("dtype", cases.ALL)
def test_index_add_copy_fill(dtype, layout):
    x = cases.tensor((6, 7, 5), dtype, layout)
    for dim in (0, 1, -1):
        n = x.shape[dim]
        i = integers((4,), n, seed=3)
        shape = list(x.shape)
        shape[dim] = 4
        source = cases.tensor(shape, dtype, layout, seed=4)
        if dtype == torch.bool:
            expected = x.int().index_add(dim, i, source.int()).bool()
            check("IndexAdd", x, dim, i, source, True, expected=expected, layout=layout)
        else:
            expected = cases.wide(x).index_add(dim, i, cases.wide(source), alpha=2)
            check("IndexAdd", x, dim, i, source, 2, expected=expected, layout=layout, dtype=dtype)
            check("IndexAddV2", x, dim, i, source, 2, 0, expected=expected, layout=layout, dtype=dtype)
        i = torch.randperm(n, generator=torch.Generator().manual_seed(1))[:4]
        expected = x.index_copy(dim, i, source)
        check("IndexCopy", x, dim, i, source, expected=expected, layout=layout)
        y = x.clone()
        aclnn.call("InplaceIndexCopy", y, dim, i.int(), source)
        assert torch.equal(y, expected)
        check("IndexFill", x, dim, i - n, 1, expected=x.index_fill(dim, i, 1), layout=layout)
        check("IndexFillTensor", x, dim, i.tolist(), 1, expected=x.index_fill(dim, i, 1), layout=layout)


@pytest.mark.parametrize("dtype", cases.ALL)
def test_put(dtype):
    i = torch.tensor([[3, -1, 0], [7, 5, 11]])
    for layout in ("contiguous", "strided"):
        x, source = cases.tensor((4, 5), dtype, layout), cases.tensor((2, 3), dtype)
        y = cases.lay(x.clone(), layout)
        aclnn.call("InplacePut", y, i, source, False)
        assert torch.equal(y, x.put(i, source))
        if dtype != torch.bool:
            y = cases.lay(x.clone(), layout)
            aclnn.call("InplacePut", y, i // 2, source, True)
            cases.compare(y, cases.wide(x).put(i // 2, cases.wide(source), True))


@pytest.mark.parametrize("dim", [0, 1, 2, -1])
@pytest.mark.parametrize("dtype", cases.ALL)
def test_gather(dtype, dim):
    for layout in ("contiguous", "transposed", "strided", "expanded"):
        x = cases.tensor((6, 7, 5), dtype, layout)
        i = integers((4, 3, 5), x.shape[dim] if dim in (0, -1, 2) else 7, layout=layout)
        check("Gather", x, dim, i, expected=x.gather(dim, i), layout=layout)
        check("Gather", x, dim, cases.lay(i.int(), layout), expected=x.gather(dim, i), layout=layout)
    x = cases.tensor((6, 7, 5), dtype)
    shape = [1, 1, 1]
    shape[dim] = 9
    i = integers(shape, x.shape[dim]).expand([9 if d == dim % 3 else n for d, n in enumerate((4, 3, 5))])
    check("Gather", x, dim, i, expected=x.gather(dim, i))


def scatter_expected(x, dim, i, src, reduce, include_self=True):
    x, src = cases.wide(x), cases.wide(src)
    if reduce == "set":
        return x.scatter(dim, i, src)
    if x.dtype == torch.bool:
        return x.int().scatter_reduce(dim, i, src.int(), {"sum": "amax", "prod": "amin"}.get(reduce, reduce),
                                      include_self=include_self).bool()
    return x.scatter_reduce(dim, i, src, reduce, include_self=include_self)


@pytest.mark.parametrize("dim", [0, 1, 2])
@pytest.mark.parametrize("dtype", cases.ALL)
def test_scatter(dtype, dim):
    for layout in ("contiguous", "transposed", "strided"):
        x, src = cases.tensor((6, 7, 5), dtype, layout), cases.tensor((6, 7, 5), dtype, layout, seed=1)
        i = torch.stack([torch.randperm(n, generator=torch.Generator().manual_seed(5)) for n in (x.shape[dim],)])[0]
        i = i.view([-1 if d == dim else 1 for d in range(3)]).expand(x.shape)[:4, :3].clone()
        check("Scatter", x, dim, i, src, 0, expected=x.scatter(dim, i, src), layout=layout)
        check("Scatter", x, dim, i[..., :1].expand(i.shape), src, 0,
              expected=x.scatter(dim, i[..., :1].expand(i.shape), src)) if dim != 2 else None
        check("ScatterValue", x, dim, i, 1, 0, expected=x.scatter(dim, i, 1), layout=layout)
        i = integers((4, 3, 5), x.shape[dim], torch.int32, layout=layout)
        long = i.long()
        check("Scatter", x, dim, i, src, 1, expected=scatter_expected(x, dim, long, src, "sum"), dtype=dtype, layout=layout)
        check("ScatterAdd", x, dim, i, src, expected=scatter_expected(x, dim, long, src, "sum"), dtype=dtype, layout=layout)
        if not dtype.is_complex:
            check("Scatter", x, dim, i, src, 2, expected=scatter_expected(x, dim, long, src, "prod"), dtype=dtype, layout=layout)
            y = cases.lay(x.clone(), layout)
            aclnn.call("InplaceScatter", y, dim, i, src, 1)
            cases.compare(y, scatter_expected(x, dim, long, src, "sum"))


REDUCE = ["", "sum", "prod", "amax", "amin"]


@pytest.mark.parametrize("include_self", [False, True])
@pytest.mark.parametrize("reduce", range(1, 5))
@pytest.mark.parametrize("dtype", cases.REAL)
def test_scatter_reduce(dtype, reduce, include_self):
    for dim in range(3):
        x, src = cases.tensor((6, 7, 5), dtype), cases.tensor((6, 7, 5), dtype, seed=1)
        if dtype.is_floating_point and reduce > 2:
            src[0, 0, 0] = float("nan")
        i = integers((6, 5, 5), x.shape[dim])
        check("ScatterReduce", x, dim, i, src, reduce, include_self,
              expected=scatter_expected(x, dim, i, src, REDUCE[reduce], include_self), dtype=dtype)


@pytest.mark.parametrize("dim", [0, 1])
def test_large_scatter_and_gather(dim):
    x, src = torch.zeros(300, 400, dtype=torch.int64), cases.tensor((300, 400), torch.int64, low=-100, high=100)
    i = integers((300, 400), (300, 400)[dim])
    check("ScatterAdd", x, dim, i, src, expected=x.scatter_add(dim, i, src))
    check("Gather", src, dim, i, expected=src.gather(dim, i))
    row = i[:, :1].expand(300, 400) if dim == 0 else i[:1].expand(300, 400)
    check("ScatterAdd", x, dim, row, src, expected=x.scatter_add(dim, row, src))
    check("Gather", src, dim, row, expected=src.gather(dim, row))


@pytest.mark.parametrize("dtype", cases.FLOATS)
def test_embedding_gradient(dtype):
    for by_frequency in (False, True):
        for padding in (-1, 3):
            i = integers((4, 6), 11)
            grad = cases.tensor((4, 6, 5), dtype, "strided")
            expected = torch.ops.aten.embedding_dense_backward(cases.wide(grad), i, 11, padding, by_frequency)
            check("EmbeddingDenseBackward", grad, i, 11, padding, by_frequency, expected=expected, dtype=dtype)


@pytest.mark.parametrize("dtype", cases.FLOATS)
def test_embedding_renorm(dtype):
    for p in (1.0, 2.0, 3.0, float("inf")):
        x, i = cases.tensor((7, 9), dtype), torch.tensor([1, 1, 3, 6])
        expected = torch.embedding_renorm_(x.double(), i, 2.0, p)
        aclnn.call("EmbeddingRenorm", x, i, 2.0, p)
        cases.compare(x, expected)


@pytest.mark.parametrize("mode", [0, 1, 2])
@pytest.mark.parametrize("dtype", cases.FLOATS)
def test_embedding_bag(mode, dtype):
    table, i = cases.tensor((9, 4), dtype), integers((10,), 9)
    offsets = torch.tensor([0, 3, 3, 7])
    weights = cases.tensor((10,), dtype, seed=3) if mode == 0 else None
    for padding in (-1, 4):
        out, bag, size = torch.empty(4, 4, dtype=dtype), torch.empty(10, dtype=torch.int64), torch.empty(4, dtype=torch.int64)
        chosen = torch.empty((4, 4) if mode == 2 else (4,), dtype=torch.int64)
        aclnn.call("EmbeddingBag", table, i, offsets, False, mode, False, weights, False, padding, out, bag, size, chosen)
        expected = F.embedding_bag(i, cases.wide(table), offsets, mode=("sum", "mean", "max")[mode],
                                   per_sample_weights=None if weights is None else cases.wide(weights),
                                   padding_idx=None if padding < 0 else padding)
        cases.compare(out, expected)
        assert torch.equal(bag, torch.tensor([0, 0, 0, 2, 2, 2, 2, 3, 3, 3]))


@pytest.mark.parametrize("layout", LAYOUTS + ["scalar"])
@pytest.mark.parametrize("dtype", cases.ALL)
def test_nonzero_and_masks(dtype, layout):
    x = cases.tensor((6, 7, 5), dtype, layout)
    if layout not in ("expanded", "empty", "scalar"):
        x[x != x.flatten()[:1]] *= 0 if dtype != torch.bool else True
    out = torch.full((x.numel(), x.dim()), 7)
    shape = aclnn.call("Nonzero", x, out, return_shape_of=1)
    expected = x.nonzero()
    assert shape == tuple(expected.shape)
    assert torch.equal(out.flatten()[:expected.numel()].view(expected.shape), expected)
    out = torch.full((x.dim(), x.numel()), 7)
    shape = aclnn.call("NonzeroV2", x, out, return_shape_of=1)
    assert shape == tuple(expected.t().shape)
    assert torch.equal(out.flatten()[:expected.numel()].view(expected.t().shape), expected.t())
    for p in (0.02, 0.5, 0.98):
        mask = cases.lay(torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < p, layout)
        expected = x.masked_select(mask)
        out = torch.empty(x.numel(), dtype=dtype)
        assert aclnn.call("MaskedSelect", x, mask, out, return_shape_of=2) == tuple(expected.shape)
        assert torch.equal(out[:expected.numel()], expected)
        if layout != "expanded":
            source, y = cases.tensor(x.shape, dtype, "contiguous", seed=5), cases.lay(x.clone(), layout)
            aclnn.call("InplaceMaskedScatter", y, mask, source)
            assert torch.equal(y, x.masked_scatter(mask, source))


def test_masked_select_of_many():
    x, mask = torch.rand(50, 1000), torch.rand(1000) < 0.3
    out = torch.empty(50000)
    expected = x.masked_select(mask)
    assert aclnn.call("MaskedSelect", x, mask, out, return_shape_of=2) == tuple(expected.shape)
    assert torch.equal(out[:expected.numel()], expected)
    with pytest.raises(aclnn.Failed, match="source has 3 elements, but mask selects"):
        aclnn.call("InplaceMaskedScatter", x.clone(), mask, torch.rand(3))


@pytest.mark.parametrize("mask_type", [torch.uint8, torch.int8, torch.bool, torch.float32, torch.float16])
@pytest.mark.parametrize("dtype", cases.FLOATS)
def test_masked_scale(dtype, mask_type):
    for layout in LAYOUTS:
        x, mask = cases.tensor((6, 7, 5), dtype, layout), cases.tensor((6, 7, 5), torch.bool, layout).to(mask_type)
        check("MaskedScale", x, mask, 1.25, expected=cases.wide(x) * mask.double() * 1.25, layout=layout, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.float32, torch.float16, torch.uint8])
@pytest.mark.parametrize("index_type", [torch.int64, torch.int32])
def test_one_hot(index_type, dtype):
    x = torch.tensor([[0, 2], [4, 9]])
    for layout in ("contiguous", "transposed", "strided"):
        for axis in (0, 1, -1):
            expected = torch.where(F.one_hot(x, 10).movedim(-1, axis) == 1, 3, 2).to(dtype)
            check("OneHot", cases.lay(x.to(index_type), layout), 10, torch.tensor([3], dtype=dtype), torch.tensor([2], dtype=dtype), axis,
                  expected=expected, layout=layout)
    check("OneHot", x, 5, torch.tensor([1]), torch.tensor([0]), -1, expected=F.one_hot(x, 10)[..., :5])


@pytest.mark.parametrize("dtype", [*cases.REAL, *cases.COMPLEX])
def test_coalesce(dtype):
    indices = torch.tensor([[0, 3, 0, 2, 3], [1, 2, 1, 0, 2]])
    values = cases.tensor((5, 3), dtype)
    flat, inverse = torch.unique(indices[0] * 4 + indices[1], return_inverse=True)
    expected = torch.sparse_coo_tensor(indices, cases.wide(values), (4, 4, 3)).coalesce()
    for columns in (False, True):
        new_indices, new_values = torch.full((2, 3) if columns else (3, 2), 9), torch.full((3, 3), 9.0).to(dtype)
        aclnn.call("CoalesceSparse", flat, inverse, indices if columns else indices.t(), values, new_indices, new_values)
        assert torch.equal(new_indices if columns else new_indices.t(), expected.indices())
        cases.compare(new_values, expected.values())


@pytest.mark.parametrize("index_dtype", [torch.int64, torch.int32])
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "strided", "offset"])
@pytest.mark.parametrize("dtype", cases.ALL)
def test_rows_of_coordinates(dtype, layout, index_dtype):
    x = cases.tensor((5, 6, 4), dtype, layout)
    for k in (1, 2, 3):
        rows = torch.stack([torch.randperm(30)[:7] % n for n in (5, 6, 4)[:k]], -1)
        rows = torch.unique(rows, dim=0)
        i = tuple(rows.unbind(-1))
        given = cases.lay(rows.to(index_dtype), layout)
        check("GatherNd", x, given, False, expected=x[i], layout=layout)
        check("GatherNd", x, given - 1, True, expected=x[tuple(c - 1 for c in i)], layout=layout)
        values = cases.tensor(x[i].shape, dtype, layout, seed=k)
        expected = x.clone()
        expected[i] = values
        check("ScatterNd", x, given, values, expected=expected, layout=layout)
        y = cases.lay(x.clone(), layout)
        aclnn.call("ScatterNdUpdate", y, given, values)
        assert torch.equal(y, expected)


@pytest.mark.parametrize("index_dtype", [torch.int64, torch.int32])
@pytest.mark.parametrize("dtype", cases.ALL)
def test_cache_updates(dtype, index_dtype):
    """A cache [batch, heads, length, size], updated at one position per batch."""
    at = torch.tensor([3, 0, 5])
    for layout in ("contiguous", "transposed", "strided"):
        x, update = cases.tensor((3, 2, 8, 4), dtype, layout), cases.tensor((3, 2, 2, 4), dtype, layout, seed=1)
        expected = x.clone()
        for b in range(3):
            expected[b, :, at[b]:at[b] + 2] = update[b]
        y = cases.lay(x.clone(), layout)
        aclnn.call("InplaceScatterUpdate", y, at.to(index_dtype), update, -2)
        assert torch.equal(y, expected)
        caches = [cases.lay(t.clone(), layout) for t in x]
        aclnn.call("ScatterList", caches, at.to(index_dtype), update, torch.tensor([True, False, True]), "update", -2)
        for b in range(3):
            assert torch.equal(caches[b], expected[b] if b != 1 else x[b])


def test_rows_and_cache_updates_name_the_index():
    x = torch.rand(5, 6)
    with pytest.raises(aclnn.Failed, match="index 6 at position .* is out of range for dimension 1 of size 6"):
        aclnn.call("GatherNd", x, torch.tensor([[0, 0], [1, 6]]), False, torch.rand(2))
    with pytest.raises(aclnn.Failed, match="rows of 3 coordinates, expected 1 to 2"):
        aclnn.call("ScatterNd", x, torch.tensor([[0, 0, 0]]), torch.rand(1), torch.rand(5, 6))
    with pytest.raises(aclnn.Failed, match="index 7 at position 1 is out of range for dimension 1 of size 8"):
        aclnn.call("InplaceScatterUpdate", torch.rand(2, 3, 8, 4), torch.tensor([0, 7]), torch.rand(2, 3, 2, 4), -2)
