"""Attention for inference: every version's own parameters (pages, quantised caches, parts, prefixes) against plain float64 attention."""

import pytest
import torch

import aclnn

HUGE = 2147483647
TYPES = [torch.float32, torch.float16, torch.bfloat16]
TOLERANCE = {torch.float32: dict(rtol=1e-4, atol=1e-5), torch.float16: dict(rtol=4e-3, atol=4e-3), torch.bfloat16: dict(rtol=2e-2, atol=2e-2)}
# Parameters of the versions of FusedInferAttentionScore, in order; what a test does not give is absent.
TENSORS = ["pse", "mask", "q_lengths", "k_lengths", "deq1", "quant1", "deq2", "quant2", "offset2", "both_scale", "both_offset", "table", "q_pad", "kv_pad"]
SEPARATE = ["key_scale", "key_offset", "value_scale", "value_offset", "key_prefix", "value_prefix", "prefix_length"]
NUMBERS = [("heads", 1), ("scale", 1.0), ("before", HUGE), ("after", HUGE), ("layout", "BNSD"), ("kv_heads", 0), ("sparse", 0), ("precise", 0), ("block_size", 0),
           ("both_mode", 0), ("want_lse", False)]


def fused(version, q, k, v, out, lse=None, **given):
    names = list(TENSORS)
    if version >= 2:
        names += SEPARATE
    if version >= 3:
        names += ["q_rope", "k_rope", "rope_scale"]
    if version >= 4:
        names += ["query_scale", "sink"]
    if version >= 5:
        names += ["q_start", "k_start"]
    numbers = NUMBERS + ([("key_mode", 0), ("value_mode", 0)] if version >= 2 else []) + ([("query_mode", 0)] if version >= 4 else [])
    numbers += [("pse_type", 0)] if version >= 5 else []
    given = dict(given, want_lse=lse is not None)
    unknown = set(given) - set(names) - {n for n, _ in numbers}
    assert not unknown, unknown
    aclnn.call("FusedInferAttentionScore" + (f"V{version}" if version > 1 else ""), q, k if isinstance(k, list) else [k], v if isinstance(v, list) else [v],
               *[given.get(n) for n in names], *[given.get(n, default) for n, default in numbers], out, lse)


def attention(q, k, v, scale, hidden=None, bias=None, sink=None):
    """q [heads, queries, dim], k and v [kv heads, keys, dim]; returns the output and the logs of the sums."""
    group = q.shape[0] // k.shape[0]
    k, v = (t.double().repeat_interleave(group, 0) for t in (k, v))
    s = q.double() @ k.mT * scale
    if bias is not None:
        s = s + bias.double()
    if hidden is not None:
        s = s.masked_fill(hidden, -torch.inf)
    lse = s.logsumexp(-1, keepdim=True) if sink is None else torch.logaddexp(s.logsumexp(-1, keepdim=True), sink.double()[:, None, None])
    return (torch.exp(s - lse).nan_to_num() @ v), lse


def causal(queries, keys):
    """Hidden where a key is after the query, the last of both together."""
    return torch.arange(keys)[None] > torch.arange(queries)[:, None] + keys - queries


def near(actual, expected, dtype):
    torch.testing.assert_close(actual.double(), expected.double(), **TOLERANCE[dtype])


