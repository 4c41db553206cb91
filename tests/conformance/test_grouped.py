"""Products by groups against plain PyTorch in float64 (integers exactly, before their scales)."""

import pytest
import torch
import torch.nn.functional as F

import aclnn
from test_norm import arrange

FLOATS = [torch.float32, torch.float16, torch.bfloat16]
TOLERANCE = {torch.float32: dict(rtol=1e-5, atol=1e-5), torch.float16: dict(rtol=4e-3, atol=4e-3), torch.bfloat16: dict(rtol=3e-2, atol=3e-2)}
COUNTS = [3, 0, 7, 1, 9]
GROUPS, ROWS, K, N = len(COUNTS), sum(COUNTS), 24, 16
ENDS = torch.tensor(COUNTS).cumsum(0)
ACTIVATIONS = [lambda v: v, F.relu, lambda v: F.gelu(v, approximate="tanh"), F.gelu, lambda v: v * torch.sigmoid(1.702 * v), F.silu]


def near(actual, expected, dtype=torch.float32, **tolerance):
    torch.testing.assert_close(actual.double(), expected.double(), **(tolerance or TOLERANCE[dtype]))


def listed(kind):
    if kind == 2:
        return torch.tensor([[g, n] for g, n in enumerate(COUNTS) if n])
    return ENDS if kind == 0 else torch.tensor(COUNTS)


def products(x, w, bias=None):
    """Rows of x by their group's weight, in float64."""
    parts = [a.double() @ b.double() for a, b in zip(x.split(COUNTS), w)]
    return torch.cat([p if bias is None else p + bias[g].double() for g, p in enumerate(parts)])


def v4(x, weight, y, kind=0, op="GroupedMatmulV4", group_list=True, split=3, type=0, act=0, **given):
    lists = [given.get(n) for n in ("bias", "scale", "offset", "antiquant_scale", "antiquant_offset", "row_scale")]
    lists = [list(v) if v is not None else None for v in lists]
    numbers = group_list if torch.is_tensor(group_list) else listed(kind) if group_list else None
    tail = {"GroupedMatmulV4": [], "GroupedMatmulV5": [None], "GroupedMatmulWeightNz": [None, 0]}[op]
    aclnn.call(op, x, weight, *lists, numbers, None, None, None, split, type, kind, act, *tail, y, None, None)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("op", ["GroupedMatmulV4", "GroupedMatmulV5", "GroupedMatmulWeightNz"])
@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "offset"])
def test_rows(op, dtype, stacked, layout):
    x, w, bias = arrange(torch.randn(ROWS, K).to(dtype), layout), arrange((torch.randn(GROUPS, K, N) / 5).to(dtype), layout), torch.randn(GROUPS, N).to(dtype)
    weights, biases = ([w], [bias]) if stacked else (list(w), list(bias))
    for kind in (0, 1, 2):
        y = torch.empty(ROWS, N, dtype=dtype)
        v4([x], weights, [y], kind, op)
        near(y, products(x, w), dtype)
        v4([x], weights, [y], kind, op, bias=biases)
        near(y, products(x, w, bias), dtype)
    for act, f in enumerate(ACTIVATIONS):
        v4([x], weights, [y], 1, op, bias=biases, act=act)
        near(y, f(products(x, w, bias)), dtype)
    # An output of each group; fewer rows than x has.
    ys = [torch.empty(n, N, dtype=dtype) for n in COUNTS]
    v4([x], weights, ys, 0, op, split=1)
    near(torch.cat(ys), products(x, w), dtype)
    v4([x], weights, [y], 0, op, group_list=ENDS[:3])
    near(y[:10], products(x, w)[:10], dtype)
    assert not y[10:].any()


