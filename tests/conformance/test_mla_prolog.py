"""MlaProlog V1 to V3 against plain PyTorch in float64."""

import struct

import pytest
import torch

import aclnn
from test_cache import near, pieces, turned

B, S, HIDDEN, LOW_QUERY, HEADS, PLAIN, LOW_KEY, ROTARY, PAGE = 3, 3, 48, 32, 4, 16, 64, 32, 4
TOKENS = B * S


class Case:
    """Arguments in the operator's order, and what they should give."""

    def __init__(self, dtype=torch.float32, weights=0, smooth=False, query_scale=1.0, key_scale=1.0):
        value = lambda *shape, by=1.0: (by * torch.randn(shape)).to(dtype)
        levels = lambda *shape: torch.randint(-127, 128, shape, dtype=torch.int8)
        scale = lambda *shape: 0.002 + 0.002 * torch.rand(shape)
        self.dtype, self.weights = dtype, weights
        whole = weights == 2
        self.x = levels(B, S, HIDDEN) if whole else value(B, S, HIDDEN)
        self.w_dq = levels(HIDDEN, LOW_QUERY) if whole else value(HIDDEN, LOW_QUERY, by=0.2)
        self.w_dkv_kr = levels(HIDDEN, LOW_KEY + ROTARY) if whole else value(HIDDEN, LOW_KEY + ROTARY, by=0.2)
        up = (LOW_QUERY, HEADS * (PLAIN + ROTARY))
        self.w_uq_qr = levels(*up) if weights else value(*up, by=0.2)
        self.w_uk = value(HEADS, PLAIN, LOW_KEY, by=0.2)
        self.gamma_cq, self.gamma_ckv = value(LOW_QUERY), value(LOW_KEY)
        self.sin, self.cos = value(B, S, ROTARY), value(B, S, ROTARY)
        self.scale_x = scale(TOKENS, 1) if whole else None
        self.scale_dq = scale(1, LOW_QUERY) if whole else None
        self.scale_dkv_kr = scale(1, LOW_KEY + ROTARY) if whole else None
        self.scale_uq_qr = scale(1, up[1]) if weights else None
        self.smooth = 0.5 + torch.rand(1, LOW_QUERY) if smooth else None
        self.query_scale, self.key_scale = query_scale, key_scale

    def inputs(self):
        return self.x, self.w_dq, self.w_uq_qr, self.w_uk, self.w_dkv_kr, self.gamma_cq, self.gamma_ckv, self.sin, self.cos

    def scales(self, ckv=None, ckr=None):
        return self.scale_x, self.scale_dq, self.scale_uq_qr, self.scale_dkv_kr, ckv, ckr, self.smooth

    def expected(self):
        """query, query_rope, the key's normalised row, its turned part, the norm and its scale."""
        d = lambda t: t.double()
        product = lambda a, b, rows, columns: d(a) @ d(b) * (1 if rows is None else d(rows)) * (1 if columns is None else d(columns))
        norm = lambda v, gamma: v / (v.square().mean(-1, keepdim=True) + 1e-5).sqrt() * d(gamma)
        x, sin, cos = self.x.reshape(TOKENS, -1), d(self.sin).reshape(TOKENS, -1), d(self.cos).reshape(TOKENS, -1)
        low = norm(product(x, self.w_dq, self.scale_x, self.scale_dq), self.gamma_cq) * self.query_scale
        rows = None
        if self.weights:
            low = low * (1 if self.smooth is None else d(self.smooth))
            rows = low.abs().amax(-1, keepdim=True) / 127
            low = (low / rows).round()
        heads = product(low, self.w_uq_qr, rows, self.scale_uq_qr).unflatten(-1, (HEADS, -1))
        key = product(x, self.w_dkv_kr, self.scale_x, self.scale_dkv_kr)
        query = torch.einsum("tnd,ndh->tnh", heads[..., :PLAIN], d(self.w_uk))
        rope = turned(heads[..., PLAIN:], cos.unsqueeze(1), sin.unsqueeze(1))
        return query, rope, norm(key[:, :LOW_KEY], self.gamma_ckv) * self.key_scale, turned(key[:, LOW_KEY:], cos, sin), low, rows


def outputs(dtype, query=None):
    return torch.empty(B, S, HEADS, LOW_KEY, dtype=query or dtype), torch.empty(B, S, HEADS, ROTARY, dtype=dtype)


def stored(cache, slots, width):
    return cache.reshape(-1, width)[slots].double()


def close(actual, expected, weights):
    # a level next to a half may fall either way: one step of 127
    if weights == 0:
        return near(actual, expected, torch.float32)
    step = expected.abs().max() / 127
    assert (actual.double() - expected).abs().max() <= 0.6 * step, (actual.double() - expected).abs().max() / step


