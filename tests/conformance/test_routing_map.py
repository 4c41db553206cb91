"""Routing by a map of tokens and experts, and re-routing, against plain PyTorch."""

import pytest
import torch

import aclnn
from test_cache import FLOATS, near
from test_norm import arrange

TOKENS, EXPERTS, WIDTH = 11, 5, 24


def routing(kind, even=True):
    map_ = torch.zeros(TOKENS, EXPERTS, dtype=torch.bool)
    for t in range(TOKENS):
        map_[t, torch.randperm(EXPERTS)[: 2 if even else torch.randint(0, EXPERTS + 1, ()).item()]] = True
    return map_.to(kind)


def permuted(map_, padded, slots):
    """Token and expert of each slot, and what sortedIndices holds."""
    if padded:
        capacity = slots // EXPERTS
        token = map_.to(torch.int8).T.contiguous().sort(dim=-1, descending=True, stable=True)[1][:, :capacity].flatten()
        return token, torch.arange(EXPERTS).repeat_interleave(capacity), token
    expert, token = map_.bool().T.nonzero(as_tuple=True)
    return token, expert, token.sort(stable=True)[1]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("kind", [torch.bool, torch.int8])
@pytest.mark.parametrize("with_probs", [False, True])
@pytest.mark.parametrize("padded,even", [(True, True), (False, True), (False, False)])
@pytest.mark.parametrize("layout", ["contiguous", "transposed"])
def test_permute_and_back(layout, padded, even, with_probs, kind, dtype):
    torch.manual_seed(1)
    map_ = routing(kind, even)
    slots = EXPERTS * 4 if padded else int(map_.sum())
    x, probs = arrange(torch.randn(TOKENS, WIDTH).to(dtype), layout), torch.rand(TOKENS, EXPERTS).to(dtype) if with_probs else None
    y, index = torch.empty(slots, WIDTH, dtype=dtype), torch.empty(slots, dtype=torch.int32)
    y_probs = torch.empty(slots, dtype=dtype) if with_probs else None
    aclnn.call("MoeTokenPermuteWithRoutingMap", x, map_, probs, slots, padded, y, y_probs, index)
    token, expert, order = permuted(map_, padded, slots)
    assert torch.equal(y, x[token]) and torch.equal(index, order.to(torch.int32))
    if with_probs:
        assert torch.equal(y_probs, probs[token, expert])
    # its gradient
    grad, grad_probs = arrange(torch.randn(slots, WIDTH).to(dtype), layout), torch.randn(slots).to(dtype) if with_probs else None
    back, back_probs = torch.empty(TOKENS, WIDTH, dtype=dtype), torch.empty(TOKENS, EXPERTS, dtype=dtype) if with_probs else None
    aclnn.call("MoeTokenPermuteWithRoutingMapGrad", grad, grad_probs, index, map_, EXPERTS, TOKENS, padded, back, back_probs)
    near(back, torch.zeros(TOKENS, WIDTH, dtype=torch.float64).index_add(0, token, grad.double()), dtype)
    if with_probs:
        expected = torch.zeros(TOKENS, EXPERTS, dtype=torch.float64)
        expected[token, expert] = grad_probs.double()
        near(back_probs, expected, dtype)
    # the way back
    rows, tokens, slot_of, weights = grad.double().requires_grad_(), torch.empty_like(index), torch.empty_like(index), torch.empty(slots, dtype=dtype)
    p = None if probs is None else probs.double().requires_grad_()
    weighed = rows if p is None else rows * p[token, expert].unsqueeze(-1)
    expected = torch.zeros(TOKENS, WIDTH, dtype=torch.float64).index_add(0, token, weighed)
    out = torch.empty(TOKENS, WIDTH, dtype=dtype)
    aclnn.call("MoeTokenUnpermuteWithRoutingMap", grad, index, map_, probs, padded, [TOKENS, WIDTH], out, slot_of, tokens, weights)
    near(out, expected.detach(), dtype)
    if padded:
        by_token, argsort = index.sort(stable=True)
        assert torch.equal(tokens, by_token) and torch.equal(slot_of, argsort.to(torch.int32))
    if with_probs:
        near(weights, probs[token, expert] if padded else probs.masked_select(map_.bool()), dtype)
    # and the gradient of that
    out_grad = torch.randn(TOKENS, WIDTH).to(dtype)
    expected.backward(out_grad.double())
    rows_grad, probs_grad = torch.empty(slots, WIDTH, dtype=dtype), torch.empty(TOKENS, EXPERTS, dtype=dtype) if with_probs else None
    where = (slot_of, tokens) if padded else (index, index)
    aclnn.call("MoeTokenUnpermuteWithRoutingMapGrad", out_grad, *where, map_, grad, probs, padded, [TOKENS, WIDTH], rows_grad, probs_grad)
    near(rows_grad, rows.grad, dtype)
    if with_probs:
        near(probs_grad, p.grad, dtype)


