"""Native sparse attention against plain PyTorch in float64."""

import math

import pytest
import torch

import aclnn
from test_cache import FLOATS, near

HEADS, KV, DIM, VALUE = 4, 2, 32, 24
GRADIENT = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}


def pairs(ends):
    return list(zip([0, *ends], ends))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("window,stride", [(8, 4), (6, 6), (5, 7)])
def test_compress(window, stride, dtype):
    ends = [3, 20, 20, 47]
    x, weight = torch.randn(50, KV, DIM).to(dtype), torch.randn(window, KV).to(dtype)
    xd, wd = x.double().requires_grad_(), weight.double().requires_grad_()
    expected = torch.stack([(xd[i:i + window] * wd.unsqueeze(-1)).sum(0) for a, b in pairs(ends) for i in range(a, b - window + 1, stride)])
    y = torch.empty(expected.shape, dtype=dtype)
    aclnn.call("NsaCompress", x, weight, ends, "TND", window, stride, 0, y)
    near(y, expected.detach(), dtype)
    grad = torch.randn(expected.shape).to(dtype)
    wanted = torch.autograd.grad(expected, (xd, wd), grad.double())
    gx, gw = torch.empty_like(x), torch.empty_like(weight)
    aclnn.call("NsaCompressGrad", grad, x, weight, ends, window, stride, 0, "TND", gx, gw)
    near(gx, wanted[0], dtype)
    torch.testing.assert_close(gw.double(), wanted[1], rtol=GRADIENT[dtype], atol=GRADIENT[dtype])