@pytest.mark.parametrize("dtype", FLOATS)
def test_lists(dtype):
    """Each x its own weight, of its own shape."""
    shapes = [(3, 4, 5), (7, 6, 2), (1, 3, 9)]
    xs, ws, bs = [torch.randn(m, k).to(dtype) for m, k, _ in shapes], [torch.randn(k, n).to(dtype) for _, k, n in shapes], [torch.randn(n).to(dtype) for *_, n in shapes]
    same = [w[:, :2].contiguous() for w in ws]
    rows = [x.double() @ w.double() for x, w in zip(xs, same)]
    ys = [torch.empty(m, 2, dtype=dtype) for m, *_ in shapes]
    for op in ("GroupedMatmul", "GroupedMatmulV2", "GroupedMatmulV3"):
        extra = [] if op == "GroupedMatmul" else [-1]
        aclnn.call(op, xs, same, None, None, None, None, None, None, 0, *extra, ys)
        for y, r in zip(ys, rows):
            near(y, r, dtype)
    y = torch.empty(11, 2, dtype=dtype)
    v4(xs, same, [y], group_list=False, split=2)
    near(y, torch.cat(rows), dtype)
    # More than two dimensions.
    x, y = torch.randn(2, 3, 4).to(dtype), torch.empty(2, 3, 2, dtype=dtype)
    v4([x, xs[1]], same[:2], [y, ys[1]], group_list=False, split=0, type=-1)
    near(y, x.double() @ same[0].double(), dtype)
    # Versions with lists on the host and in a tensor.
    x, w, y = torch.randn(ROWS, K).to(dtype), (torch.randn(GROUPS, K, N) / 5).to(dtype), torch.empty(ROWS, N, dtype=dtype)
    for op, numbers in (("GroupedMatmulV2", ENDS.tolist()), ("GroupedMatmulV3", ENDS)):
        aclnn.call(op, [x], list(w), None, None, None, None, None, numbers, 3, 0, [y])
        near(y, products(x, w), dtype)
    ys = [torch.empty(n, N, dtype=dtype) for n in COUNTS]
    aclnn.call("GroupedMatmul", [x], list(w), None, None, None, None, None, ENDS.tolist(), 1, ys)
    near(torch.cat(ys), products(x, w), dtype)
    aclnn.call("MoeGroupedMatmulWeightNz", [x], [w], ENDS, False, [y])
    near(y, products(x, w), dtype)
    aclnn.call("MoeGroupedMatmulWeightNz", [x], [w.mT.contiguous()], ENDS, True, [y])
    near(y, products(x, w), dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("layout", ["contiguous", "transposed"])
def test_depth(dtype, layout):
    x, w = arrange(torch.randn(9, ROWS).to(dtype), layout), torch.randn(ROWS, N).to(dtype)
    expected = torch.stack([a.double() @ b.double() for a, b in zip(x.split(COUNTS, 1), w.split(COUNTS))])
    y = torch.empty(GROUPS, 9, N, dtype=dtype)
    for kind in (0, 1):
        v4([x], [w], [y], kind, type=2)
        near(y, expected, dtype)
    ys = [torch.empty(9, N, dtype=dtype) for _ in COUNTS]
    v4([x], [w], ys, 0, type=2, split=1)
    near(torch.stack(ys), expected, dtype)


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("out", [torch.bfloat16, torch.float16, torch.int32])
def test_int8(out, stacked):
    x, w = torch.randint(-128, 128, (ROWS, K), dtype=torch.int8), torch.randint(-128, 128, (GROUPS, K, N), dtype=torch.int8)
    exact = products(x, w)
    bias, scale, row = torch.randint(-999, 999, (GROUPS, N), dtype=torch.int32), torch.rand(GROUPS, N) / 5000, torch.rand(ROWS) + 0.5
    split = lambda t: [t] if stacked else list(t)  # noqa: E731
    y = torch.empty(ROWS, N, dtype=out)
    if out == torch.int32:
        v4([x], split(w), [y], 1)
        assert torch.equal(y.double(), exact)
        return
    each = torch.repeat_interleave(torch.arange(GROUPS), torch.tensor(COUNTS))
    for with_bias in (False, True):
        sums = exact + bias[each] if with_bias else exact
        v4([x], split(w), [y], 1, scale=split(scale), bias=split(bias) if with_bias else None)
        near(y, sums * scale[each], out)
        v4([x], split(w), [y], 1, scale=split(scale), bias=split(bias) if with_bias else None, row_scale=[row])
        near(y, sums * scale[each] * row[:, None], out)
    v4([x], split(w), [y], 1, scale=split(scale.to(torch.bfloat16)), row_scale=[row], act=5)
    near(y, F.silu(exact * scale.to(torch.bfloat16)[each] * row[:, None]), out)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("parts", [None, 3])
@pytest.mark.parametrize("bits", [8, 4])
def test_quantised_weights(bits, parts, dtype):
    low = 1 << (bits - 1)
    w, x = torch.randint(-low, low, (GROUPS, K, N)), torch.randn(ROWS, K).to(dtype)
    shape = (GROUPS, N) if parts is None else (GROUPS, parts, N)
    scale, offset = (torch.rand(shape) / 20).to(dtype), torch.randn(shape).to(dtype)
    spread = (lambda t: t[:, None]) if parts is None else (lambda t: t.repeat_interleave(K // parts, 1))
    if bits == 8:
        weight = w.to(torch.int8)
    else:
        nibbles = (w & 15).reshape(GROUPS, K, N // 8, 8)
        packed = (nibbles << (4 * torch.arange(8))).sum(-1)
        weight = torch.where(packed >= 1 << 31, packed - (1 << 32), packed).to(torch.int32)
    y = torch.empty(ROWS, N, dtype=dtype)
    v4([x], [weight], [y], antiquant_scale=[scale], antiquant_offset=[offset])
    near(y, products(x, (w + spread(offset).double()) * spread(scale).double()), dtype)
    v4([x], list(weight), [y], antiquant_scale=list(scale))
    near(y, products(x, w * spread(scale).double()), dtype)


EACH = torch.repeat_interleave(torch.arange(GROUPS), torch.tensor(COUNTS))


def quantised_rows():
    x, w = torch.randint(-128, 128, (ROWS, K), dtype=torch.int8), torch.randint(-128, 128, (GROUPS, K, N), dtype=torch.int8)
    scale, row = torch.rand(GROUPS, N) / 5000, torch.rand(ROWS) + 0.5
    return x, w, scale, row, products(x, w) * scale[EACH].double() * row[:, None].double()


def test_swiglu_quant():
    x, w, scale, row, sums = quantised_rows()
    gate, up = sums.chunk(2, -1)
    exact = F.silu(gate) * up
    y, s = torch.empty(ROWS, N // 2, dtype=torch.int8), torch.empty(ROWS)
    calls = [lambda op=op: aclnn.call(op, x, w, None, None, scale, row, ENDS, y, s, torch.empty(0)) for op in ("GroupedMatmulSwigluQuant", "GroupedMatmulSwigluQuantWeightNZ")]
    for op in ("GroupedMatmulSwigluQuantV2", "GroupedMatmulSwigluQuantWeightNzV2"):
        for kind in (0, 1):
            calls.append(lambda op=op, kind=kind: aclnn.call(op, x, [w], [scale], None, None, row, None, listed(kind), 0, 0, 0, kind, None, y, s))
        calls.append(lambda op=op: aclnn.call(op, x, list(w), list(scale), None, None, row, None, ENDS, 0, 0, 0, 0, None, y, s))
    for call in calls:
        y.fill_(5)
        call()
        near(s, exact.abs().amax(1) / 127)
        assert (y - (exact / s[:, None]).round()).abs().max() <= 1
    aclnn.call("GroupedMatmulSwigluQuant", x, w, None, None, scale, row, ENDS[:2], y, s, torch.empty(0))
    assert not y[3:].any() and not s[3:].any()
    with pytest.raises(RuntimeError, match="smoothScale is given"):
        aclnn.call("GroupedMatmulSwigluQuantV2", x, [w], [scale], None, None, row, torch.ones(1), ENDS, 0, 0, 0, 0, None, y, s)


@pytest.mark.parametrize("out_dtype", [torch.float32, torch.bfloat16])
def test_finalize_routing(out_dtype):
    x, w, scale, row, sums = quantised_rows()
    tokens, logit, index = 7, torch.rand(ROWS), torch.randint(0, 7, (ROWS,))
    shared = torch.randn(3, N).to(torch.bfloat16)
    exact = torch.zeros(tokens, N, dtype=torch.float64).index_add(0, index, sums * logit[:, None].double())
    with_shared = exact.clone()
    with_shared[2:5] += 0.5 * shared.double()
    out = torch.empty(tokens, N, dtype=out_dtype)
    for turn in (False, True):
        weight = w.mT.contiguous() if turn else w
        tail = lambda s: (s, logit, index, 0, 0.5, 2, False, turn)  # noqa: E731
        for s, expected in ((None, exact), (shared, with_shared)):
            for kind in (0, 1):
                aclnn.call("GroupedMatmulFinalizeRoutingV2", x, weight, scale, None, None, None, None, row, listed(kind), *tail(s), kind, out)
                near(out, expected, out_dtype)
                aclnn.call("GroupedMatmulFinalizeRoutingV3", x, weight, scale, None, None, None, None, row, listed(kind), *tail(s), kind, None, out)
                near(out, expected, out_dtype)
                aclnn.call("GroupedMatmulFinalizeRoutingWeightNz", x, weight, scale, None, row, listed(kind), *tail(s), kind, out)
                near(out, expected, out_dtype)
                aclnn.call("GroupedMatmulFinalizeRoutingWeightNzV2", x, weight, scale, None, None, None, None, row, listed(kind), *tail(s), kind, None, out)
                near(out, expected, out_dtype)
    with pytest.raises(RuntimeError, match="rowIndex has 9"):
        aclnn.call("GroupedMatmulFinalizeRoutingV2", x, w, scale, None, None, None, None, row, ENDS, None, logit, torch.full((ROWS,), 9), 0, 1.0, 0, False, False, 0, out)


@pytest.mark.parametrize("dtype", FLOATS)
def test_add(dtype):
    x, w, y = torch.randn(ROWS, 9).to(dtype), torch.randn(ROWS, N).to(dtype), torch.randn(GROUPS * 9, N)
    products_of = torch.stack([a.double().T @ b.double() for a, b in zip(x.split(COUNTS), w.split(COUNTS))]).reshape(y.shape)
    for op, extra, numbers in (("GroupedMatmulAdd", [], ENDS), ("GroupedMatmulAddV2", [1], listed(1))):
        mine = y.clone()
        aclnn.call(op, x, w, numbers, mine, True, False, 2, *extra)
        near(mine, y.double() + products_of)
        mine = y.clone()
        aclnn.call(op, x.T.contiguous(), w.T.contiguous(), numbers, mine, False, True, 2, *extra)
        near(mine, y.double() + products_of)
    with pytest.raises(RuntimeError, match="groupType is 0"):
        aclnn.call("GroupedMatmulAdd", x, w, ENDS, y, True, False, 0)


def test_errors():
    x, w, y = torch.randn(ROWS, K), torch.randn(GROUPS, K, N), torch.empty(ROWS, N)
    for words, call in (
            ("gives group", lambda: v4([x], [w], [y], group_list=torch.tensor([3, 2, 9, 10, 20]))),
            ("gives group 4", lambda: v4([x], [w], [y], group_list=torch.tensor([3, 3, 10, 11, 50]))),
            ("groupListType is 3", lambda: v4([x], [w], [y], kind=3, group_list=ENDS)),
            ("groupType is 1", lambda: v4([x], [w], [y], type=1)),
            ("actType is 9", lambda: v4([x], [w], [y], act=9)),
            ("rows of 24 numbers, weight 0", lambda: v4([x], [w[:, :5]], [y])),
            ("expected rows of 16", lambda: v4([x], [w], [torch.empty(ROWS, 3)])),
            ("groupList is absent", lambda: v4([x], [w], [y], group_list=False)),
            ("without antiquantScale", lambda: v4([x], [w.to(torch.int8)], [y])),
            ("bias has shape", lambda: v4([x], [w], [y], bias=[torch.randn(GROUPS, 3)])),
            ("offsetOptional is given", lambda: v4([x], [w], [y], offset=[torch.randn(GROUPS, N)])),
            ("y has 3 rows", lambda: v4([x], [w], [y[:3]]))):
        with pytest.raises(RuntimeError, match=words):
            call()