@pytest.mark.parametrize("operator", ["MlaProlog", "MlaPrologV2WeightNz"])
@pytest.mark.parametrize("mode", ["PA_BSND", "PA_NZ", None])
@pytest.mark.parametrize("weights,smooth", [(0, False), (1, True), (1, False), (2, True)])
def test_prolog(operator, mode, weights, smooth):
    torch.manual_seed(weights)
    case = Case(weights=weights, smooth=smooth)
    slots = torch.randperm(5 * PAGE)[:TOKENS]
    index = slots.clone().reshape(B, S)
    index[1, 1] = -1
    dtype = torch.int8 if weights == 1 else torch.float32
    caches = torch.zeros(5, PAGE, 1, LOW_KEY, dtype=dtype), torch.zeros(5, PAGE, 1, ROTARY, dtype=dtype)
    scales = (20 + torch.rand(1, LOW_KEY), 10 + torch.rand(1, ROTARY)) if weights == 1 else (None, None)
    query, rope = outputs(torch.float32)
    extra = (None,) if operator == "MlaPrologV2WeightNz" else ()
    aclnn.call(operator, *case.inputs(), index, *caches, *case.scales(*scales), 1e-5, 1e-5, mode, query, rope, *extra)
    expected = case.expected()
    close(query.flatten(0, 1), expected[0], weights)
    close(rope.flatten(0, 1), expected[1], weights)
    for cache, rows, scale in zip(caches, expected[2:4], scales):
        if mode == "PA_NZ":
            piece = 32 // cache.element_size()
            cache = cache.reshape(5, -1, PAGE, piece).transpose(1, 2).reshape(cache.shape)
        mine = stored(cache, slots, rows.shape[1])
        assert mine[4].abs().max() == 0 and stored(cache, [i for i in range(5 * PAGE) if i not in slots.tolist()], rows.shape[1]).abs().max() == 0
        keep = [i for i in range(TOKENS) if i != 4]
        wanted = rows if scale is None else (rows * scale.double()).round().clamp(-128, 127)
        torch.testing.assert_close(mine[keep], wanted[keep], rtol=1e-5, atol=1.0 if scale is not None else 1e-4)


def call_v3(case, caches, index, scales, mode, lengths=None, alpha=None, kv=0, query_mode=0, tile=128, norm=None, norm_scale=None, query_scale=None):
    query, rope = outputs(torch.float32, torch.int8 if query_mode else None)
    merged = 1 if kv == 3 else 0
    aclnn.call("MlaPrologV3WeightNz", *case.inputs(), *caches, index, *case.scales(*scales), lengths, alpha, 1e-5, 1e-5, mode, case.weights, kv,
               query_mode, merged, merged, tile, case.query_scale, case.key_scale, query, rope, query_scale, norm, norm_scale)
    return query.flatten(0, 1), rope.flatten(0, 1)


