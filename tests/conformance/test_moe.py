"""Mixtures of experts: gates, routing and the way back, against plain PyTorch in float64."""

import itertools

import pytest
import torch

import aclnn
import cases
from test_norm import arrange

LAYOUTS = ["contiguous", "transposed", "offset"]
FLOATS = [torch.float32, torch.float16, torch.bfloat16]
HALF = {torch.float32: dict(rtol=2e-6, atol=2e-6), torch.float16: dict(rtol=2e-3, atol=2e-3), torch.bfloat16: dict(rtol=1e-2, atol=1e-2)}
INT = torch.int32


def near(actual, expected, dtype=torch.float32, **tolerance):
    torch.testing.assert_close(actual.double(), expected.double(), **(tolerance or HALF[dtype]))


def best(values, k):
    """The k largest, of equals the first first."""
    return torch.sort(values, dim=-1, descending=True, stable=True).indices[..., :k]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_softmax_gate(dtype, layout):
    x = arrange((torch.randn(3, 5, 16) * 2).to(dtype), layout)
    finished = torch.rand(3, 5) < 0.3
    y, expert, row = torch.empty(3, 5, 4, dtype=dtype), torch.empty(3, 5, 4, dtype=INT), torch.empty(3, 5, 4, dtype=INT)
    p = torch.softmax(x.double(), -1)
    chosen = best(p, 4)
    for done in (None, finished):
        aclnn.call("MoeGatingTopKSoftmax", x, done, 4, y, expert, row)
        near(y, p.gather(-1, chosen), dtype)
        assert torch.equal(expert.long(), chosen if done is None else torch.where(done[..., None], 16, chosen))
        assert torch.equal(row.reshape(15, 4), torch.arange(60, dtype=INT).reshape(4, 15).T)
    scores = torch.empty(3, 5, 16)
    aclnn.call("MoeGatingTopKSoftmaxV2", x, finished, 4, 0, True, y, expert, scores)
    near(y, p.gather(-1, chosen), dtype)
    near(scores, p)
    aclnn.call("MoeGatingTopKSoftmaxV2", x, None, 4, 1, False, y, expert, None)
    near(y, torch.softmax(x.double().gather(-1, chosen), -1), dtype)
    assert torch.equal(expert.long(), chosen)


def gate(x, bias, k, kept, groups, mode, sigmoid, renorm, factor, epsilon, chosen=None):
    scores = torch.sigmoid(x) if sigmoid else torch.softmax(x, -1)
    choice = scores if bias is None else scores + bias
    if groups > 1:
        parts = choice.unflatten(-1, (groups, -1))
        value = parts.amax(-1) if mode == 0 else parts.topk(2).values.sum(-1)
        keep = torch.zeros_like(value, dtype=torch.bool).scatter(-1, best(value, kept), True)
        choice = parts.masked_fill(~keep[..., None], -torch.inf).flatten(-2)
    chosen = best(choice, k) if chosen is None else chosen
    weights = scores.gather(-1, chosen)
    if sigmoid or renorm:
        weights = weights / (weights.sum(-1, keepdim=True) + epsilon)
    return weights * factor, chosen, scores


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("sigmoid,renorm", [(0, 0), (0, 1), (1, 0)])
@pytest.mark.parametrize("kept,groups,mode", [(1, 1, 0), (2, 4, 0), (3, 8, 1), (4, 4, 1)])
@pytest.mark.parametrize("biased", [False, True])
def test_grouped_gate(dtype, sigmoid, renorm, kept, groups, mode, biased):
    x, bias = torch.randn(9, 32).to(dtype), torch.randn(32).to(dtype) if biased else None
    y, expert, out = torch.empty(9, 6, dtype=dtype), torch.empty(9, 6, dtype=INT), torch.empty(9, 32)
    weights, chosen, scores = gate(x.float(), None if bias is None else bias.float(), 6, kept, groups, mode, sigmoid, renorm, 2.5, 1e-20)
    aclnn.call("MoeGatingTopK", x, bias, 6, kept, groups, mode, renorm, sigmoid, True, 2.5, 1e-20, y, expert, out)
    assert torch.equal(expert.long(), chosen)
    near(y, weights, dtype, **({} if dtype != torch.float32 else dict(rtol=1e-5, atol=1e-6)))
    near(out, scores)
    ids, table = torch.randint(0, 20, (9,)), torch.stack([torch.randperm(32)[:6] for _ in range(20)]).to(INT)
    weights = gate(x.float(), None, 6, kept, groups, mode, sigmoid, renorm, 2.5, 1e-20, table[ids].long())[0]
    for op in ("MoeGatingTopKV2", "MoeGatingTopKHash"):
        aclnn.call(op, x, bias, ids, table, 6, kept, groups, mode, renorm, sigmoid, False, 2.5, 1e-20, y, expert, out)
        assert torch.equal(expert, table[ids])
        near(y, weights, dtype, **({} if dtype != torch.float32 else dict(rtol=1e-5, atol=1e-6)))