@pytest.mark.parametrize("dtype", FLOATS)
def test_compress_with_cache(dtype):
    page, window, stride, lengths = 6, 8, 4, [8, 20, 21, 5, 12]
    pages, table = torch.randn(25, page, KV, DIM).to(dtype), torch.randperm(25)[:20].reshape(5, 4).to(torch.int32)
    weight, cache = torch.randn(window, KV).to(dtype), torch.randn(9, KV, DIM).to(dtype)
    slots = torch.tensor([4, 0, 7, 2, 8], dtype=torch.int32)
    expected = cache.double()
    for b, n in enumerate(lengths):
        if n >= window and (n - window) % stride == 0:
            rows = torch.stack([pages[table[b, i // page], i % page] for i in range(n - window, n)]).double()
            expected[slots[b]] = (rows * weight.double().unsqueeze(-1)).sum(0)
    aclnn.call("NsaCompressWithCache", pages, weight, slots, lengths, table, "TND", window, stride, 0, page, cache)
    near(cache, expected, dtype)


def rated(weights, ratio, overlap, blocks):
    """Each block's score: the weights of the compressed keys before and in it, as often as pairs of strides meet in one."""
    scores = torch.zeros(blocks, dtype=torch.float64)
    for i in range(blocks):
        for m in range(ratio):
            for n in range(overlap):
                key = ratio * (i + 1) - m - n
                if 0 <= key < len(weights):
                    scores[i] += weights[key]
    return scores


def attend(q, k, v, scale, hidden):
    s = torch.einsum("qnd,knd->nqk", q, k.repeat_interleave(HEADS // KV, 1)) * scale + hidden.double() * -40000.0
    top = s.amax(-1)
    p = s.softmax(-1)
    return torch.einsum("nqk,knd->qnd", p, v.repeat_interleave(HEADS // KV, 1)), p, top.T, (s - top.unsqueeze(-1)).exp().sum(-1).T


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("masked", [True, False])
def test_compress_attention(masked, dtype):
    torch.manual_seed(0)
    q_ends, k_ends, block_ends, window, stride, block, count = [9, 20], [15, 26], [8, 14], 8, 4, 8, 4
    q, k, v = torch.randn(20, HEADS, DIM).to(dtype), torch.randn(26, KV, DIM).to(dtype), torch.randn(26, KV, VALUE).to(dtype)
    mask = torch.ones(11, 15, dtype=torch.bool).triu(1) if masked else None
    if masked:
        mask[3] = True
    rating = torch.eye(11, 8).bool() if masked else None
    out, top, total = torch.empty(20, HEADS, VALUE, dtype=dtype), torch.empty(20, HEADS, 8), torch.empty(20, HEADS, 8)
    named = torch.empty(20, KV, count, dtype=torch.int32)
    aclnn.call("NsaCompressAttention", q, k, v, mask, rating, q_ends, k_ends, block_ends, 0.2, HEADS, "TND", 1 if masked else 0, window, stride, block, count, top,
               total, out, named)
    for (q0, q1), (k0, k1), (b0, b1) in zip(pairs(q_ends), pairs(k_ends), pairs(block_ends)):
        hidden = mask[:q1 - q0, :k1 - k0] if masked else torch.zeros(q1 - q0, k1 - k0)
        wanted, p, tops, sums = attend(q[q0:q1].double(), k[k0:k1].double(), v[k0:k1].double(), 0.2, hidden)
        near(out[q0:q1], wanted, dtype)
        seen = ~hidden.bool().all(-1)
        torch.testing.assert_close(top[q0:q1, :, 0].double()[seen], tops[seen], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(total[q0:q1, :, 7].double()[seen], sums[seen], rtol=1e-3, atol=1e-3)
        for i in range(q1 - q0):
            for n in range(KV):
                scores = rated(p.unflatten(0, (KV, -1)).sum(1)[n, i], block // stride, window // stride, b1 - b0)
                if masked:
                    scores[rating[i, :b1 - b0]] = 23333.0
                mine = named[q0 + i, n].long()
                torch.testing.assert_close(scores[mine], scores.sort(descending=True)[0][:count], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("layout", ["TND", "BSND", "BSH"])
def test_inference(layout, dtype):
    torch.manual_seed(1)
    page, lengths, window, stride, block, count = 6, [20, 9, 24], 8, 4, 8, 6
    q = torch.randn(3, HEADS, DIM).to(dtype)
    k, v = torch.randn(13, page, KV, DIM).to(dtype), torch.randn(13, page, KV, VALUE).to(dtype)
    table = torch.randperm(13)[:12].reshape(3, 4).to(torch.int32)
    query, out = {"TND": (q, torch.empty(3, HEADS, VALUE, dtype=dtype)), "BSND": (q[:, None], torch.empty(3, 1, HEADS, VALUE, dtype=dtype)),
                  "BSH": (q.reshape(3, 1, -1), torch.empty(3, 1, HEADS * VALUE, dtype=dtype))}[layout]
    named = torch.empty(3, KV, count, dtype=torch.int32)
    aclnn.call("NsaCompressAttentionInfer", query.contiguous(), k.flatten(2), v.flatten(2), None, table, None, lengths, None, None, HEADS, KV, block, count, window,
               stride, 0.2, layout, page, 0, out, named)
    rows = lambda t, b, n: torch.stack([t[table[b, i // page], i % page] for i in range(n)]).double()
    for b, n in enumerate(lengths):
        wanted, p, _, _ = attend(q[b:b + 1].double(), rows(k, b, n), rows(v, b, n), 0.2, torch.zeros(1, n))
        near(out[b].reshape(1, HEADS, VALUE), wanted, dtype)
        blocks = math.ceil(((n - 1) * stride + window) / block)
        for h in range(KV):
            scores = rated(p.unflatten(0, (KV, -1)).sum(1)[h, 0], block // stride, window // stride, blocks)
            mine = named[b, h].tolist()
            assert mine[:3] == [0, blocks - 2, blocks - 1]
            others = scores[1:-2].sort(descending=True)[0][:count - 3]
            torch.testing.assert_close(scores[[m for m in mine[3:] if m >= 0]], others, rtol=1e-3, atol=1e-3)
            assert mine[3 + len(others):] == [-1] * (count - 3 - len(others))
    # over the blocks that are named: 4 rows each
    index = torch.stack([torch.stack([torch.randperm(math.ceil(n / 4))[:3] for _ in range(KV)]) if n > 9 else torch.tensor([[0, 2, -1], [1, -1, -1]]) for n in lengths])
    aclnn.call("NsaSelectedAttentionInfer", query.contiguous(), k.flatten(2), v.flatten(2), index.to(torch.int32), None, table, None, lengths, layout, HEADS, KV, 4, 3,
               page, 0.2, 0, out)
    for b, n in enumerate(lengths):
        hidden = torch.ones(KV, n)
        for h in range(KV):
            for i in index[b, h].tolist():
                if i >= 0:
                    hidden[h, i * 4:(i + 1) * 4] = 0
        wanted, *_ = attend(q[b:b + 1].double(), rows(k, b, n), rows(v, b, n), 0.2, hidden.repeat_interleave(HEADS // KV, 0)[:, None])
        near(out[b].reshape(1, HEADS, VALUE), wanted, dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("mode", [0, 1, 2, 3])
def test_selected_attention(mode, dtype):
    torch.manual_seed(2)
    q_ends, k_ends, block, count = [9, 20], [24, 40], 4, 3
    tensors = torch.randn(20, HEADS, DIM).to(dtype), torch.randn(40, KV, DIM).to(dtype), torch.randn(40, KV, VALUE).to(dtype)
    q, k, v = leaves = [t.double().requires_grad_() for t in tensors]
    index = torch.stack([torch.stack([torch.cat([torch.zeros(1), 1 + torch.randperm(3)[:count - 1]]) for _ in range(KV)]) for _ in range(20)]).to(torch.int32)
    mask = torch.rand(11, 24) > 0.7 if mode < 2 else None
    if mode < 2:
        mask[:, 0] = False
    parts, tops, sums = [], [], []
    for (q0, q1), (k0, k1) in zip(pairs(q_ends), pairs(k_ends)):
        hidden = torch.ones(KV, q1 - q0, k1 - k0)
        for i in range(q1 - q0):
            for h in range(KV):
                for j in index[q0 + i, h].tolist():
                    hidden[h, i, j * block:(j + 1) * block] = 0
        positions = torch.arange(k1 - k0)
        if mode < 2:
            hidden = torch.maximum(hidden, mask[:q1 - q0, :k1 - k0].float())
        else:
            last = torch.arange(q1 - q0) + (k1 - k0 - (q1 - q0) if mode == 3 else 0)
            hidden = torch.maximum(hidden, (positions > last.unsqueeze(-1)).float())
        wanted, _, top, total = attend(q[q0:q1], k[k0:k1], v[k0:k1], 0.2, hidden.repeat_interleave(HEADS // KV, 0))
        parts.append(wanted)
        tops.append(top)
        sums.append(total)
    expected = torch.cat(parts)
    out, top, total = torch.empty(20, HEADS, VALUE, dtype=dtype), torch.empty(20, HEADS, 8), torch.empty(20, HEADS, 8)
    aclnn.call("NsaSelectedAttention", *tensors, index, mask, q_ends, k_ends, 0.2, HEADS, "TND", mode, block, count, top, total, out)
    near(out, expected.detach(), dtype)
    torch.testing.assert_close(top[..., 0].double(), torch.cat(tops).detach(), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(total[..., 3].double(), torch.cat(sums).detach(), rtol=1e-3, atol=1e-3)
    grad = torch.randn(20, HEADS, VALUE).to(dtype)
    wanted = torch.autograd.grad(expected, leaves, grad.double())
    results = [torch.empty_like(t) for t in tensors]
    aclnn.call("NsaSelectedAttentionGrad", *tensors, out, grad, top, total, index, q_ends, k_ends, mask, 0.2, block, count, HEADS, "TND", mode, *results)
    for mine, e in zip(results, wanted):
        torch.testing.assert_close(mine.double(), e, rtol=GRADIENT[dtype], atol=GRADIENT[dtype])


def test_wrong_arguments():
    x, weight = torch.randn(10, KV, DIM), torch.randn(4, KV)
    with pytest.raises(aclnn.Failed, match="actSeqLenOptional has 30 after 3, expected a rising list up to 10"):
        aclnn.call("NsaCompress", x, weight, [3, 30], "TND", 4, 2, 0, torch.empty(0, KV, DIM))
    with pytest.raises(aclnn.Failed, match="compressBlockSize is 4 and compressStride 0"):
        aclnn.call("NsaCompress", x, weight, [3, 10], "TND", 4, 0, 0, torch.empty(0, KV, DIM))
