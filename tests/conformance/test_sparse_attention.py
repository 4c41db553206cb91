"""Attention over keys that an index names, against plain PyTorch in float64."""

import pytest
import torch

import aclnn
from test_cache import FLOATS, near

B, S1, S2, HEADS, DIM, ROPE = 2, 5, 37, 4, 32, 16


def ints(values):
    return torch.tensor(values, dtype=torch.int32)


def named(index, block, keys, queries, position, causal):
    """Positions that one query sees."""
    seen = []
    for i in index.tolist():
        if i < 0:
            break
        seen += [p for p in range(i * block, min((i + 1) * block, keys)) if not causal or p <= keys - queries + position]
    return seen


def attend(q, k, v, index, block, scale, causal, q_lengths, k_lengths, sinks=None):
    """q [B][S1, N, D], k [B][S2, N2, D]: lists of sequences. Outputs, maxima and sums of each, [S1, N, ..]."""
    results = []
    for b, (qs, ks, vs) in enumerate(zip(q, k, v)):
        group = qs.shape[1] // ks.shape[1]
        outs, tops, sums = [], [], []
        for i in range(q_lengths[b]):
            for n in range(qs.shape[1]):
                seen = named(index[b][i, n // group], block, k_lengths[b], q_lengths[b], i, causal)
                if not seen:
                    outs.append(torch.zeros(vs.shape[-1], dtype=torch.float64))
                    tops.append(torch.tensor(-torch.inf, dtype=torch.float64))
                    sums.append(torch.tensor(0.0, dtype=torch.float64))
                    continue
                s = ks[seen, n // group] @ qs[i, n] * scale
                top = s.max().detach() if sinks is None else torch.maximum(s.max(), sinks[n]).detach()
                p = (s - top).exp()
                total = p.sum() + (0 if sinks is None else (sinks[n] - top).exp())
                outs.append(p / total @ vs[seen, n // group])
                tops.append(top)
                sums.append(total)
        shape = (q_lengths[b], qs.shape[1])
        results.append((torch.stack(outs).reshape(*shape, -1), torch.stack(tops).reshape(shape), torch.stack(sums).reshape(shape)))
    return results


def problem(kv_heads, block, count, dtype, value_dim=DIM):
    shapes = [(B, S1, HEADS, DIM), (B, S1, HEADS, ROPE), (B, S2, kv_heads, DIM), (B, S2, kv_heads, ROPE), (B, S2, kv_heads, value_dim)]
    tensors = [torch.randn(shape).to(dtype) for shape in shapes]
    blocks = (S2 + block - 1) // block
    index = torch.stack([torch.randperm(blocks)[:count] for _ in range(B * S1 * kv_heads)]).to(torch.int32).reshape(B, S1, kv_heads, -1)
    index[0, 1, 0, count // 2:] = -1
    return tensors, index


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("kv_layout", ["BSND", "PA_BSND", "TND"])
@pytest.mark.parametrize("query_layout", ["BSND", "TND"])
@pytest.mark.parametrize("block,count,kv_heads,mode,with_sinks", [(1, 12, 1, 3, False), (4, 6, 2, 0, False), (1, 20, 1, 3, True)])
def test_sparse_flash(block, count, kv_heads, mode, with_sinks, query_layout, kv_layout, dtype):
    torch.manual_seed(0)
    (q, qr, k, kr, v), index = problem(kv_heads, block, count, dtype)
    q_lengths, k_lengths = [S1, 3], [S2, 30]
    sinks = torch.randn(HEADS) if with_sinks else None
    joined = [torch.cat(pair, -1).double() for pair in ((q, qr), (k, kr))]
    expected = attend(*joined, v.double(), index, block, 0.2, mode == 3, q_lengths, k_lengths, None if sinks is None else sinks.double())
    pack = lambda t, lengths: torch.cat([t[b, :n] for b, n in enumerate(lengths)])
    packed = query_layout == "TND"
    queries = [pack(t, q_lengths) if packed else t for t in (q, qr, index)]
    ends = lambda lengths: ints(lengths).cumsum(0).to(torch.int32)
    table = None
    if kv_layout == "PA_BSND":
        page, columns = 8, 5
        table = torch.randperm(B * columns).reshape(B, columns).to(torch.int32)

        def pages(t):
            out = torch.randn(B * columns, page, *t.shape[2:]).to(dtype)
            for b in range(B):
                for p in range(S2):
                    out[table[b, p // page], p % page] = t[b, p]
            return out
        keys = [pages(t) for t in (k, kr, v)]
    else:
        keys = [pack(t, k_lengths) if kv_layout == "TND" else t for t in (k, kr, v)]
    out = torch.empty(*queries[0].shape[:-1], DIM, dtype=dtype)
    group, rows = HEADS // kv_heads, sum(q_lengths)
    shape = (kv_heads, rows, group) if packed else (B, kv_heads, S1, group)
    top, total = torch.empty(shape), torch.empty(shape)
    lengths = (ends(q_lengths) if packed else ints(q_lengths), ends(k_lengths) if kv_layout == "TND" else ints(k_lengths))
    name, extra = ("SparseFlashAttentionV2", (sinks,)) if with_sinks else ("SparseFlashAttention", ())
    aclnn.call(name, queries[0], keys[0], keys[2], queries[2], table, *lengths, queries[1], keys[1], *extra, 0.2, block, query_layout, kv_layout, mode,
               2**62, 2**62, 2, True, out, top, total)
    for b, (o, m, s) in enumerate(expected):
        n, first = q_lengths[b], sum(q_lengths[:b])
        near(out[first:first + n] if packed else out[b, :n], o, dtype)
        heads = lambda t: (t[:, first:first + n] if packed else t[b, :, :n]).permute(1, 0, 2).reshape(n, HEADS)
        torch.testing.assert_close(heads(top).double(), m, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(heads(total).double(), s, rtol=1e-3, atol=1e-4)
    if not packed:
        assert out[1, 3:].eq(0).all()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("layout", ["BSND", "TND"])
@pytest.mark.parametrize("block,count,kv_heads,rope", [(1, 12, 1, True), (4, 6, 2, False)])
def test_sparse_flash_gradient(block, count, kv_heads, rope, layout, dtype):
    torch.manual_seed(1)
    tensors, index = problem(kv_heads, block, count, dtype, 24)
    q_lengths, k_lengths = [S1, 3], [S2, 30]
    packed = layout == "TND"
    pack = lambda t, lengths: torch.cat([t[b, :n] for b, n in enumerate(lengths)]) if packed else t
    leaves = [t.double().requires_grad_() for t in tensors]
    ql, qrl, kl, krl, vl = leaves
    query, key = (torch.cat([ql, qrl], -1), torch.cat([kl, krl], -1)) if rope else (ql, kl)
    expected = attend(query, key, vl, index, block, 0.2, True, q_lengths, k_lengths)
    grads = [torch.randn(o.shape).to(dtype) for o, _, _ in expected]
    torch.autograd.backward([o for o, _, _ in expected], [g.double() for g in grads])
    q, qr, k, kr, v = (pack(t, q_lengths if i < 2 else k_lengths) for i, t in enumerate(tensors))
    full = lambda parts, width: torch.cat(parts) if packed else torch.stack([torch.cat([p, torch.zeros(S1 - len(p), HEADS, width, dtype=p.dtype)]) for p in parts])
    out, grad = full([o.detach().to(dtype) for o, _, _ in expected], 24), full(grads, 24)

    def statistic(i):
        parts = [r[i].detach().float().reshape(len(r[i]), kv_heads, -1).permute(1, 0, 2) for r in expected]
        return torch.cat(parts, 1) if packed else torch.stack([torch.cat([p, torch.zeros(kv_heads, S1 - p.shape[1], p.shape[2])], 1) for p in parts])
    lengths = [ints(n).cumsum(0).to(torch.int32) if packed else ints(n) for n in (q_lengths, k_lengths)]
    results = [torch.full_like(t, 77) for t in (q, qr, k, kr, v)]
    dq, dqr, dk, dkr, dv = results
    aclnn.call("SparseFlashAttentionGrad", q, k, v, pack(index, q_lengths), grad, out, statistic(1).contiguous(), statistic(2).contiguous(), *lengths,
               qr if rope else None, kr if rope else None, 0.2, block, layout, 3, 2**62, 2**62, True, dq, dk, dv, dqr if rope else None, dkr if rope else None)
    for i, (mine, leaf) in enumerate(zip(results, leaves)):
        if i in (1, 3) and not rope:
            continue
        wanted = pack(leaf.grad, q_lengths if i < 2 else k_lengths)
        tolerance = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}[dtype]
        torch.testing.assert_close(mine.double(), wanted, rtol=tolerance, atol=tolerance)


def test_wrong_arguments():
    (q, qr, k, kr, v), index = problem(1, 1, 4, torch.float16)
    out, none = torch.empty_like(q), torch.empty(0)
    call = lambda *a: aclnn.call("SparseFlashAttention", q, k, v, index, None, *a, qr, kr, 0.2, 1, "BSND", "BSND", 3, 0, 0, 2, False, out, none, none)
    with pytest.raises(aclnn.Failed, match="actualSeqLengthsKv has 99 for batch 1, expected 0 to 37"):
        call(ints([5, 5]), ints([3, 99]))
    with pytest.raises(aclnn.Failed, match="actualSeqLengthsQuery has 1 values, expected one for each of 2 batches"):
        call(ints([5]), ints([3, 9]))
    with pytest.raises(aclnn.Failed, match="layoutKv is XYZ, expected BSND, TND or PA_BSND"):
        aclnn.call("SparseFlashAttention", q, k, v, index, None, None, None, qr, kr, 0.2, 1, "BSND", "XYZ", 3, 0, 0, 2, False, out, none, none)