def test_gate_errors():
    x, y, expert, out = torch.randn(4, 8), torch.empty(4, 2), torch.empty(4, 2, dtype=INT), torch.empty(4, 8)
    for arguments, words in (((2, 1, 3, 0, 0, 0), "divisor of 8"), ((2, 5, 4, 0, 0, 0), "kGroup is 5"), ((2, 1, 1, 0, 0, 3), "normType is 3"),
                             ((9, 1, 1, 0, 0, 0), "k is 9"), ((2, 1, 1, 2, 0, 0), "groupSelectMode is 2")):
        with pytest.raises(RuntimeError, match=words):
            aclnn.call("MoeGatingTopK", x, None, *arguments, False, 1.0, 0.0, y, expert, out)
    with pytest.raises(RuntimeError, match="out of range"):
        aclnn.call("MoeGatingTopKV2", x, None, torch.tensor([0, 1, 2, 9]), torch.zeros(3, 2, dtype=INT), 2, 1, 1, 0, 0, 0, False, 1.0, 0.0, y, expert, out)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("sigmoid,renorm", [(0, 0), (0, 1), (1, 0)])
def test_gate_gradient(dtype, sigmoid, renorm):
    x = torch.randn(7, 12, dtype=torch.float64, requires_grad=True)
    weights, chosen, scores = gate(x, None, 3, 1, 1, 0, sigmoid, renorm, 1.5, 1e-20)
    dy, out = torch.randn(7, 3).to(dtype), torch.empty(7, 12, dtype=dtype)
    weights.backward(dy.double())
    aclnn.call("MoeGatingTopKBackward", scores.detach().float(), dy, chosen.to(INT), renorm, sigmoid, 1.5, 1e-20, out)
    near(out, x.grad, dtype, **({} if dtype != torch.float32 else dict(rtol=1e-5, atol=1e-6)))


