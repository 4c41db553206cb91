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


def index_scores(q, k, w, causal):
    """[S1, S2] of one sequence; what can't be seen is minus infinity."""
    scores = (torch.einsum("snd,kd->snk", q, k[:, 0]).relu() * w.unsqueeze(-1)).sum(1)
    if causal:
        positions = torch.arange(len(k)) > torch.arange(len(q)).unsqueeze(-1) + len(k) - len(q)
        scores = scores.masked_fill(positions, -torch.inf)
    return scores


@pytest.mark.parametrize("operator", ["LightningIndexer", "LightningIndexerVllm", "QuantLightningIndexer", "LightningIndexerQuant"])
@pytest.mark.parametrize("kv_layout", ["BSND", "PA_BSND", "TND"])
@pytest.mark.parametrize("query_layout", ["BSND", "TND"])
@pytest.mark.parametrize("mode,count", [(3, 12), (0, 50)])
def test_lightning_indexer(mode, count, query_layout, kv_layout, operator):
    torch.manual_seed(2)
    quantised = "Quant" in operator
    value = lambda *shape: torch.randint(-127, 128, shape, dtype=torch.int8) if quantised else torch.randn(shape).half()
    q, k, w = value(B, S1, HEADS, DIM), value(B, S2, 1, DIM), torch.randn(B, S1, HEADS).half()
    qs, ks = ((0.01 * torch.rand(*shape)).half() for shape in ((B, S1, HEADS), (B, S2, 1)))
    q_lengths, k_lengths = [S1, 3], [S2, 30]
    packed = query_layout == "TND"
    pack = lambda t, lengths: torch.cat([t[b, :n] for b, n in enumerate(lengths)])
    ends = lambda lengths: ints(lengths).cumsum(0).to(torch.int32)
    table, keys = None, [k, ks]
    if kv_layout == "PA_BSND":
        page, columns = 8, 5
        table = torch.randperm(B * columns).reshape(B, columns).to(torch.int32)
        keys = []
        for t in (k, ks):
            pages = torch.zeros(B * columns, page, *t.shape[2:], dtype=t.dtype)
            for b in range(B):
                for p in range(S2):
                    pages[table[b, p // page], p % page] = t[b, p]
            keys.append(pages)
    elif kv_layout == "TND":
        keys = [pack(t, k_lengths) for t in (k, ks)]
    queries = [pack(t, q_lengths) if packed else t for t in (q, w, qs)]
    lengths = (ends(q_lengths) if packed else ints(q_lengths), ends(k_lengths) if kv_layout == "TND" else ints(k_lengths))
    rows = queries[0].shape[:-2]
    index, values = torch.full((*rows, 1, count), 7, dtype=torch.int32), torch.full((*rows, 1, count), 7.0)
    scales, modes = ((queries[2], keys[1]), (0, 0)) if quantised else ((), ())
    tail = {"LightningIndexer": (2**62, 2**62, True, index, values), "QuantLightningIndexer": (2**62, 2**62, index)}.get(operator, (index,))
    aclnn.call(operator, queries[0], keys[0], queries[1], *scales, *lengths, table, *modes, query_layout, kv_layout, count, mode, *tail)
    for b in range(B):
        weights = w[b, :q_lengths[b]].double() * (qs[b, :q_lengths[b]].double() if quantised else 1)
        scores = index_scores(q[b, :q_lengths[b]].double(), k[b, :k_lengths[b]].double(), weights, mode == 3)
        if quantised:
            scores = scores * ks[b, :k_lengths[b], 0].double()
        for i in range(q_lengths[b]):
            mine = (index[sum(q_lengths[:b]) + i] if packed else index[b, i])[0].long()
            visible = scores[i][scores[i] > -torch.inf]
            kept = min(count, len(visible))
            assert mine[kept:].eq(-1).all() and len(set(mine[:kept].tolist())) == kept
            # by scores: equal ones may come in either order
            torch.testing.assert_close(scores[i][mine[:kept]], visible.sort(descending=True)[0][:kept], rtol=1e-4, atol=1e-4)
            if operator == "LightningIndexer":
                got = (values[sum(q_lengths[:b]) + i] if packed else values[b, i])[0]
                torch.testing.assert_close(got[:kept].double(), scores[i][mine[:kept]], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("layout", ["BSND", "TND"])
def test_lightning_indexer_gradient(layout, dtype):
    torch.manual_seed(3)
    count, q_lengths, k_lengths = 8, [S1, 3], [S2, 30]
    tensors = [torch.randn(shape).to(dtype) for shape in ((B, S1, HEADS, DIM), (B, S2, 1, DIM), (B, S1, HEADS))]
    q, k, w = leaves = [t.double().requires_grad_() for t in tensors]
    index, grad = torch.full((B, S1, 1, count), -1, dtype=torch.int32), torch.randn(B, S1, 1, count).to(dtype)
    total = 0
    for b in range(B):
        scores = index_scores(q[b, :q_lengths[b]], k[b, :k_lengths[b]], w[b, :q_lengths[b]], True)
        top = scores.topk(count, -1)
        index[b, :q_lengths[b], 0] = top.indices.to(torch.int32)
        total = total + (top.values * grad[b, :q_lengths[b], 0].double()).sum()
    total.backward()
    packed = layout == "TND"
    pack = lambda t, lengths: torch.cat([t[b, :n] for b, n in enumerate(lengths)]) if packed else t
    lengths = [ints(n).cumsum(0).to(torch.int32) if packed else ints(n) for n in (q_lengths, k_lengths)]
    inputs = [pack(t, n) for t, n in zip(tensors, (q_lengths, k_lengths, q_lengths))]
    results = [torch.full_like(t, 77) for t in inputs]
    aclnn.call("LightningIndexerGrad", inputs[0], inputs[1], pack(grad, q_lengths), pack(index, q_lengths), inputs[2], *lengths, HEADS, layout, 3, 2**62,
               2**62, True, *results)
    for mine, leaf, n in zip(results, leaves, (q_lengths, k_lengths, q_lengths)):
        tolerance = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}[dtype]
        torch.testing.assert_close(mine.double(), pack(leaf.grad, n), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("operator", ["KvQuantSparseFlashAttention", "KvQuantSparseFlashAttentionV2"])
@pytest.mark.parametrize("kv_layout", ["BSND", "PA_BSND"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_quantised_keys(dtype, kv_layout, operator):
    torch.manual_seed(4)
    tile, count, width = 16, 12, 64
    q = torch.randn(B, S1, HEADS, width + ROPE).to(dtype)
    levels, rope, scales = torch.randint(-127, 128, (B, S2, 1, width), dtype=torch.int8), torch.randn(B, S2, 1, ROPE).to(dtype), torch.rand(B, S2, 1, width // tile) / 60
    rows = torch.cat([levels, rope.view(torch.int8), scales.view(torch.int8)], -1)
    plain = (levels.unflatten(-1, (-1, tile)).double() * scales.double().unsqueeze(-1)).flatten(-2)
    index = torch.stack([torch.randperm(S2)[:count] for _ in range(B * S1)]).to(torch.int32).reshape(B, S1, 1, count)
    q_lengths, k_lengths = [S1, 3], [S2, 30]
    sinks = torch.randn(HEADS) if operator.endswith("V2") else None
    expected = attend(q.double(), torch.cat([plain, rope.double()], -1), plain, index, 1, 0.2, True, q_lengths, k_lengths, None if sinks is None else sinks.double())
    table, keys = None, rows
    if kv_layout == "PA_BSND":
        page, columns = 8, 5
        table, keys = torch.randperm(B * columns).reshape(B, columns).to(torch.int32), torch.zeros(B * columns, page, 1, rows.shape[-1], dtype=torch.int8)
        for b in range(B):
            for p in range(S2):
                keys[table[b, p // page], p % page] = rows[b, p]
    out, extra = torch.empty(B, S1, HEADS, width, dtype=dtype), (sinks,) if sinks is not None else ()
    aclnn.call(operator, q, keys, keys, index, None, None, table, ints(q_lengths), ints(k_lengths), *extra, 0.2, 2, 2, 1, "BSND", kv_layout, 3, 2**62, 2**62, 2, 1, tile,
               ROPE, out)
    for b, (o, _, _) in enumerate(expected):
        near(out[b, :q_lengths[b]], o, dtype)
    with pytest.raises(aclnn.Failed, match="key is .*expected rows of 120 int8: 64 levels, 16 numbers of query's type and 6 scales"):
        aclnn.call(operator, q, keys, keys, index, None, None, table, ints(q_lengths), ints(k_lengths), *extra, 0.2, 2, 2, 1, "BSND", kv_layout, 3, 2**62, 2**62, 2, 1, 12,
                   ROPE, out)
