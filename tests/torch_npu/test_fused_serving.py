"""Operators of serving loops and of sparse attention through torch_npu's own calls, against plain PyTorch on the CPU in float64."""

import pytest
import torch
import torch.nn.functional as F
import torch_npu

HALF = dict(rtol=1e-2, atol=1e-2)


def near(actual, expected, **tolerance):
    torch.testing.assert_close(actual.cpu().double(), expected.double(), **(tolerance or HALF))


def ints(*values):
    return torch.tensor(values, dtype=torch.int32)


def npu(*tensors):
    return tuple(t if t is None else t.npu() for t in tensors)


def turned(x, cos, sin):
    """Even and odd numbers apart, then rotated as halves."""
    y = torch.cat([x[..., ::2], x[..., 1::2]], -1)
    half = y.shape[-1] // 2
    return y * cos + torch.cat([-y[..., half:], y[..., :half]], -1) * sin


@pytest.mark.parametrize("version", ["v2", "v3"])
@pytest.mark.parametrize("nz", [False, True])
def test_mla_prolog(nz, version):
    torch.manual_seed(0)
    b, s, hidden, low_q, heads, d, low_k, rotary, blocks, page = 2, 3, 64, 32, 4, 16, 64, 32, 3, 16
    value = lambda *shape, by=1.0: (by * torch.randn(shape)).bfloat16()
    x, w_dq, w_uq_qr = value(b, s, hidden), value(hidden, low_q, by=0.2), value(low_q, heads * (d + rotary), by=0.2)
    w_uk, w_dkv_kr = value(heads, d, low_k, by=0.2), value(hidden, low_k + rotary, by=0.2)
    gammas, sin, cos = (value(low_q), value(low_k)), value(b, s, rotary), value(b, s, rotary)
    index = torch.randperm(blocks * page)[:b * s].reshape(b, s)
    caches = [torch.zeros(blocks, page, 1, width, dtype=torch.bfloat16).npu() for width in (low_k, rotary)]
    weights = [torch_npu.npu_format_cast(w.npu(), 29) if nz and w.dim() == 2 else w.npu() for w in (w_dq, w_uq_qr, w_uk, w_dkv_kr)]
    if version == "v2":
        query, rope, *caches, _ = torch_npu.npu_mla_prolog_v2(x.npu(), *weights, *npu(*gammas, sin, cos, index), *caches)
    else:
        query, rope, _, norm, _ = torch_npu.npu_mla_prolog_v3(x.npu(), *weights, *npu(*gammas, sin, cos), *caches, cache_index=index.npu(), query_norm_flag=True)
    flat = lambda t: t.reshape(b * s, -1).double()
    normed = lambda v, g: v / (v.square().mean(-1, keepdim=True) + 1e-5).sqrt() * g.double()
    low = normed(flat(x) @ w_dq.double(), gammas[0])
    parts, key = (low @ w_uq_qr.double()).unflatten(-1, (heads, -1)), flat(x) @ w_dkv_kr.double()
    near(query.flatten(0, 1), torch.einsum("tnd,ndh->tnh", parts[..., :d], w_uk.double()), rtol=2e-2, atol=5e-2)
    near(rope.flatten(0, 1), turned(parts[..., d:], flat(cos)[:, None], flat(sin)[:, None]), rtol=2e-2, atol=5e-2)
    rows = [c.cpu().reshape(blocks * page, -1)[index.flatten()] for c in caches]
    near(rows[0], normed(key[:, :low_k], gammas[1]), rtol=2e-2, atol=2e-2)
    near(rows[1], turned(key[:, low_k:], flat(cos), flat(sin)), rtol=2e-2, atol=5e-2)
    if version == "v3":
        near(norm.flatten(0, 1), low, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("padded", [False, True])
def test_routing_map(padded):
    """Permutation, and back again weighted, with gradients of both through autograd."""
    tokens, experts, width, k, capacity = 12, 4, 16, 2, 5
    map_ = torch.zeros(tokens, experts, dtype=torch.bool)
    for t in range(tokens):
        map_[t, torch.randperm(experts)[:k]] = True
    slots = experts * capacity if padded else tokens * k
    x, probs = torch.randn(tokens, width), torch.rand(tokens, experts)
    mine, theirs = [t.npu().requires_grad_() for t in (x, probs)], [t.double().requires_grad_() for t in (x, probs)]
    if padded:
        token = map_.to(torch.int8).T.contiguous().sort(dim=-1, descending=True, stable=True)[1][:, :capacity].flatten()
        expert = torch.arange(experts).repeat_interleave(capacity)
    else:
        expert, token = map_.T.nonzero(as_tuple=True)
    rows, row_probs, index = torch_npu.npu_moe_token_permute_with_routing_map(mine[0], map_.npu(), probs=mine[1], num_out_tokens=slots, drop_and_pad=padded)
    near(rows, theirs[0][token].detach())
    near(row_probs, theirs[1][token, expert].detach())
    back = torch_npu.npu_moe_token_unpermute_with_routing_map(rows * 2, index, [tokens, width], probs=mine[1], routing_map=map_.npu(), drop_and_pad=padded)
    weighed = theirs[0][token] * 2 * theirs[1][token, expert].unsqueeze(-1)
    expected = torch.zeros(tokens, width, dtype=torch.float64).index_add(0, token, weighed)
    near(back, expected.detach())
    grad = torch.randn(tokens, width)
    back.backward(grad.npu())
    expected.backward(grad.double())
    for a, e in zip(mine, theirs):
        near(a.grad, e.grad)


def test_re_routing():
    counts = torch.tensor([[3, 0, 2], [1, 4, 1]])
    x, scales = torch.randn(11, 8).half(), torch.rand(11)
    order = (torch.arange(6).repeat_interleave(counts.flatten()) % 3).sort(stable=True)[1]
    y, y_scales, index, numbers = torch_npu.npu_moe_re_routing(*npu(x, counts), per_token_scales=scales.npu())
    assert torch.equal(y.cpu(), x[order]) and torch.equal(y_scales.cpu(), scales[order]) and torch.equal(index.cpu().long(), order)
    assert torch.equal(numbers.cpu(), counts.sum(0))


def test_attention_updates():
    scores, values = torch.randn(9, 30, dtype=torch.float64), torch.randn(30, 16, dtype=torch.float64)
    parts = [(scores[:, a:b], values[a:b]) for a, b in ((0, 12), (12, 30))]
    lse, outs = [s.logsumexp(-1).float().npu() for s, _ in parts], [(s.softmax(-1) @ v).float().npu() for s, v in parts]
    for update in (0, 1):
        out, total = torch_npu.npu_attention_update(lse, outs, update)
        near(out, scores.softmax(-1) @ values, rtol=1e-4, atol=1e-4)
    near(total, scores.logsumexp(-1), rtol=1e-4, atol=1e-4)


def test_gated_delta_rule():
    heads, dk, dv, lengths = 2, 16, 8, [3, 2]
    q, k = (F.normalize(torch.randn(5, heads, dk), dim=-1).bfloat16() for _ in range(2))
    v, state = torch.randn(5, heads, dv).bfloat16(), torch.randn(6, heads, dv, dk).bfloat16()
    index, mine = ints(4, 0, 1, 3, 5), state.npu()
    out = torch_npu.npu_recurrent_gated_delta_rule(*npu(q, k, v), mine, scale=0.5, actual_seq_lengths=ints(*lengths).npu(), ssm_state_indices=index.npu())
    row = 0
    for n in lengths:
        s = state[index[row]].double()
        for i in range(row, row + n):
            s = s + (v[i].double() - torch.einsum("nvk,nk->nv", s, k[i].double()))[:, :, None] * k[i].double()[:, None]
            near(out[i], torch.einsum("nvk,nk->nv", s, q[i].double()) * 0.5, rtol=2e-2, atol=2e-2)
            near(mine[index[i].item()], s, rtol=2e-2, atol=2e-2)
        row += n


def test_indexer_and_sparse_attention():
    """The indexer's keys, then attention over them: DeepSeek's way through a long context."""
    b, s1, s2, heads, d, rope, count = 2, 3, 40, 4, 32, 16, 8
    q, k, w = torch.randn(b, s1, heads, d).half(), torch.randn(b, s2, 1, d).half(), torch.rand(b, s1, heads).half()
    lengths = ints(s1, s1), ints(s2, 33)
    index, _ = torch_npu.npu_lightning_indexer(*npu(q, k, w), actual_seq_lengths_query=lengths[0].npu(), actual_seq_lengths_key=lengths[1].npu(), layout_query="BSND",
                                               layout_key="BSND", sparse_count=count, sparse_mode=3)
    query, query_rope, keys, key_rope = (torch.randn(shape).half() for shape in ((b, s1, heads, d), (b, s1, heads, rope), (b, s2, 1, d), (b, s2, 1, rope)))
    out, *_ = torch_npu.npu_sparse_flash_attention(*npu(query, keys, keys), index, 0.2, actual_seq_lengths_query=lengths[0].npu(),
                                                   actual_seq_lengths_kv=lengths[1].npu(), query_rope=query_rope.npu(), key_rope=key_rope.npu(), sparse_block_size=1,
                                                   layout_query="BSND", layout_kv="BSND", sparse_mode=3, attention_mode=2)
    joined = torch.cat([query, query_rope], -1).double(), torch.cat([keys, key_rope], -1).double()
    for batch in range(b):
        n = lengths[1][batch].item()
        for i in range(s1):
            scores = (torch.einsum("nd,kd->nk", q[batch, i].double(), k[batch, :n, 0].double()).relu() * w[batch, i].double()[:, None]).sum(0)
            visible = n - s1 + i + 1
            mine = index[batch, i, 0].cpu().long()
            near(scores[mine], scores[:visible].sort(descending=True)[0][:count])
            p = (joined[0][batch, i] @ joined[1][batch, mine, 0].T * 0.2).softmax(-1)
            near(out[batch, i], p @ keys[batch, mine, 0].double())


def test_native_sparse_attention():
    x, weight = torch.randn(40, 2, 16).half(), torch.randn(8, 2).half()
    y = torch_npu.npu_nsa_compress(*npu(x, weight), 8, 4, actual_seq_len=[17, 40])
    starts = [*range(0, 10, 4), *range(17, 33, 4)]
    near(y, torch.stack([(x[i:i + 8].double() * weight.double().unsqueeze(-1)).sum(0) for i in starts]), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("activation", ["relu", "gelu", "swiglu"])
def test_ffn(activation):
    wide = 64 if activation == "swiglu" else 32
    x, w1, w2 = torch.randn(10, 24).half(), (torch.randn(3, 24, wide) / 5).half(), (torch.randn(3, 32, 16) / 5).half()
    y = torch_npu.npu_ffn(*npu(x, w1, w2), activation, expert_tokens=[4, 0, 6])
    f = {"relu": F.relu, "gelu": F.gelu, "swiglu": lambda v: v[..., :32] * F.silu(v[..., 32:])}[activation]
    near(y, torch.cat([f(x[:4].double() @ w1[0].double()) @ w2[0].double(), f(x[4:].double() @ w1[2].double()) @ w2[2].double()]))


def test_low_rank_adapters():
    y, x, a, b = torch.randn(4, 40).half(), torch.randn(4, 32).half(), torch.randn(2, 1, 16, 32).half(), torch.randn(2, 1, 40, 16).half()
    index, mine = ints(1, 0, 1, 1), y.npu()
    torch_npu.npu_batch_gather_matmul_(mine, *npu(x, b, index, a), layer_idx=0, scale=0.01, y_offset=0, y_slice_size=40)
    near(mine, torch.stack([y[i].double() + 0.01 * b[w, 0].double() @ (a[w, 0].double() @ x[i].double()) for i, w in enumerate(index.tolist())]))


def test_biased_softmax():
    x, mask, bias = torch.randn(2, 3, 4, 5, 6), torch.randn(1, 3, 1, 5, 6), torch.randn(1, 1, 4, 5, 6)
    near(torch_npu.npu_masked_softmax_with_rel_pos_bias(*npu(x, mask, bias)), (x.double() + mask.double() + bias.double()).softmax(-1), rtol=1e-4, atol=1e-5)


def test_sampling():
    logits, k, p = torch.randn(6, 50), ints(1, 5, 50, 0, 3, 8), torch.tensor([1.0, 0.5, 0.9, 0.0, 1.0, 0.7])
    chosen, kept = torch_npu.npu_top_k_top_p_sample(*npu(logits, k, p), is_need_logits=True)
    for r in range(6):
        order = logits[r].sort(descending=True)[1][:k[r] if k[r] > 0 else None]
        probability = logits[r, order].double().softmax(-1)
        order = order[(probability.cumsum(-1) - probability < p[r].item()) | (torch.arange(len(order)) == 0)] if p[r] < 1 else order
        assert set(kept[r].cpu().isfinite().nonzero().flatten().tolist()) == set(order.tolist()) and chosen[r].item() == logits[r].argmax()


def test_vocabulary_in_parts():
    x, w, target = torch.randn(11, 16).half(), torch.randn(30, 16).half(), torch.randint(0, 30, (11,))
    top, total, predicted, mask, within, part = torch_npu.npu_fused_linear_online_max_sum(*npu(x, w, target), 0, 29, return_logits=True)
    loss, softmax = torch_npu.npu_fused_cross_entropy_loss_with_max_sum(top, total, predicted, vocab_parallel_logits=part)
    logits = x.double() @ w.double().T
    near(loss, F.cross_entropy(logits, target, reduction="none"))
    near(softmax, logits.softmax(-1))
    grad = torch.randn(11)
    gx, gw = torch_npu.npu_fused_linear_cross_entropy_loss_with_max_sum_backward(*npu(grad, x, w), mask, within, softmax=softmax)
    g = (logits.softmax(-1) - F.one_hot(target, 30)) * grad.double()[:, None]
    near(gx, g @ w.double(), rtol=2e-2, atol=3e-2)
    near(gw, g.T @ x.double(), rtol=2e-2, atol=3e-2)


def test_hyper_connections():
    x = torch.randn(1, 5, 4, 4)
    y, _, _ = torch_npu.npu_mhc_sinkhorn(x.npu(), eps=1e-6, num_iters=20, out_flag=0)
    near(y.sum(-1), torch.ones(1, 5, 4), rtol=1e-2, atol=1e-2)
    near(y.sum(-2), torch.ones(1, 5, 4), rtol=1e-4, atol=1e-4)
    streams, res, out, post = torch.randn(1, 5, 4, 32).bfloat16(), torch.randn(1, 5, 4, 4), torch.randn(1, 5, 32).bfloat16(), torch.randn(1, 5, 4)
    mixed = torch.einsum("bsij,bsid->bsjd", res.double(), streams.double()) + post.double()[..., None] * out.double()[..., None, :]
    near(torch_npu.npu_mhc_post(*npu(streams, res, out, post)), mixed, rtol=2e-2, atol=2e-2)


def test_steps_of_serving():
    tokens, positions, slots, lengths = torch.zeros(4, dtype=torch.int64), torch.zeros(4, dtype=torch.int64), torch.zeros(4, dtype=torch.int64), torch.tensor([3, 7, 0, 0])
    mine = npu(tokens, positions, lengths, slots)
    torch_npu.npu_advance_step_flashattn(mine[0], torch.tensor([[11], [12]]).npu(), mine[1], mine[2], mine[3], torch.arange(20).reshape(4, 5).npu(), 4, 2, 4)
    assert mine[0].tolist() == [11, 12, 0, 0] and mine[1].tolist() == [3, 7, 0, 0] and mine[2].tolist() == [4, 8, 0, 0] and mine[3].tolist()[2:] == [-1, -1]


def test_causal_convolution():
    x, w = torch.randn(9, 2, 16).half(), torch.randn(3, 16).half()
    padded = torch.cat([torch.zeros(2, 2, 16, dtype=torch.float64), x.double()])
    near(torch_npu.npu_masked_causal_conv1d(*npu(x, w)), sum(padded[i:i + 9] * w[i].double() for i in range(3)))


def test_fusion_attention_with_rotary_parts():
    q_ends, k_ends, heads, d, rope = [6, 10], [9, 20], 2, 128, 64
    shapes = ((10, heads, d), (20, heads, d), (20, heads, d), (10, heads, rope), (20, heads, rope))
    tensors = [torch.randn(s).half() for s in shapes]
    mine, theirs = [t.npu().requires_grad_() for t in tensors], [t.double().requires_grad_() for t in tensors]
    q, k, v, qr, kr = mine
    out = torch_npu.npu_fusion_attention_v2(q, k, v, heads, "TND", query_rope=qr, key_rope=kr, scale=0.07, actual_seq_qlen=q_ends, actual_seq_kvlen=k_ends)[0]
    q, k, v, qr, kr = theirs
    query, key = torch.cat([q, qr], -1), torch.cat([k, kr], -1)
    parts = [torch.einsum("nqk,knd->qnd", (torch.einsum("qnd,knd->nqk", query[a:b], key[c:e]) * 0.07).softmax(-1), v[c:e])
             for (a, b), (c, e) in zip(((0, 6), (6, 10)), ((0, 9), (9, 20)))]
    expected = torch.cat(parts)
    near(out, expected.detach())
    grad = torch.randn(expected.shape).half()
    out.backward(grad.npu())
    expected.backward(grad.double())
    for a, e in zip(mine, theirs):
        near(a.grad, e.grad, rtol=2e-2, atol=2e-2)