def route(expert, first=0, last=None):
    """Pairs that count in the order of their experts; slot of each pair or -1."""
    flat = expert.flatten().long()
    inside = (flat >= first) & (flat < (flat.max() + 1 if last is None else last))
    order = torch.sort(torch.where(inside, flat, 1 << 40), stable=True).indices
    slot = torch.full_like(flat, -1)
    slot[order[:inside.sum()]] = torch.arange(inside.sum())
    return order, int(inside.sum()), slot


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [*FLOATS, torch.int8])
def test_first_routing(dtype, layout):
    x = arrange((torch.randn(6, 10) * 20).to(dtype), layout)
    expert, row = torch.randint(0, 5, (6, 3), dtype=INT), torch.arange(18, dtype=INT).reshape(3, 6).T
    y, index, ids = torch.empty(18, 10, dtype=dtype), torch.empty(18, dtype=INT), torch.empty(18, dtype=INT)
    order, _, _ = route(expert)
    numbers = row.flatten()[order]
    aclnn.call("MoeInitRouting", x, row, expert, 6, y, index, ids)
    assert torch.equal(y, x[order // 3]) and torch.equal(ids, expert.flatten()[order])
    assert torch.equal(index[numbers.long()], torch.arange(18, dtype=INT))
    if dtype != torch.int8:
        small, quantised = torch.empty(6, 10, dtype=dtype), torch.empty(18, 10, dtype=torch.int8)
        aclnn.call("MoeInitRouting", x, row, expert, 2, small, index, ids)
        assert torch.equal(small, x[order // 3][:6])
        aclnn.call("MoeInitRoutingQuant", x, row, expert, 6, 0.5, 3.0, quantised, index, ids)
        near(quantised, (x.float() * 0.5 + 3).round().clamp(-128, 127)[order // 3], atol=1, rtol=0)
    ends = torch.empty(7, dtype=INT)
    aclnn.call("MoeComputeExpertTokens", ids, 7, ends)
    assert torch.equal(ends, (ids[None] <= torch.arange(7)[:, None]).sum(1).to(INT))


@pytest.mark.parametrize("dtype", [*FLOATS, torch.int8])
@pytest.mark.parametrize("first,last", [(0, 8), (2, 5), (0, 3), (5, 8)])
@pytest.mark.parametrize("by_slot", [0, 1])
def test_third_routing(dtype, first, last, by_slot):
    x, expert, scale = (torch.randn(20, 6) * 20).to(dtype), torch.randint(0, 8, (20, 3), dtype=INT), torch.rand(20)
    order, count, slot = route(expert, first, last)
    per_expert = torch.bincount(expert.flatten()[order[:count]] - first, minlength=last - first)
    for kind, expected in ((0, per_expert.cumsum(0)), (1, per_expert), (2, None)):
        y, index = torch.empty(60, 6, dtype=dtype), torch.empty(60, dtype=INT)
        tokens = torch.empty((8, 2) if kind == 2 else (last - first,), dtype=torch.int64)
        scales = torch.empty(60)
        aclnn.call("MoeInitRoutingV3", x, expert, scale, None, -1, 0, 8, 0, kind, True, -1, [first, last], by_slot, y, index, tokens, scales)
        assert torch.equal(y[:count], x[order[:count] // 3]) and torch.equal(scales[:count], scale[order[:count] // 3])
        assert torch.equal(index[:count], order[:count].to(INT)) if by_slot else torch.equal(index.long(), slot)
        if kind == 2:
            pairs = [[e + first, n] for e, n in enumerate(per_expert.tolist()) if n] + [[0, 0]]
            assert tokens[:len(pairs[:8])].tolist() == pairs[:8]
        else:
            assert torch.equal(tokens, expected)
    if dtype == torch.int8:
        return
    for smooth in (None, torch.rand(1, 6) + 0.5, torch.rand(last - first, 6) + 0.5):
        y, scales = torch.empty(60, 6, dtype=torch.int8), torch.empty(60)
        aclnn.call("MoeInitRoutingV3", x, expert, smooth, None, -1, 0, 8, 0, 1, True, 1, [first, last], by_slot, y, index, torch.empty(last - first, dtype=torch.int64), scales)
        rows = x.double()[order[:count] // 3]
        if smooth is not None:
            rows = rows * (smooth if smooth.shape[0] == 1 and last - first > 1 else smooth[(expert.flatten()[order[:count]] - first).long()]).double()
        near(scales[:count], rows.abs().amax(1) / 127)
        near(y[:count], (rows / (rows.abs().amax(1, keepdim=True) / 127)).round(), atol=1, rtol=0)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("flag", [0, 1, 2])
def test_second_routing(dtype, flag):
    x, expert = torch.randn(15, 7).to(dtype), torch.randint(0, 6, (15, 2), dtype=INT)
    order, count, slot = route(expert)
    per_expert = torch.bincount(expert.flatten(), minlength=6).to(INT)
    y, index, tokens, before = torch.empty(30, 7, dtype=dtype), torch.empty(30, dtype=INT), torch.empty(6, dtype=INT), torch.empty(6, dtype=INT)
    aclnn.call("MoeInitRoutingV2", x, expert, 0, 0, 6, 0, flag, False, y, index, tokens if flag else None, None)
    assert torch.equal(y, x[order // 2]) and torch.equal(index.long(), slot)
    if flag:
        assert torch.equal(tokens, per_expert.cumsum(0).to(INT) if flag == 1 else per_expert)
    else:
        aclnn.call("MoeInitRoutingV2", x, expert, 0, 0, 0, 0, 0, False, y, index, None, None)
        assert torch.equal(y, x[order // 2]) and torch.equal(index.long(), slot)
    # Every expert has room for four.
    padded = torch.empty(6, 4, 7, dtype=dtype)
    aclnn.call("MoeInitRoutingV2", x, expert, 0, 4, 6, 1, 0, True, padded, index, None, before)
    assert torch.equal(before, per_expert)
    for e in range(6):
        mine = (expert.flatten() == e).nonzero().flatten()
        rows = x[mine[:4] // 2]
        assert torch.equal(padded[e, :len(rows)], rows) and not padded[e, len(rows):].any()
        assert index[mine].tolist() == [e * 4 + i if i < 4 else -1 for i in range(len(mine))]
    dy = torch.randn(6, 4, 7).to(dtype)
    out = torch.empty(15, 7, dtype=dtype)
    aclnn.call("MoeInitRoutingV2Grad", dy, index, 2, 1, 0, out)
    taken = torch.where((index < 0)[:, None], 0.0, dy.double().flatten(0, 1)[index.long().clamp(min=0)])
    near(out, taken.reshape(15, 2, 7).sum(1), dtype)
    # With quantisation.
    q, scales = torch.empty(30, 7, dtype=torch.int8), torch.empty(30)
    aclnn.call("MoeInitRoutingQuantV2", x, expert, None, None, 0, 0, 6, 0, flag, False, 1, q, index, tokens if flag else None, None, scales)
    rows = x.double()[order // 2]
    near(scales, rows.abs().amax(1) / 127)
    near(q, (rows / (rows.abs().amax(1, keepdim=True) / 127)).round(), atol=1, rtol=0)
    aclnn.call("MoeInitRoutingQuantV2", x, expert, torch.tensor([30.0]), torch.tensor([2.0]), 0, 0, 6, 0, flag, False, 0, q, index, tokens if flag else None, None, None)
    near(q, (rows * 30 + 2).round().clamp(-128, 127), atol=1, rtol=0)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_permute(dtype, layout):
    tokens, indices = arrange(torch.randn(9, 8).to(dtype), layout), torch.randint(0, 4, (9, 3), dtype=INT)
    order, _, slot = route(indices)
    out, index = torch.empty(27, 8, dtype=dtype), torch.empty(27, dtype=INT)
    aclnn.call("MoeTokenPermute", tokens, indices, 27, False, out, index)
    assert torch.equal(out, tokens[order // 3]) and torch.equal(index.long(), slot)
    grad = torch.empty(9, 8, dtype=dtype)
    aclnn.call("MoeTokenPermuteGrad", out, index, 3, False, grad)
    near(grad, out.double()[slot].reshape(9, 3, 8).sum(1), dtype)
    probs = torch.rand(9, 3).to(dtype)
    for p in (None, probs):
        rows = out.double().requires_grad_()
        weights = (torch.ones(9, 3) if p is None else p).double().requires_grad_()
        expected = (rows[slot].reshape(9, 3, 8) * weights[..., None]).sum(1)
        result, dy = torch.empty(9, 8, dtype=dtype), torch.randn(9, 8).to(dtype)
        aclnn.call("MoeTokenUnpermute", out, index, p, False, None, result)
        near(result, expected, dtype)
        expected.backward(dy.double())
        drows, dprobs = torch.empty(27, 8, dtype=dtype), torch.empty(9, 3, dtype=dtype)
        aclnn.call("MoeTokenUnpermuteGrad", out, dy, index, p, False, None, drows, dprobs)
        near(drows, rows.grad, dtype)
        if p is not None:
            near(dprobs, weights.grad, dtype, **({} if dtype != torch.float32 else dict(rtol=1e-5, atol=1e-5)))


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
@pytest.mark.parametrize("dtype", FLOATS)
def test_finalize(dtype, mode):
    tokens, k, width, experts = 10, 3, 6, 5
    rows = torch.randn(tokens * k, width).to(dtype)
    x1, x2, bias, scales = (torch.randn(*s).to(dtype) for s in ((tokens, width), (tokens, width), (experts, width), (tokens, k)))
    index, expert = torch.randperm(tokens * k).to(INT), torch.randint(0, experts, (tokens, k), dtype=INT)
    index[4] = -1 if mode % 2 else index[4]
    pairs = (index.reshape(k, tokens).T if mode < 2 else index.reshape(tokens, k)).long()
    source = rows.reshape(5, 6, width) if mode % 2 else rows
    for skips in itertools.product((True, False), repeat=4):
        a, b, c, s = (t if use else None for t, use in zip((x1, x2, bias, scales), skips))
        taken = torch.where((pairs < 0)[..., None], 0.0, rows.double()[pairs.clamp(min=0)])
        if c is not None:
            taken = taken + c.double()[expert.long()]
        if s is not None:
            taken = taken * s.double()[..., None]
        expected = taken.sum(1) + (0 if a is None else a.double()) + (0 if b is None else b.double())
        out = torch.empty(tokens, width, dtype=dtype)
        aclnn.call("MoeFinalizeRoutingV4", source, index, a, b, c, s, expert, None, None, None, None, mode, None, None, None, k, out)
        near(out, expected, dtype, **({} if dtype != torch.float32 else dict(rtol=1e-5, atol=1e-5)))
        if s is not None:
            aclnn.call("MoeFinalizeRoutingV2", source, index, a, b, c, s, expert, mode, out)
            near(out, expected, dtype, **({} if dtype != torch.float32 else dict(rtol=1e-5, atol=1e-5)))
            if mode == 0 and a is not None:
                aclnn.call("MoeFinalizeRouting", rows, a, b, c, s, index, expert, out)
                near(out, expected, dtype, **({} if dtype != torch.float32 else dict(rtol=1e-5, atol=1e-5)))


@pytest.mark.parametrize("dtype", FLOATS)
def test_finalize_gradient(dtype):
    rows, scales, bias = (torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in ((12, 5), (6, 2), (4, 5)))
    index, expert, dy = torch.randperm(12).to(INT), torch.randint(0, 4, (6, 2), dtype=INT), torch.randn(6, 5).to(dtype)
    ((rows[index.long()].reshape(6, 2, 5) + bias[expert.long()]) * scales[..., None]).sum(1).backward(dy.double())
    drows, dscales = torch.empty(12, 5, dtype=dtype), torch.empty(6, 2, dtype=dtype)
    aclnn.call("MoeFinalizeRoutingV2Grad", dy, index, rows.detach().to(dtype), scales.detach().to(dtype), expert, bias.detach().to(dtype), 0, 0, 0, 0, drows, dscales)
    near(drows, rows.grad, dtype, rtol=1e-5 if dtype == torch.float32 else 2e-2, atol=1e-5 if dtype == torch.float32 else 2e-2)
    near(dscales, scales.grad, dtype, rtol=1e-5 if dtype == torch.float32 else 3e-2, atol=1e-5 if dtype == torch.float32 else 5e-2)


def test_routing_errors():
    x, expert, y, index = torch.randn(4, 3), torch.zeros(4, 2, dtype=INT), torch.empty(8, 3), torch.empty(8, dtype=INT)
    counts, scales = torch.empty(5, dtype=torch.int64), torch.empty(8)
    call = lambda x=x, expert=expert, kind=1, quant=-1, span=(0, 5), pad=0: aclnn.call(  # noqa: E731
        "MoeInitRoutingV3", x, expert, None, None, -1, 0, 5, pad, kind, True, quant, list(span), 0, y, index, counts, scales)
    for words, arguments in (("expertTokensNumType is 3", dict(kind=3)), ("quantMode is", dict(quant=7)), ("activeExpertRange is", dict(span=(3, 9))),
                             ("expertCapacity is 0", dict(pad=1)), ("expected 4 rows", dict(expert=expert[:3])), ("expected int8", dict(quant=1))):
        with pytest.raises(RuntimeError, match=words):
            call(**arguments)
    with pytest.raises(RuntimeError, match="rowIdx has 9"):
        aclnn.call("MoeInitRouting", x, torch.full((4, 2), 9, dtype=INT), expert, 4, y, index, torch.empty(8, dtype=INT))
    with pytest.raises(RuntimeError, match="a row of bias"):
        aclnn.call("MoeFinalizeRoutingV2", y, index.zero_(), None, None, torch.zeros(2, 3), torch.ones(4, 2), torch.full((4, 2), 7, dtype=INT), 2, torch.empty(4, 3))