def test_wrong_maps():
    map_ = routing(torch.bool)
    x, index = torch.randn(TOKENS, WIDTH), torch.empty(TOKENS * 2 + 1, dtype=torch.int32)
    with pytest.raises(aclnn.Failed, match="routingMap has 22 ones, expected 23"):
        aclnn.call("MoeTokenPermuteWithRoutingMap", x, map_, None, 23, False, torch.empty(23, WIDTH), None, index)
    with pytest.raises(aclnn.Failed, match="sortedIndices has 22, expected 0 to 21"):
        aclnn.call("MoeTokenUnpermuteWithRoutingMap", torch.randn(22, WIDTH), torch.arange(22, dtype=torch.int32) + 1, map_, None, False, None,
                   torch.empty(TOKENS, WIDTH), *(torch.empty(22, dtype=torch.int32) for _ in range(2)), torch.empty(22))
    with pytest.raises(aclnn.Failed, match="numOutTokens is 60, 12 for each of 5 experts"):
        aclnn.call("MoeTokenPermuteWithRoutingMap", x, map_, None, 60, True, torch.empty(60, WIDTH), None, torch.empty(60, dtype=torch.int32))


@pytest.mark.parametrize("dtype", [*FLOATS, torch.int8])
@pytest.mark.parametrize("counts_type", [torch.int32, torch.int64])
@pytest.mark.parametrize("cumulative", [False, True])
@pytest.mark.parametrize("scatter", [False, True])
@pytest.mark.parametrize("layout", ["contiguous", "transposed"])
def test_re_routing(layout, scatter, cumulative, counts_type, dtype):
    counts = torch.tensor([[3, 0, 2], [1, 4, 0], [0, 0, 0], [2, 1, 1]], dtype=counts_type)
    rows, ranks, experts = int(counts.sum()), *counts.shape
    x, scales = arrange((torch.randn(rows, WIDTH) * 20).to(dtype), layout), torch.rand(rows)
    owner = torch.arange(ranks * experts).repeat_interleave(counts.flatten())
    order = (owner % experts).sort(stable=True)[1]
    y, y_scales, index = torch.empty_like(x.contiguous()), torch.empty(rows), torch.empty(rows, dtype=torch.int32)
    of_expert = torch.empty(experts, dtype=counts_type)
    aclnn.call("MoeReRouting", x, counts, scales, 0 if cumulative else 1, 1 if scatter else 0, y, y_scales, index, of_expert)
    assert torch.equal(y, x[order]) and torch.equal(y_scales, scales[order])
    assert torch.equal(index.long(), order.argsort() if scatter else order)
    totals = counts.sum(0)
    assert torch.equal(of_expert.long(), totals.cumsum(0) if cumulative else totals)
    # counts that name fewer or more rows than there are
    y, index = torch.full((rows + 1, WIDTH), 7, dtype=dtype), torch.full((rows + 1,), 7, dtype=torch.int32)
    more = torch.cat([x, x[:1]])
    aclnn.call("MoeReRouting", more, counts, None, 1, 0, y, torch.zeros(1), index, of_expert)
    assert torch.equal(y[:rows], x[order]) and y[rows].eq(0).all() and torch.equal(index[:rows].long(), order)
    y, index = torch.empty(rows - 1, WIDTH, dtype=dtype), torch.empty(rows - 1, dtype=torch.int32)
    aclnn.call("MoeReRouting", x[:-1].contiguous(), counts, None, 1, 0, y, torch.zeros(1), index, of_expert)
    kept = order[order < rows - 1]
    assert torch.equal(y, x[kept]) and torch.equal(index.long(), kept) and torch.equal(of_expert.long(), totals)
    with pytest.raises(aclnn.Failed, match="expertTokenNumPerRank has -1 for rank 0 and expert 0"):
        aclnn.call("MoeReRouting", x, counts - 4 * (counts == 3), None, 1, 0, torch.zeros_like(x), torch.zeros(1), torch.zeros(rows, dtype=torch.int32), of_expert)
