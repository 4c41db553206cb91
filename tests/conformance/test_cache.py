"""Paged caches, what writes and reads them, and rotary embeddings with their own tables, against plain PyTorch."""

import pytest
import torch

import aclnn
from test_norm import arrange

FLOATS = [torch.float32, torch.float16, torch.bfloat16]
TOLERANCE = {torch.float32: dict(rtol=1e-5, atol=1e-5), torch.float16: dict(rtol=4e-3, atol=4e-3), torch.bfloat16: dict(rtol=2e-2, atol=2e-2)}


def near(actual, expected, dtype):
    torch.testing.assert_close(actual.double(), expected.double(), **TOLERANCE[dtype])


def value(shape, dtype):
    return (torch.randn(shape) * 20).to(dtype)


def pieces(cache, piece):
    """[blocks, page, ..] as [blocks, width / piece, page, piece]."""
    blocks, page = cache.shape[:2]
    return cache.reshape(blocks, page, -1, piece).transpose(1, 2).contiguous()


@pytest.mark.parametrize("dtype", [*FLOATS, torch.int8, torch.int32])
@pytest.mark.parametrize("slots", [torch.int32, torch.int64])
@pytest.mark.parametrize("layout", ["contiguous", "transposed"])
def test_scatter(layout, slots, dtype):
    blocks, page, heads = 5, 8, 3
    key, val = arrange(value((7, heads, 32), dtype), layout), arrange(value((7, heads, 64), dtype), layout)
    kc, vc = value((blocks, page, heads, 32), dtype), value((blocks, page, heads, 64), dtype)
    mapping = torch.randperm(blocks * page)[:7].to(slots)
    mapping[2] = -1
    expected = kc.clone(), vc.clone()
    for i, slot in enumerate(mapping.tolist()):
        if slot >= 0:
            expected[0][slot // page, slot % page], expected[1][slot // page, slot % page] = key[i], val[i]
    mine = kc.clone(), vc.clone()
    aclnn.call("ScatterPaKvCache", key, mine[0], mapping, val, mine[1], None, None, None, "Norm", None, None, None)
    assert torch.equal(mine[0], expected[0]) and torch.equal(mine[1], expected[1])
    single = kc.clone()
    aclnn.call("ScatterPaCache", key, single, mapping, None, None, None, "Norm")
    assert torch.equal(single, expected[0])
    piece = 32 // key.element_size()
    mine = pieces(kc, piece), pieces(vc, piece)
    aclnn.call("ScatterPaKvCache", key, mine[0], mapping, val, mine[1], None, None, None, "PA_NZ", None, None, None)
    assert torch.equal(mine[0], pieces(expected[0], piece)) and torch.equal(mine[1], pieces(expected[1], piece))


@pytest.mark.parametrize("dtype", [*FLOATS, torch.int8])
@pytest.mark.parametrize("cumulative", [False, True])
@pytest.mark.parametrize("mode", ["Norm", "PA_NZ"])
def test_gather(mode, cumulative, dtype):
    blocks, page, heads, lengths = 9, 4, 3, [5, 0, 9]
    kc, vc = value((blocks, page, heads, 32), dtype), value((blocks, page, heads, 64), dtype)
    table, offset = torch.randperm(blocks).reshape(3, 3).to(torch.int32), torch.tensor([5, 0, 4], dtype=torch.int32)
    numbers = torch.tensor([0, 5, 5, 14] if cumulative else lengths, dtype=torch.int32)
    piece = 32 // kc.element_size()
    caches = (pieces(kc, piece), pieces(vc, piece)) if mode == "PA_NZ" else (kc, vc)
    for start in (None, offset):
        rows = []
        for b, n in enumerate(lengths):
            first = 0 if start is None else start[b].item() // page
            for i in range(n):
                block = first + i // page
                rows.append((table[b, block].item(), i % page) if block < 3 else None)
        expected = [torch.stack([torch.zeros_like(c[0, 0]) if r is None else c[r] for r in rows]) for c in (kc, vc)]
        key, val = torch.empty(14, heads, 32, dtype=dtype), torch.empty(14, heads, 64, dtype=dtype)
        aclnn.call("GatherPaKvCache", *caches, table, numbers, key, val, start, mode, cumulative)
        assert torch.equal(key, expected[0]) and torch.equal(val, expected[1])


def turned(x, cos, sin):
    """Even and odd numbers apart, then rotated as halves."""
    y = torch.cat([x[..., ::2], x[..., 1::2]], -1)
    half = y.shape[-1] // 2
    return y * cos + torch.cat([-y[..., half:], y[..., :half]], -1) * sin


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("mode", ["Norm", "PA", "PA_BNSD", "PA_NZ", "PA_BLK_BNSD", "PA_BLK_NZ"])
@pytest.mark.parametrize("quantised", [False, True])
@pytest.mark.parametrize("with_v", [False, True])
def test_kv_rms_norm_rope(mode, dtype, quantised, with_v):
    batch, tokens, page, rope = 2, 5, 4, 32
    norm = 96 if with_v else 64
    widths = (96, 64) if with_v else (rope, norm)  # of the key cache and the other
    kv = torch.randn(batch, 1, tokens, norm if with_v else norm + rope).to(dtype)
    gamma, cos, sin = torch.randn(norm).to(dtype), torch.randn(batch, 1, tokens, rope).to(dtype), torch.randn(batch, 1, tokens, rope).to(dtype)
    v = torch.randn(batch, 1, tokens, widths[1]).to(dtype) if with_v else None
    x = kv.double()
    normed = x[..., :norm] / (x[..., :norm].square().mean(-1, keepdim=True) + 1e-5).sqrt() * gamma.double()
    if with_v:
        key, other = torch.cat([turned(normed[..., :rope], cos.double(), sin.double()), normed[..., rope:]], -1), v.double()
    else:
        key, other = turned(x[..., norm:], cos.double(), sin.double()), normed
    shape = (batch, 1, 11) if mode == "Norm" else (6, page, 1)
    stored = torch.int8 if quantised else dtype
    caches = [torch.full((*shape, w), 9).to(stored) for w in widths]
    scales = [torch.rand(w) * 20 for w in widths] if quantised else [None, None]
    offsets = [torch.randn(w) for w in widths] if quantised else [None, None]
    if "BLK" in mode:
        blocks = torch.tensor([[3, 0], [5, -1]])
        index = torch.where(blocks < 0, -1, blocks * page).flatten()
        slots = [[blocks[b, s // page].item() * page + s % page if blocks[b, s // page] >= 0 else -1 for s in range(tokens)] for b in range(batch)]
    elif mode == "Norm":
        index = torch.stack([torch.randperm(11)[:tokens] for _ in range(batch)])
        index[1, 2] = -1
        slots = [[b * 11 + i if i >= 0 else -1 for i in row] for b, row in enumerate(index.tolist())]
    else:
        index = torch.randperm(6 * page)[:batch * tokens]
        index[3] = -1
        slots = index.reshape(batch, tokens).tolist()
    expected = []
    for rows, w, scale, offset in zip((key, other), widths, scales, offsets):
        lines = torch.full((batch * 11 if mode == "Norm" else 6 * page, w), 9.0, dtype=torch.float64)
        if quantised:
            rows = (rows * scale.double() + offset.double()).round().clamp(-128, 127)
        for b in range(batch):
            for s in range(tokens):
                if slots[b][s] >= 0:
                    lines[slots[b][s]] = rows[b, 0, s]
        lines = lines.reshape(*shape, w)
        if mode.endswith("NZ"):
            lines = pieces(lines, 32 // caches[0].element_size()).reshape(*shape, w)
        expected.append(lines)
    if mode.endswith("NZ"):
        assert all((c == 9).all() for c in caches)
    out = torch.empty(batch, 1, tokens, widths[0], dtype=dtype), torch.empty(batch, 1, tokens, widths[1], dtype=dtype)
    op, extra = ("KvRmsNormRopeCacheV2", [v]) if with_v else ("KvRmsNormRopeCache", [])
    aclnn.call(op, kv, gamma, cos, sin, index, *caches, *scales, *offsets, *extra, 1e-5, mode, True, *out)
    near(out[0], key, dtype)
    near(out[1], other, dtype)
    for mine, right in zip(caches, expected):
        if quantised:
            assert (mine.double() - right).abs().max() <= 1
        else:
            near(mine, right, dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("heads", [1, 3])
def test_interleave_rope(dtype, heads):
    x, cos, sin = torch.randn(2, heads, 5, 64).to(dtype), torch.randn(2, 1, 5, 64).to(dtype), torch.randn(2, 1, 5, 64).to(dtype)
    out = torch.empty_like(x)
    aclnn.call("InterleaveRope", x, cos, sin, out)
    near(out, turned(x.double(), cos.double(), sin.double()), dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("neox", [True, False])
@pytest.mark.parametrize("mode,sections", [(0, None), (0, [4, 6, 6]), (1, [6, 5, 5]), (0, [4, 4, 4, 4])])
def test_rope_with_cache(mode, sections, neox, dtype):
    tokens, head, rotated = 7, 48, 32
    q, k, table = torch.randn(tokens, 3 * head).to(dtype), torch.randn(tokens, 2 * head).to(dtype), torch.randn(50, rotated).to(dtype)
    positions = torch.randint(0, 50, (tokens,) if sections is None else (len(sections), tokens))
    cos, sin = table.double()[positions].chunk(2, -1)
    if sections is not None and mode == 0:
        cos, sin = (torch.cat([part[i] for i, part in enumerate(t.split(sections, -1))], -1) for t in (cos, sin))
    elif sections is not None:
        first = cos[0].clone(), sin[0].clone()
        for i in (1, 2):
            for to, t in zip(first, (cos, sin)):
                to[:, i:3 * sections[1]:3] = t[i][:, i:3 * sections[1]:3]
        cos, sin = first

    def rope(x):
        x = x.double().reshape(tokens, -1, head)
        part = x[..., :rotated]
        a, b = part.chunk(2, -1) if neox else (part[..., ::2], part[..., 1::2])
        c, s = cos[:, None], sin[:, None]
        a, b = a * c - b * s, b * c + a * s
        return torch.cat([torch.cat([a, b], -1) if neox else torch.stack([a, b], -1).flatten(-2), x[..., rotated:]], -1).flatten(1)

    out = torch.empty_like(q), torch.empty_like(k)
    aclnn.call("RopeWithSinCosCacheV2", positions, q, k, table, sections, head, neox, mode, *out)
    near(out[0], rope(q), dtype)
    near(out[1], rope(k), dtype)
    if mode == 0:
        out = torch.empty_like(q), torch.empty_like(k)
        aclnn.call("RopeWithSinCosCache", positions, q, k, table, sections, head, neox, *out)
        near(out[0], rope(q), dtype)


def test_errors():
    key, cache, slots = torch.randn(3, 2, 16), torch.randn(4, 8, 2, 16), torch.tensor([1, 2, 99])
    for words, call in (
            ("slotMapping has 99", lambda: aclnn.call("ScatterPaKvCache", key, cache, slots, key, cache.clone(), None, None, None, "Norm", None, None, None)),
            ("cacheMode is Odd", lambda: aclnn.call("ScatterPaCache", key, cache, slots, None, None, None, "Odd")),
            ("rows of 32", lambda: aclnn.call("ScatterPaCache", key, cache[..., :8].contiguous(), slots, None, None, None, "Norm")),
            ("compressed caches", lambda: aclnn.call("ScatterPaCache", key, cache, slots, torch.ones(3, dtype=torch.int64), None, None, "Norm")),
            ("positions has 9", lambda: aclnn.call("RopeWithSinCosCache", torch.tensor([1, 9]), torch.randn(2, 8), torch.randn(2, 8), torch.randn(4, 8), None, 8, True,
                                                   torch.empty(2, 8), torch.empty(2, 8))),
            ("adds up to 3", lambda: aclnn.call("RopeWithSinCosCache", torch.ones(3, 2, dtype=torch.int64), torch.randn(2, 8), torch.randn(2, 8), torch.randn(4, 8),
                                                [1, 1, 1], 8, True, torch.empty(2, 8), torch.empty(2, 8)))):
        with pytest.raises(RuntimeError, match=words):
            call()
