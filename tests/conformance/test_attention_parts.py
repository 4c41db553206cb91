"""Attention put together from parts, biased softmax, and the gated delta rule, against plain PyTorch in float64."""

import pytest
import torch

import aclnn
from test_cache import FLOATS, near
from test_norm import arrange


def parts(shape, keys, dtype):
    """Attention over two sets of keys: outputs, maxima, sums, and the result over all."""
    scores, values = torch.randn(*shape[:-1], keys, dtype=torch.float64) * 3, torch.randn(*shape[:-2], keys, shape[-1], dtype=torch.float64)
    made = []
    for s, v in zip(scores.split([keys // 3, keys - keys // 3], -1), values.split([keys // 3, keys - keys // 3], -2)):
        made.append(((s.softmax(-1) @ v).to(dtype), s.amax(-1).float(), (s - s.amax(-1, keepdim=True)).exp().sum(-1).float()))
    return made, scores.softmax(-1) @ values, scores.amax(-1), (scores - scores.amax(-1, keepdim=True)).exp().sum(-1)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("operator,layout,softmax", [("RingAttentionUpdate", "SBH", None), ("RingAttentionUpdateV2", "SBH", ""), ("RingAttentionUpdate", "TND", None),
                                                     ("RingAttentionUpdateV2", "TND", "TND"), ("RingAttentionUpdateV2", "TND", "")])
def test_ring(operator, layout, softmax, dtype):
    b, n, s, d = (2, 3, 5, 16) if layout == "SBH" else (1, 3, 7, 16)
    made, whole, top, total = parts((b, n, s, d), 30, dtype)
    if layout == "SBH":
        out = lambda t: t.permute(2, 0, 1, 3).reshape(s, b, n * d).contiguous()
        eight = lambda t: t.unsqueeze(-1).repeat(1, 1, 1, 8)
    else:
        out = lambda t: t[0].transpose(0, 1).contiguous()
        eight = lambda t: (t[0].T if softmax == "TND" or softmax is None else t[0]).unsqueeze(-1).repeat(1, 1, 8).contiguous()
    arguments = [f(t) for part in made for f, t in zip((out, eight, eight), part)]
    results = [torch.empty_like(t) for t in arguments[:3]]
    extra = () if operator == "RingAttentionUpdate" else (softmax,)
    aclnn.call(operator, *arguments, None, layout, *extra, *results)
    near(results[0], out(whole), dtype)
    near(results[1], eight(top), torch.float32)
    near(results[2], eight(total), torch.float32)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("update", [0, 1])
def test_update(update, count, dtype):
    rows, width = 9, 24
    lse, outs = [torch.randn(rows) * 4 for _ in range(count)], [torch.randn(rows, width).to(dtype) for _ in range(count)]
    lse[0][2] = -torch.inf
    out, lse_out = torch.empty(rows, width, dtype=dtype), torch.empty(rows) if update else None
    aclnn.call("AttentionUpdate", lse, outs, update, out, lse_out)
    total = torch.stack(lse).double().logsumexp(0)
    weights = (torch.stack(lse).double() - total).exp().nan_to_num(0)
    near(out, (weights.unsqueeze(-1) * torch.stack(outs).double()).sum(0), dtype)
    if update:
        near(lse_out, total, torch.float32)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("layout", ["contiguous", "transposed"])
@pytest.mark.parametrize("shape,mask_shape,bias_shape", [((3, 2, 4, 5, 7), (1, 2, 1, 5, 7), (1, 1, 4, 5, 7)), ((3, 2, 4, 5, 7), (2, 5, 7), (4, 5, 7)),
                                                         ((3, 2, 4, 5, 7), None, (1, 1, 4, 5, 7)), ((6, 4, 5, 7), (2, 1, 5, 7), (1, 4, 5, 7)), ((6, 4, 5, 7), None, (4, 5, 7))])
def test_masked_softmax(shape, mask_shape, bias_shape, layout, dtype):
    x, bias = arrange(torch.randn(shape).to(dtype), layout), torch.randn(bias_shape).to(dtype)
    mask = None if mask_shape is None else torch.randn(mask_shape).to(dtype)
    out = torch.empty(shape, dtype=dtype)
    aclnn.call("MaskedSoftmaxWithRelPosBias", x, mask, bias, 0.5, 0, out)
    scores = x.double() * 0.5 + bias.double().reshape(4, 5, 7)
    if mask is not None:
        scores = (scores.unflatten(0, (-1, 2)) if len(shape) == 4 else scores) + mask.double().reshape(1, 2, 1, 5, 7)
    near(out, scores.reshape(shape).softmax(-1), dtype)


def delta_rule(q, k, v, state, beta, g, gk, scale):
    """One sequence: outputs, and the state after each token."""
    states, outs = [], []
    group = v.shape[1] // q.shape[1]
    q, k = (t.double().repeat_interleave(group, 1) for t in (q, k))
    for i in range(len(v)):
        decay = torch.ones(v.shape[1], 1, q.shape[2], dtype=torch.float64)
        decay = decay if g is None else decay * g[i].double().exp()[:, None, None]
        decay = decay if gk is None else decay * gk[i].double().exp()[:, None, :]
        state = state * decay
        change = (v[i].double() - torch.einsum("nvk,nk->nv", state, k[i])) * (1 if beta is None else beta[i].double()[:, None])
        state = state + change[:, :, None] * k[i][:, None, :]
        states.append(state)
        outs.append(torch.einsum("nvk,nk->nv", state, q[i]) * scale)
    return outs, states


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("operator", ["RecurrentGatedDeltaRule", "RecurrentGatedDeltaRuleV310", "ChunkGatedDeltaRule"])
@pytest.mark.parametrize("optional", [True, False])
def test_gated_delta_rule(operator, optional, dtype):
    lengths, key_heads, heads, dk, dv = [3, 1, 4], 2, 4, 16, 8
    tokens, chunks = sum(lengths), operator == "ChunkGatedDeltaRule"
    q, k = (torch.nn.functional.normalize(torch.randn(tokens, key_heads, dk), dim=-1).to(dtype) for _ in range(2))
    v, beta, g = torch.randn(tokens, heads, dv).to(dtype), torch.rand(tokens, heads).to(dtype), -torch.rand(tokens, heads)
    gk, accepted = -torch.rand(tokens, heads, dk), torch.tensor([2, 1, 3], dtype=torch.int32)
    if not optional:
        beta = g = gk = accepted = None
    out = torch.empty(tokens, heads, dv, dtype=dtype)
    sizes = torch.tensor(lengths, dtype=torch.int32)
    ends = torch.tensor([0, *lengths]).cumsum(0).tolist()
    at = lambda t, b: None if t is None else t[ends[b]:ends[b + 1]]
    if chunks:
        initial, final = torch.randn(3, heads, dv, dk).to(dtype), torch.empty(3, heads, dv, dk, dtype=dtype)
        aclnn.call(operator, q, k, v, beta, initial if optional else None, sizes, g, 0.5, out, final)
        for b in range(3):
            start = initial[b].double() if optional else torch.zeros(heads, dv, dk, dtype=torch.float64)
            outs, states = delta_rule(at(q, b), at(k, b), at(v, b), start, at(beta, b), at(g, b), None, 0.5)
            near(at(out, b), torch.stack(outs), dtype)
            near(final[b], states[-1], dtype)
        return
    index = torch.randperm(12)[:tokens].to(torch.int32)
    state = torch.randn(12, heads, dv, dk).to(dtype)
    expected = state.double()
    mine = state.clone()
    aclnn.call(operator, q, k, v, beta, mine, sizes, index, g, gk, accepted, 0.5, out)
    for b in range(3):
        first = ends[b] + (0 if accepted is None else accepted[b].item() - 1)
        outs, states = delta_rule(at(q, b), at(k, b), at(v, b), state[index[first]].double(), at(beta, b), at(g, b), at(gk, b), 0.5)
        near(at(out, b), torch.stack(outs), dtype)
        for i, s in enumerate(states):
            expected[index[ends[b] + i]] = s
    near(mine, expected, dtype)
    with pytest.raises(aclnn.Failed, match="ssmStateIndices has 40, expected 0 to 11"):
        aclnn.call("RecurrentGatedDeltaRule", q, k, v, beta, mine, sizes, index + 40 - index, g, gk, accepted, 0.5, out)
