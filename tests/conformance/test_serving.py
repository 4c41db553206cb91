"""Steps of serving: projections into caches, the next step's inputs, blocks; against plain PyTorch."""

import pytest
import torch

import aclnn
from test_cache import FLOATS, near, pieces


def halves(x, cos, sin):
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


def quantised(x, scale, offset):
    return (x / scale.double() + (0 if offset is None else offset.double())).round().clamp(-128, 127)


def scattered(cache, rows, slots):
    """[blocks, page, N, D] with rows [T, N, D] in their slots."""
    cache = cache.double()
    for row, slot in zip(rows, slots.tolist()):
        if slot >= 0:
            cache[slot // cache.shape[1], slot % cache.shape[1]] = row
    return cache


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("mode", ["PA_NZ", "PA_BNSD"])
@pytest.mark.parametrize("levels,offsets,outputs,per_batch", [(True, True, True, False), (True, False, False, True), (False, False, True, False)])
def test_qkv_rms_norm_rope_cache(levels, offsets, outputs, per_batch, mode, dtype):
    torch.manual_seed(0)
    b, s, heads, d, blocks, page = 3, 2, [4, 2, 2], 32, 4, 5
    qkv, gammas = torch.randn(b * s, sum(heads) * d).to(dtype), [torch.randn(d).to(dtype) for _ in range(2)]
    cos, sin = (torch.randn(b if per_batch else b * s, d).to(dtype) for _ in range(2))
    index = torch.randperm(blocks * page)[:b * s]
    index[3] = -1
    stored = torch.int8 if levels else dtype
    caches = [(torch.randn(blocks, page, n, d) * 20).to(stored) for n in heads[1:]]
    scales = [0.05 + 0.1 * torch.rand(n, d) for n in heads[1:]] if levels else [None, None]
    shifts = [torch.randn(n, d) * 5 for n in heads[1:]] if offsets else [None, None]
    mine = [pieces(c, 16) if mode == "PA_NZ" else c.clone() for c in caches]
    query, outs = torch.empty(b * s, heads[0] * d, dtype=dtype), [torch.empty(b * s, n * d, dtype=dtype) if outputs else None for n in heads]
    aclnn.call("QkvRmsNormRopeCache", qkv, *gammas, cos, sin, index, query, *mine, *scales, *shifts, [b, s, sum(heads), d], heads, 1e-6, mode, *outs)
    parts = [p.unflatten(-1, (-1, d)).double() for p in qkv.split([n * d for n in heads], -1)]
    rows = lambda t: t.double().repeat_interleave(s if per_batch else 1, 0).unsqueeze(1)
    made = [halves(p / (p.square().mean(-1, keepdim=True) + 1e-6).sqrt() * g.double(), rows(cos), rows(sin)) for p, g in zip(parts, gammas)] + [parts[2]]
    near(query, made[0].flatten(1), dtype)
    for out, wanted in zip(outs, made):
        if outputs:
            near(out, wanted.flatten(1), dtype)
    for got, before, wanted, scale, shift in zip(mine, caches, made[1:], scales, shifts):
        expected = scattered(before, quantised(wanted, scale, shift) if levels else wanted, index)
        expected = pieces(expected, 16) if mode == "PA_NZ" else expected
        if levels:
            assert (got.double() - expected).abs().max() <= 1
        else:
            near(got, expected, dtype)


@pytest.mark.parametrize("mode", ["contiguous", "page"])
@pytest.mark.parametrize("kind", ["floats", "sums", "sums and bias", "sums and whole bias"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_dequant_rope_quant_kvcache(dtype, kind, mode):
    torch.manual_seed(0)
    b, s, heads, d = 2, 3, [4, 2, 2], 16
    width = sum(heads) * d
    sums = kind != "floats"
    x = torch.randint(-5000, 5000, (b, s, width), dtype=torch.int32) if sums else torch.randn(b, s, width).to(dtype)
    weight, rows = (0.0005 * (1 + torch.rand(width)), 0.5 + torch.rand(b * s)) if sums else (None, None)
    bias = {"sums and bias": torch.randn(width), "sums and whole bias": torch.randint(-500, 500, (width,), dtype=torch.int32)}.get(kind)
    cos, sin = (torch.randn(b, s, 1, d).to(dtype) for _ in range(2))
    scales = [0.05 + 0.05 * torch.rand(2, d) for _ in range(2)]
    shape, index = ((b, 8, 2, d), torch.tensor([1, 5], dtype=torch.int32)) if mode == "contiguous" else ((3, 4, 2, d), torch.randperm(12)[:b * s].to(torch.int32))
    caches = [torch.randint(-100, 100, shape, dtype=torch.int8) for _ in range(2)]
    mine = [c.clone() for c in caches]
    q, k, v = (torch.empty(b, s, n, d, dtype=dtype) for n in heads)
    aclnn.call("DequantRopeQuantKvcache", x, cos, sin, *mine, index, *scales, None, None, weight, rows, bias, [n * d for n in heads], "static", "BSND", True, mode, q, k, v)
    plain = x.double().reshape(b * s, width)
    if sums:
        plain = (plain + (bias.double() if kind.endswith("whole bias") else 0)) * weight.double() * rows.double()[:, None] + (bias.double() if kind == "sums and bias" else 0)
    parts = [p.unflatten(-1, (-1, d)) for p in plain.split([n * d for n in heads], -1)]
    angles = [t.double().reshape(b * s, 1, d) for t in (cos, sin)]
    made = [halves(parts[0], *angles), halves(parts[1], *angles), parts[2]]
    for got, wanted in zip((q, k, v), made):
        near(got.flatten(0, 1), wanted, dtype)
    slots = index if mode == "page" else torch.cat([torch.arange(s) + i * 8 + index[i] for i in range(b)])
    for got, before, wanted, scale in zip(mine, caches, made[1:], scales):
        assert (got.double() - scattered(before, quantised(wanted, scale, None), slots)).abs().max() <= 1


@pytest.mark.parametrize("mode", [0, 1, 2])
@pytest.mark.parametrize("dtype", FLOATS)
def test_partial_rotary(dtype, mode):
    x, cos, sin = (torch.randn(shape).to(dtype) for shape in ((5, 3, 48), (5, 1, 32), (5, 1, 32)))
    mine = x.clone()
    aclnn.call("InplacePartialRotaryMul", mine, cos, sin, mode, [8, 40])
    part = x[..., 8:40].contiguous()
    turned = torch.empty_like(part)
    v = part.double()
    if mode == 0:
        turned = halves(v, cos.double(), sin.double())
    elif mode == 1:
        turned = v * cos.double() + torch.stack([-v[..., 1::2], v[..., ::2]], -1).flatten(-2) * sin.double()
    else:
        q = v.unflatten(-1, (2, 2, 8))
        turned = v * cos.double() + torch.stack([-q[..., 1, :], q[..., 0, :]], -2).flatten(-3) * sin.double()
    near(mine[..., 8:40], turned, dtype)
    assert torch.equal(mine[..., :8], x[..., :8]) and torch.equal(mine[..., 40:], x[..., 40:])
    with pytest.raises(aclnn.Failed, match=r"partialSlice has 2 values \(8 and 60\)"):
        aclnn.call("InplacePartialRotaryMul", mine, cos, sin, mode, [8, 60])


@pytest.mark.parametrize("operator", ["AdvanceStep", "AdvanceStepV2"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_advance_step(dtype, operator):
    sequences, queries, block = 6, 4, 3
    tokens, positions, slots = (torch.randint(5, 50, (sequences,)).to(dtype) for _ in range(3))
    lengths, sampled = torch.tensor([2, 7, 0, 11, 4, 4], dtype=dtype), torch.randint(0, 99, (queries, 1)).to(dtype)
    table = torch.randint(0, 40, (sequences, 5)).to(dtype)
    before = lengths.clone()
    extra = (None, None) if operator == "AdvanceStepV2" else ()
    aclnn.call(operator, tokens, sampled, positions, lengths, slots, table, *extra, sequences, queries, block)
    zeros = torch.zeros(2, dtype=dtype)
    assert torch.equal(tokens, torch.cat([sampled[:, 0], zeros])) and torch.equal(positions, torch.cat([before[:queries], zeros]))
    assert torch.equal(lengths[:queries], before[:queries] + 1) and torch.equal(lengths[queries:], before[queries:])
    expected = [(table[0, p // block] + 5 * i) * block + p % block for i, p in enumerate(before[:queries].tolist())]
    assert slots.tolist() == [int(v) for v in expected] + [-1, -1]


def test_advance_step_with_proposals():
    n, proposed, block = 5, 2, 4
    tokens, positions, lengths, slots = (torch.randint(0, 20, (n * (proposed + 1),)) for _ in range(4))
    sampled = torch.tensor([[5, -1, -1], [7, 8, -1], [9, 10, 11], [3, 2, 4], [0, -1, -1]])
    table, spec, accepted = torch.randint(0, 40, (n, 8)), torch.randint(0, 99, (n, proposed)), torch.tensor([0, 1, 2, 2, 0])
    before = positions.clone()
    aclnn.call("AdvanceStepV2", tokens, sampled, positions, lengths, slots, table, spec, accepted, n, n, block)
    wanted = before + accepted.repeat_interleave(proposed + 1) + 1
    last = torch.cat([sampled, torch.full((n, 1), -1)], 1).argmin(1) - 1
    assert torch.equal(tokens.view(n, -1), torch.cat([sampled[torch.arange(n), last][:, None], spec], 1))
    assert torch.equal(positions, wanted) and torch.equal(lengths, wanted + 1)
    rows = torch.arange(n).repeat_interleave(proposed + 1)
    assert torch.equal(slots, table[rows, wanted // block] * block + wanted % block)
    with pytest.raises(aclnn.Failed, match="sequence 0 goes on at position 1.*, beyond the 8 blocks of 1"):
        aclnn.call("AdvanceStepV2", tokens, sampled, positions + 100, lengths, slots, table, spec, accepted, n, n, 1)


@pytest.mark.parametrize("slots", [[2, 3, 4, 5, 6, 7, 8], [9, -1, 10, 11, 3, 2, 1], [-1, -1], [0, 4, 8, 12]])
@pytest.mark.parametrize("dtype", [torch.int8, torch.bfloat16])
def test_store_blocks(dtype, slots):
    page, width = 4, 6
    keys, cache = (torch.randn(len(slots), width) * 20).to(dtype), (torch.randn(5, page, 1, width) * 20).to(dtype)
    mapping = torch.tensor(slots, dtype=torch.int32)
    groups = [torch.empty(len(slots), dtype=torch.int32) for _ in range(3)]
    aclnn.call("StoreKvBlockMetadata", mapping, *groups, page)
    expected = scattered(cache, keys.double().unsqueeze(1), mapping)
    mine = cache.clone()
    aclnn.call("StoreKVBlock", keys, mine, *groups, page)
    assert torch.equal(mine.double(), expected)
    for size, row, slot in zip(*(g.tolist() for g in groups)):
        assert size == 0 or (slot // page == (slot + size - 1) // page and slots[row:row + size] == list(range(slot, slot + size)))


@pytest.mark.parametrize("split", [1, 2, 4])
def test_transpose_blocks(split):
    layers, blocks, page, heads, dim = 2, 7, 3, 4, 8
    caches = [[torch.randn(blocks, page, heads, dim).half() for _ in range(layers)] for _ in range(2)]
    ids = torch.tensor([5, 0, 3])
    mine = [[t.clone() for t in part] for part in caches]
    aclnn.call("TransposeKvCacheByBlock", *mine, ids, page, heads, dim, split, layers)
    for got, before in zip(mine[0] + mine[1], caches[0] + caches[1]):
        expected = before.clone()
        for i in ids.tolist():
            expected[i] = before[i].reshape(split, page, -1).transpose(0, 1).reshape(page, heads, dim)
        assert torch.equal(got, expected)


def test_scatter_nd_update_v2():
    cache, updates, index = torch.randn(9, 4), torch.randn(3, 4), torch.tensor([[7], [0], [3]])
    expected = cache.clone()
    expected[index[:, 0]] = updates
    aclnn.call("ScatterNdUpdateV2", cache, index, updates, [4, 1])
    assert torch.equal(cache, expected)


def expanded(tokens, positions, following, starts, ends, pad, draft, slots, shift):
    """The inputs of a draft model: each request's rows, the token that follows, drafts to come, and what was rejected."""
    rows, masked, rejected, fresh, mapping, at = [], [], [], [], torch.zeros(len(tokens), dtype=torch.int32), []
    for r, (begin, end, last) in enumerate(zip(starts, starts[1:], ends)):
        own = tokens[begin + 1:last + 1] if shift else tokens[begin:last + 1]
        first, dropped = len(rows), end - last - 1
        fresh += range(first + len(own), first + len(own) + slots)
        rows += [*own, following[r], *[draft] * (slots - 1), *[pad] * dropped]
        at += [positions[begin] + j for j in range(len(own) + slots)] + [0] * dropped
        rejected += [0] * (len(own) + slots) + [1] * dropped
        masked += [0] * (len(own) + 1) + [1] * (slots - 1) + [0] * dropped
        if shift:
            mapping[begin:end] = torch.arange(first, first + end - begin)
    return rows, at, rejected, masked, fresh, mapping.tolist()


@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("slots", [1, 3])
def test_expand_inputs(slots, shift):
    starts, ends = [0, 4, 9, 12], [3, 6, 11]
    tokens, positions, following = torch.randint(0, 99, (12,)).tolist(), torch.randint(0, 50, (12,)).tolist(), [100, 101, 102]
    expected = expanded(tokens, positions, following, starts, ends, -7, -9, slots, shift)
    ints = lambda v: torch.tensor(v, dtype=torch.int32)
    count = len(expected[0])
    outs = [torch.full((count,), 55, dtype=t) for t in (torch.int32, torch.int32, torch.int8, torch.int8)] + [torch.full((n,), 55, dtype=torch.int32) for n in (3 * slots, 12)]
    aclnn.call("CopyAndExpandEagleInputs", ints(tokens), ints(positions), ints(following), ints(starts), ints(ends), -7, -9, slots, shift, 12, *outs)
    for got, wanted in zip(outs, expected):
        assert got.tolist() == [int(v) for v in wanted]