@pytest.mark.parametrize("mode", ["PA_BLK_BSND", "PA_BLK_NZ", "BSND"])
@pytest.mark.parametrize("weights", [0, 1, 2])
def test_v3_places(weights, mode):
    torch.manual_seed(weights)
    case = Case(weights=weights, query_scale=1.5, key_scale=0.75)
    page = 2
    if mode == "BSND":
        shape, index, slots = (B, S), None, torch.arange(TOKENS)
    else:
        shape, index = (8, page), torch.randperm(8)[:6].reshape(B, 2)
        slots = torch.tensor([index[b, s // page] * page + s % page for b in range(B) for s in range(S)])
    caches = torch.zeros(*shape, 1, LOW_KEY), torch.zeros(*shape, 1, ROTARY)
    norm = torch.empty(B, S, LOW_QUERY, dtype=torch.int8 if weights else torch.float32)
    norm_scale = torch.empty(TOKENS, 1) if weights else None
    query, rope = call_v3(case, caches, index, (None, None), mode, norm=norm, norm_scale=norm_scale)
    expected = case.expected()
    close(query, expected[0], weights)
    close(rope, expected[1], weights)
    if weights:
        assert (norm.reshape(TOKENS, -1).double() - expected[4]).abs().max() <= 1
        near(norm_scale, expected[5], torch.float32)
    else:
        near(norm.reshape(TOKENS, -1), expected[4], torch.float32)
    for cache, rows in zip(caches, expected[2:4]):
        if mode == "PA_BLK_NZ":
            cache = cache.reshape(8, -1, page, 8).transpose(1, 2).reshape(cache.shape)
        torch.testing.assert_close(stored(cache, slots, rows.shape[1]), rows, rtol=1e-5, atol=1e-4)


def test_v3_tokens_of_batches_with_lengths():
    torch.manual_seed(0)
    case = Case()
    case.x, case.sin, case.cos = (t.flatten(0, 1) for t in (case.x, case.sin, case.cos))
    ends, page = torch.tensor([4, 5, 9], dtype=torch.int32), 2
    blocks, slots, entry = torch.randperm(8)[:5], [], 0
    for begin, end in zip([0, 4, 5], ends.tolist()):
        slots += [blocks[entry + i // page].item() * page + i % page for i in range(end - begin)]
        entry += (end - begin + page - 1) // page
    caches = torch.zeros(8, page, 1, LOW_KEY), torch.zeros(8, page, 1, ROTARY)
    call_v3(case, caches, blocks, (None, None), "PA_BLK_BSND", lengths=ends)
    for cache, rows in zip(caches, case.expected()[2:4]):
        torch.testing.assert_close(stored(cache, slots, rows.shape[1]), rows, rtol=1e-5, atol=1e-4)
    rows = torch.zeros(TOKENS, 1, LOW_KEY), torch.zeros(TOKENS, 1, ROTARY)
    call_v3(case, rows, None, (None, None), "TND")
    torch.testing.assert_close(rows[0].squeeze(1).double(), case.expected()[2], rtol=1e-5, atol=1e-4)


def test_v3_quantised_query():
    torch.manual_seed(0)
    case = Case(weights=2)
    caches = torch.zeros(5, PAGE, 1, LOW_KEY, dtype=torch.int8), torch.zeros(5, PAGE, 1, ROTARY)
    index, ckv, scales = torch.arange(TOKENS).reshape(B, S), torch.tensor([17.0]), torch.empty(TOKENS, HEADS, 1)
    query, rope = call_v3(case, caches, index, (ckv, None), "PA_BSND", kv=1, query_mode=1, query_scale=scales)
    expected = case.expected()
    near_scales = expected[0].abs().amax(-1, keepdim=True) / 127
    torch.testing.assert_close(scales.double(), near_scales, rtol=2e-2, atol=0)
    assert (query.double() * scales.double() - expected[0]).abs().max() <= 1.5 * near_scales.max()
    close(rope.double() * scales.double() / 17, expected[1], 2)
    assert (caches[0].reshape(-1, LOW_KEY)[:TOKENS].double() - (expected[2] * 17).round().clamp(-128, 127)).abs().max() <= 1
    near(caches[1].reshape(-1, ROTARY)[:TOKENS], expected[3], torch.float32)


@pytest.mark.parametrize("alpha", [None, 0.5])
def test_v3_tiles(alpha):
    torch.manual_seed(0)
    case, tile = Case(weights=1), 16
    width = LOW_KEY + ROTARY * 4 + LOW_KEY // tile * 4
    cache, index = torch.zeros(5, PAGE, 1, width, dtype=torch.int8), torch.arange(TOKENS).reshape(B, S) + 3
    call_v3(case, (cache, torch.zeros(0, PAGE, 1, ROTARY)), index, (None, None), "PA_BSND", kv=3, tile=tile,
            alpha=None if alpha is None else torch.tensor([alpha]))
    _, _, key, turned_key, *_ = case.expected()
    rows = cache.reshape(-1, width)[3:3 + TOKENS]
    scale = key.unflatten(-1, (-1, tile)).abs().amax(-1) / 127 * (alpha or 1)
    levels = (key.unflatten(-1, (-1, tile)) / scale.unsqueeze(-1)).round().clamp(-128, 127).flatten(1)
    assert (rows[:, :LOW_KEY].double() - levels).abs().max() <= 1
    floats = torch.tensor([struct.unpack(f"{ROTARY + LOW_KEY // tile}f", bytes(r[LOW_KEY:].view(torch.uint8).tolist())) for r in rows])
    near(floats[:, :ROTARY], turned_key, torch.float32)
    near(floats[:, ROTARY:], scale, torch.float32)


def test_wrong_arguments():
    case = Case()
    caches = torch.zeros(5, PAGE, 1, LOW_KEY), torch.zeros(5, PAGE, 1, ROTARY)
    index = torch.arange(TOKENS).reshape(B, S)
    with pytest.raises(aclnn.Failed, match="cacheModeOptional is PA_X, expected PA_BSND"):
        call_v3(case, caches, index, (None, None), "PA_X")
    with pytest.raises(aclnn.Failed, match="cacheIndex has 99, expected a value below 20"):
        call_v3(case, caches, index + 99, (None, None), "PA_BSND")
    case.weights = 3
    with pytest.raises(aclnn.Failed, match="weightQuantMode is 3, expected 0"):
        call_v3(case, caches, index, (None, None), "PA_BSND")
    case.weights, case.scale_uq_qr = 0, torch.ones(1, HEADS * (PLAIN + ROTARY))
    with pytest.raises(aclnn.Failed, match="weightUqQr is .*dequantScaleWUqQrOptional is given"):
        call_v3(case, caches, index, (None, None), "PA_BSND")