def pages(rows, lengths, page, spare=3):
    """[batches][kv heads, keys, dim] in pages [blocks, kv heads, page, dim], in a shuffled order, and the table."""
    counts = [(n + page - 1) // page for n in lengths]
    order = torch.randperm(sum(counts) + spare)
    heads, _, dim = rows[0].shape
    cache = torch.full((len(order), heads, page, dim), 99 if rows[0].dtype == torch.int8 else 1e4, dtype=torch.float64).to(rows[0].dtype)
    table = torch.full((len(lengths), max(counts) + 1), -1, dtype=torch.int32)
    at = 0
    for b, n in enumerate(lengths):
        for i in range(counts[b]):
            table[b, i] = order[at]
            part = rows[b][:, i * page:min(n, (i + 1) * page)]
            cache[order[at], :, :part.shape[1]] = part
            at += 1
    return cache, table


def form(cache, how):
    """Pages [blocks, heads, page, dim] as the caches that clients have."""
    if how == "BnNBsD":
        return cache
    if how == "BnBsH":
        return cache.transpose(1, 2).flatten(2).contiguous()
    if how == "BnBsND":
        return cache.transpose(1, 2).contiguous()
    return cache.unflatten(3, (-1, 16)).transpose(2, 3).contiguous()  # NZ


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("how", ["BnNBsD", "BnBsH", "BnBsND", "NZ"])
@pytest.mark.parametrize("version", [1, 2, 3, 4, 5])
def test_pages(version, how, dtype):
    """Packed queries (a token or a piece of the prompt of each sequence) over a paged cache, causal."""
    heads, kv, dim, page = 4, 2, 32, 16
    queries, keys = [1, 5, 1, 20], [33, 16, 1, 47]
    k, v = ([torch.randn(kv, n, dim).to(dtype) for n in keys] for _ in range(2))
    (kc, table), q = pages(k, keys, page), torch.randn(sum(queries), heads, dim).to(dtype)
    vc = torch.zeros_like(kc)
    for b, n in enumerate(keys):
        for j in range(n):
            vc[table[b, j // page], :, j % page] = v[b][:, j]
    expected, lse = zip(*[attention(part.transpose(0, 1), k[b], v[b], 0.2, causal(part.shape[0], keys[b])) for b, part in enumerate(q.split(queries))])
    out, sums = torch.empty_like(q), torch.empty(sum(queries), heads, 1)
    common = dict(table=table, k_lengths=keys, heads=heads, kv_heads=kv, scale=0.2, sparse=3, block_size=page, mask=torch.ones(2048, 2048, dtype=torch.int8).triu(1))
    fused(version, q, form(kc, how), form(vc, how), out, sums, q_lengths=torch.tensor(queries).cumsum(0).tolist(), layout="TND", **common)
    near(out, torch.cat([e.transpose(0, 1) for e in expected]), dtype)
    torch.testing.assert_close(sums.double(), torch.cat([s.transpose(0, 1) for s in lse]), rtol=1e-3, atol=2e-2 if dtype != torch.float32 else 1e-4)
    # One token of each, as a batch.
    one = torch.randn(4, heads, 1, dim).to(dtype)
    single = torch.stack([attention(one[b], k[b], v[b], 0.2)[0] for b in range(4)])
    for layout, x in (("BNSD", one), ("BSND", one.transpose(1, 2).contiguous()), ("BSH", one.transpose(1, 2).flatten(2).contiguous())):
        y = torch.empty_like(x)
        fused(version, x, form(kc, how), form(vc, how), y, layout=layout, **dict(common, mask=None))
        near(y.reshape(4, 1, heads, dim).transpose(1, 2) if layout != "BNSD" else y, single, dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("mode", range(6))
def test_quantised_cache(mode, dtype):
    heads, kv, dim, page, keys = 4, 2, 32, 16, [33, 16, 7]
    k8, v8 = ([torch.randint(-128, 128, (kv, n, dim), dtype=torch.int8) for n in keys] for _ in range(2))
    longest = 48
    shape = {0: (kv, 1, dim), 1: (3, longest), 2: (kv,), 3: (3, kv, longest), 4: None, 5: None}[mode]
    kc, table = pages(k8, keys, page)
    vc = torch.zeros_like(kc)
    for b, n in enumerate(keys):
        for j in range(n):
            vc[table[b, j // page], :, j % page] = v8[b][:, j]
    shape = shape or ((len(kc), page) if mode == 4 else (len(kc), kv, page))
    ks, ko, vs, vo = torch.rand(shape) / 60, torch.randn(shape), torch.rand(shape) / 60, torch.randn(shape)

    def of(t, b, n):
        """A scale or offset of batch b as [kv heads, keys, dim]."""
        where = table[b, torch.arange(n) // page].long(), torch.arange(n) % page
        return {0: lambda: t.expand(kv, n, dim), 1: lambda: t[b, :n][None, :, None], 2: lambda: t[:, None, None], 3: lambda: t[b, :, :n][..., None],
                4: lambda: t[where][None, :, None], 5: lambda: t[where[0], :, where[1]].T[..., None]}[mode]().expand(kv, n, dim)

    q = torch.randn(3, heads, 1, dim).to(dtype)
    expected = torch.stack([attention(q[b], (k8[b] + of(ko, b, n).double()) * of(ks, b, n).double(), (v8[b] + of(vo, b, n).double()) * of(vs, b, n).double(), 0.2)[0]
                            for b, n in enumerate(keys)])
    out = torch.empty_like(q)
    fused(3, q, kc, vc, out, table=table, k_lengths=keys, heads=heads, kv_heads=kv, scale=0.2, block_size=page, key_scale=ks, key_offset=ko, value_scale=vs,
          value_offset=vo, key_mode=mode, value_mode=mode)
    near(out, expected, dtype)
    if mode >= 4:
        return
    # A whole cache, and both scales in one tensor.
    whole = [torch.stack([torch.nn.functional.pad(t, (0, 0, 0, longest - t.shape[1])) for t in ts]) for ts in (k8, v8)]
    out.zero_()
    fused(2, q, *whole, out, k_lengths=keys, heads=heads, kv_heads=kv, scale=0.2, key_scale=ks, key_offset=ko, value_scale=vs, value_offset=vo, key_mode=mode, value_mode=mode)
    near(out, expected, dtype)
    if mode <= 1:
        out.zero_()
        fused(2, q, *whole, out, k_lengths=keys, heads=heads, kv_heads=kv, scale=0.2, both_scale=torch.stack([ks, vs]), both_offset=torch.stack([ko, vo]), both_mode=mode)
        near(out, expected, dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("how", ["BnNBsD", "BnBsH", "NZ"])
def test_latent(dtype, how):
    """Multi-head latent attention: one key/value head of a compressed and a rotated part, which is the value too."""
    heads, dim, rope, page, queries, keys = 16, 64, 32, 16, [1, 3], [40, 17]
    c, r = ([torch.randn(1, n, d).to(dtype) for n in keys] for d in (dim, rope))
    cc, table = pages(c, keys, page)
    rc = torch.zeros(*cc.shape[:3], rope, dtype=dtype)
    for b, n in enumerate(keys):
        for j in range(n):
            rc[table[b, j // page], :, j % page] = r[b][:, j]
    q, qr = torch.randn(4, heads, dim).to(dtype), torch.randn(4, heads, rope).to(dtype)
    joined = torch.cat([q, qr], -1)
    expected = torch.cat([attention(p.transpose(0, 1), torch.cat([c[b], r[b]], -1), c[b], 0.1, causal(p.shape[0], keys[b]))[0].transpose(0, 1)
                          for b, p in enumerate(joined.split(queries))])
    out = torch.empty_like(q)
    given = dict(k_rope=form(rc, how), table=table, k_lengths=keys, heads=heads, kv_heads=1, scale=0.1, block_size=page, sparse=3)
    for version in (3, 4, 5):
        fused(version, q, form(cc, how), form(cc, how), out, q_rope=qr, q_lengths=[1, 4], layout="TND", **given)
        near(out, expected, dtype)
    turned = torch.empty(heads, 4, dim, dtype=dtype)
    fused(3, q, form(cc, how), form(cc, how), turned, q_rope=qr, q_lengths=[1, 4], layout="TND_NTD", **given)
    near(turned.transpose(0, 1), expected, dtype)
    # Without pages.
    k, kr = torch.randn(2, 1, 20, dim).to(dtype), torch.randn(2, 1, 20, rope).to(dtype)
    q, qr = torch.randn(2, heads, 5, dim).to(dtype), torch.randn(2, heads, 5, rope).to(dtype)
    out = torch.empty_like(q)
    fused(3, q, k, k, out, q_rope=qr, k_rope=kr, heads=heads, kv_heads=1, scale=0.1)
    near(out, torch.stack([attention(torch.cat([q[b], qr[b]], -1), torch.cat([k[b], kr[b]], -1), k[b], 0.1)[0] for b in range(2)]), dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("layout", ["BNSD", "BSND", "BSH", "BSND_NBSD", "BNSD_NBSD", "BSH_NBSD", "BNSD_BSND"])
def test_layouts(layout, dtype):
    heads, kv, dim = 4, 2, 16
    q, k, v = torch.randn(2, heads, 6, dim).to(dtype), torch.randn(2, kv, 9, dim).to(dtype), torch.randn(2, kv, 9, dim).to(dtype)
    turn = {"BNSD": lambda t: t, "BSND": lambda t: t.transpose(1, 2).contiguous(), "BSH": lambda t: t.transpose(1, 2).flatten(2).contiguous(),
            "NBSD": lambda t: t.transpose(0, 1).contiguous()}
    first, last = layout.split("_")[0], layout.split("_")[-1]
    expected = torch.stack([attention(q[b], k[b], v[b], 0.3)[0] for b in range(2)])
    out = torch.empty_like(turn[last](q))
    fused(2, turn[first](q), turn[first](k), turn[first](v), out, heads=heads, kv_heads=kv, scale=0.3, layout=layout)
    near(out, turn[last](expected), dtype)
    # A tensor for each sequence, of its own length.
    short = [k[:1], k[1:, :, :5].contiguous()], [v[:1], v[1:, :, :5].contiguous()]
    expected[1] = attention(q[1], k[1, :, :5], v[1, :, :5], 0.3)[0]
    fused(2, turn[first](q), [turn[first](t) for t in short[0]], [turn[first](t) for t in short[1]], out, heads=heads, kv_heads=kv, scale=0.3, layout=layout)
    near(out, turn[last](expected), dtype)


@pytest.mark.parametrize("dtype", TYPES)
def test_packed(dtype):
    """Packed queries and keys, both layouts; a sink for each head; positions as slopes."""
    heads, kv, dim, queries, keys = 4, 2, 16, [3, 0, 6], [5, 2, 8]
    q, k, v = torch.randn(9, heads, dim).to(dtype), torch.randn(15, kv, dim).to(dtype), torch.randn(15, kv, dim).to(dtype)
    parts = lambda t, n: [p.transpose(0, 1) for p in t.split(n)]  # noqa: E731
    sink = torch.randn(heads)
    lengths = dict(q_lengths=[3, 3, 9], k_lengths=[5, 7, 15], heads=heads, kv_heads=kv, scale=0.3)
    for with_sink in (False, True):
        expected = torch.cat([attention(a, b, c, 0.3, causal(a.shape[1], b.shape[1]), sink=sink if with_sink else None)[0].transpose(0, 1)
                              for a, b, c in zip(parts(q, queries), parts(k, keys), parts(v, keys))])
        out = torch.empty_like(q)
        fused(4, q, k, v, out, layout="TND", sparse=3, sink=sink if with_sink else None, **lengths)
        near(out, expected, dtype)
        fused(4, *(t.transpose(0, 1).contiguous() for t in (q, k, v)), out, layout="NTD_TND", sparse=3, sink=sink if with_sink else None, **lengths)
        near(out, expected, dtype)


@pytest.mark.parametrize("dtype", TYPES)
def test_prefix(dtype):
    heads, kv, dim = 4, 2, 16
    q, k, v = torch.randn(2, heads, 1, dim).to(dtype), torch.randn(2, kv, 9, dim).to(dtype), torch.randn(2, kv, 9, dim).to(dtype)
    kp, vp = torch.randn(1, kv, 12, dim).to(dtype), torch.randn(1, kv, 12, dim).to(dtype)
    out = torch.empty_like(q)
    for length in (None, 7):
        n = length or 12
        fused(2, q, k, v, out, key_prefix=kp, value_prefix=vp, prefix_length=None if length is None else [length], k_lengths=[9, 4], heads=heads, kv_heads=kv, scale=0.3)
        for b, count in enumerate((9, 4)):
            near(out[b], attention(q[b], torch.cat([kp[0, :, :n], k[b, :, :count]], 1), torch.cat([vp[0, :, :n], v[b, :, :count]], 1), 0.3)[0], dtype)


@pytest.mark.parametrize("dtype", TYPES)
def test_older_names(dtype):
    """PromptFlashAttention and IncreFlashAttention, all versions, with an output of 8 bits."""
    heads, kv, dim = 4, 2, 16
    q, k, v = torch.randn(2, heads, 6, dim).to(dtype), torch.randn(2, kv, 6, dim).to(dtype), torch.randn(2, kv, 6, dim).to(dtype)
    mask = torch.ones(6, 6, dtype=torch.bool).triu(1)
    expected = torch.stack([attention(q[b], k[b], v[b], 0.3, mask)[0] for b in range(2)])
    out = torch.empty_like(q)
    aclnn.call("PromptFlashAttention", q, k, v, None, mask, None, heads, 0.3, HUGE, HUGE, "BNSD", kv, out)
    near(out, expected, dtype)
    aclnn.call("PromptFlashAttentionV2", q, k, v, None, mask, None, None, *[None] * 5, heads, 0.3, HUGE, HUGE, "BNSD", kv, 1, out)
    near(out, expected, dtype)
    aclnn.call("PromptFlashAttentionV3", q, k, v, None, torch.ones(2048, 2048, dtype=torch.bool).triu(1), None, None, *[None] * 5, heads, 0.3, HUGE, HUGE, "BNSD", kv, 2, 0, out)
    near(out, expected, dtype)
    scale, offset, small = torch.rand(heads * dim) * 50, torch.randn(heads * dim), torch.empty(2, heads, 6, dim, dtype=torch.int8)
    aclnn.call("PromptFlashAttentionV3", q, k, v, None, mask, None, None, None, None, None, scale, offset, heads, 0.3, HUGE, HUGE, "BNSD", kv, 1, 0, small)
    exact = (expected * scale.reshape(heads, 1, dim) + offset.reshape(heads, 1, dim)).round().clamp(-128, 127)
    assert (small - exact).abs().max() <= 1
    one = q[:, :, :1].contiguous()
    expected = torch.stack([attention(one[b], k[b, :, :n], v[b, :, :n], 0.3)[0] for b, n in enumerate((6, 3))])
    out = torch.empty_like(one)
    aclnn.call("IncreFlashAttention", one, [k], [v], None, None, [6, 3], heads, 0.3, "BNSD", kv, out)
    near(out, expected, dtype)
    aclnn.call("IncreFlashAttentionV2", one, [k], [v], None, None, [6, 3], *[None] * 5, heads, 0.3, "BNSD", kv, out)
    near(out, expected, dtype)
    kc, table = pages([k[0], k[1, :, :3]], [6, 3], 4)
    vc = torch.zeros_like(kc)
    for b, n in enumerate((6, 3)):
        for j in range(n):
            vc[table[b, j // 4], :, j % 4] = v[b, :, j]
    for version, pad in ((3, []), (4, [None])):
        aclnn.call(f"IncreFlashAttentionV{version}", one, [kc], [vc], None, None, [6, 3], *[None] * 7, table, *pad, heads, 0.3, "BNSD", kv, 4, 0, out)
        near(out, expected, dtype)


def test_errors():
    q, k, out = torch.randn(2, 4, 1, 16), torch.randn(5, 2, 8, 16), torch.empty(2, 4, 1, 16)
    table = torch.tensor([[0, 1], [2, 9]], dtype=torch.int32)
    good = dict(table=table, k_lengths=[9, 5], heads=4, kv_heads=2, block_size=8)
    fused(3, q, k, k, out, **good)
    for words, change in (("block 9 at", dict(k_lengths=[9, 9])), ("expected the lengths", dict(k_lengths=None)), ("of blockSize 16", dict(block_size=16)),
                          ("expected 0 to 16", dict(k_lengths=[17, 5])), ("sparseMode is 5", dict(sparse=5)), ("divisor of numHeads 4", dict(kv_heads=3)),
                          ("only one of queryRope", dict(q_rope=torch.randn(2, 4, 1, 8))), ("quantScale2 goes with int8", dict(quant2=torch.ones(1))),
                          ("not supported", dict(kv_pad=torch.ones(1, dtype=torch.int64))), ("expected int8", dict(key_scale=torch.ones(1))),
                          ("inputLayout is SBH", dict(layout="SBH"))):
        with pytest.raises(RuntimeError, match=words):
            fused(3, q, k, k, out, **dict(good, **change))
