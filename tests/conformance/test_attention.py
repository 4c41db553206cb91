"""Flash attention against plain attention in float64, forward and gradients, over layouts, masks, biases and drops."""

import math

import pytest
import torch

import aclnn
import cases

LAYOUTS = ["BNSD", "BSND", "BSH", "SBH"]
TYPES = [torch.float32, torch.float16, torch.bfloat16]
HUGE = 2147483647


def tolerance(dtype):
    """Inputs are in [-1, 1): outputs are averages of such values, gradients sums of few terms of their size."""
    return {torch.float32: dict(rtol=1e-5, atol=3e-6), torch.float16: dict(rtol=2e-3, atol=1e-3),
            torch.bfloat16: dict(rtol=1.6e-2, atol=8e-3)}[dtype]


def lay(x, layout):
    """[B, N, S, D] -> a contiguous tensor of the layout."""
    if layout == "BNSD":
        return x.contiguous()
    if layout == "BSND":
        return x.transpose(1, 2).contiguous()
    if layout == "BSH":
        return x.transpose(1, 2).flatten(2).contiguous()
    return x.permute(2, 0, 1, 3).flatten(2).contiguous()


def unlay(x, layout, heads):
    if layout == "BNSD":
        return x
    if layout == "BSND":
        return x.transpose(1, 2)
    if layout == "BSH":
        return x.unflatten(2, (heads, -1)).transpose(1, 2)
    return x.unflatten(2, (heads, -1)).permute(1, 2, 0, 3)


def band(q, k, before, after, lower_right):
    i, j = torch.arange(q).view(-1, 1), torch.arange(k)
    shift = k - q if lower_right else 0
    return (j < i + shift - before) | (j > i + shift + after)


def reference(q, k, v, scale, hidden=None, pse=None, pse_type=1, keep=1.0, kept=None, sink=None):
    """hidden: bool, True is masked out. Returns output, maximum and sum of each row."""
    group = q.shape[1] // k.shape[1]
    k, v = (t.repeat_interleave(group, 1) for t in (k, v))
    s = q @ k.transpose(-1, -2)
    if pse is not None:
        s = (s + pse) * scale if pse_type == 1 else s * scale + pse
    else:
        s = s * scale
    if hidden is not None:
        s = s.masked_fill(hidden, -math.inf)
    top = s.amax(-1, keepdim=True) if s.shape[-1] else torch.full((*s.shape[:-1], 1), -math.inf, dtype=s.dtype)
    if sink is not None:
        top = torch.maximum(top, sink.view(1, -1, 1, 1).expand_as(top))
    top = top.detach()
    p = (s - top.masked_fill(top == -math.inf, 0)).exp()
    total = p.sum(-1, keepdim=True)
    if sink is not None:
        total = total + (sink.view(1, -1, 1, 1) - top).exp()
    p = torch.where(total == 0, torch.zeros_like(p), p / total.masked_fill(total == 0, 1))
    if kept is not None:
        p = p * kept / keep
    return p @ v, top, total


def check(b, n, kv, sq, sk, d, dv, dtype, layout="BNSD", mask=None, sparse=0, before=HUGE, after=HUGE, prefix=None, pse=None, keep=1.0,
          backward=True, scale=None, hidden=None, out_of=None):
    """`mask` is passed as it is; `hidden` is what it and the mode amount to (default: the mask)."""
    scale = 1 / math.sqrt(d) if scale is None else scale
    q, k, v = (cases.tensor(s, dtype, "contiguous", -1, 1, i) for i, s in enumerate([(b, n, sq, d), (b, kv, sk, d), (b, kv, sk, dv)]))
    grad = cases.tensor((b, n, sq, dv), dtype, "contiguous", -1, 1, 5)
    qd, kd, vd = (t.double().requires_grad_() for t in (q, k, v))
    pd = pse.double().requires_grad_() if pse is not None else None
    kept = drop = None
    if keep < 1:
        kept = torch.rand(b, n, sq, sk, generator=torch.Generator().manual_seed(3)) < keep
        bits = torch.zeros((kept.numel() + 127) // 128 * 128, dtype=torch.uint8)
        bits[:kept.numel()] = kept.flatten()
        drop = (bits.view(-1, 8) * torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8)).sum(1).to(torch.uint8)
    if hidden is None and mask is not None:
        hidden = mask.bool()
    expected, top, total = reference(qd, kd, vd, scale, hidden, pd, 1, keep, kept)
    ql, kl, vl, gl = (lay(t, layout) for t in (q, k, v, grad))
    out = lay(torch.full((b, n, sq, dv), 77.0, dtype=dtype), layout)
    top_out, sum_out, none = torch.empty(b, n, sq, 8), torch.empty(b, n, sq, 8), torch.empty(0, dtype=dtype)
    aclnn.call("FlashAttentionScore", ql, kl, vl, pse, drop, None, mask, prefix, scale, keep, before, after, n, layout, 0, sparse,
               top_out, sum_out, none, out)
    cases.compare(unlay(out, layout, n), expected.detach(), **tolerance(dtype))
    torch.testing.assert_close(top_out, top.float().expand_as(top_out), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sum_out, total.detach().float().expand_as(sum_out), rtol=1e-4, atol=1e-5)
    if not backward:
        return
    inputs = [qd, kd, vd] + ([pd] if pse is not None else [])
    wanted = torch.autograd.grad(expected, inputs, grad.double())
    dq, dk, dv_ = torch.full_like(ql, 77), torch.full_like(kl, 77), torch.full_like(vl, 77)
    dpse = torch.full_like(pse, 77) if pse is not None else None
    aclnn.call("FlashAttentionScoreGrad", ql, kl, vl, gl, pse, drop, None, mask, top_out, sum_out, none, out, prefix, scale, keep, before,
               after, n, layout, 0, sparse, dq, dk, dv_, dpse)
    loose = {name: 4 * value for name, value in tolerance(dtype).items()}
    cases.compare(unlay(dq, layout, n), wanted[0], **loose)
    cases.compare(unlay(dk, layout, kv), wanted[1], **loose)
    cases.compare(unlay(dv_, layout, kv), wanted[2], **loose)
    if pse is not None:
        cases.compare(dpse, wanted[3], **loose)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", TYPES)
def test_layouts(dtype, layout):
    check(2, 4, 4, 70, 90, 32, 32, dtype, layout)
    check(2, 4, 2, 33, 300, 40, 40, dtype, layout)


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1, 1, 4, 4), (1, 2, 2, 1, 77, 64, 64), (3, 8, 2, 1, 300, 64, 64), (2, 6, 1, 1, 19, 16, 16),
                                   (1, 3, 3, 5, 513, 24, 24), (1, 2, 2, 57, 56, 128, 128), (1, 1, 1, 300, 700, 48, 80),
                                   (2, 3, 3, 4, 0, 8, 8), (1, 2, 1, 2, 40, 12, 20)])
def test_sizes(sizes):
    for dtype in (torch.float32, torch.bfloat16):
        check(*sizes, dtype)


@pytest.mark.parametrize("dtype", TYPES)
def test_masks(dtype):
    g = torch.Generator().manual_seed(1)
    for shape in [(60, 75), (1, 1, 60, 75), (2, 1, 60, 75), (2, 4, 60, 75)]:
        mask = torch.rand(shape, generator=g) < 0.4
        check(2, 4, 2, 60, 75, 16, 16, dtype, mask=mask)
        check(2, 4, 2, 60, 75, 16, 16, dtype, mask=mask.to(torch.uint8), sparse=1)
    mask = torch.rand((60, 75), generator=g) < 0.4
    mask[7] = True  # a query that sees nothing: zeros
    check(2, 4, 2, 60, 75, 16, 16, dtype, mask=mask)
    full = torch.rand((2, 4, 60, 75), generator=g) < 0.4
    check(2, 4, 2, 60, 75, 16, 16, dtype, mask=full, hidden=full | band(60, 75, 20, 3, False), before=20, after=3)


@pytest.mark.parametrize("sq,sk", [(60, 60), (60, 90), (90, 60), (300, 600), (1, 50), (3, 50)])
def test_sparse_modes(sq, sk):
    triangle = torch.triu(torch.ones(2048, 2048, dtype=torch.bool), 1)
    f = torch.float32
    check(1, 2, 2, sq, sk, 16, 16, f, mask=triangle, sparse=2, after=0, hidden=band(sq, sk, HUGE, 0, False))
    check(1, 2, 2, sq, sk, 16, 16, f, mask=triangle, sparse=3, after=0, hidden=band(sq, sk, HUGE, 0, True))
    check(1, 2, 1, sq, sk, 16, 16, f, mask=triangle, sparse=4, before=17, after=5, hidden=band(sq, sk, 17, 5, True))
    prefix = [30, 0]
    hidden = torch.stack([band(sq, sk, HUGE, 0, True) & (torch.arange(sk) >= p) for p in prefix])[:, None]
    check(2, 2, 2, sq, sk, 16, 16, f, mask=triangle, sparse=6, prefix=prefix, hidden=hidden)


@pytest.mark.parametrize("dtype", TYPES)
def test_position_bias(dtype):
    for shape in [(2, 4, 60, 75), (1, 4, 60, 75), (2, 4, 1, 75), (60, 75)]:
        pse = cases.tensor(shape, dtype, "contiguous", -1, 1, 8)
        check(2, 4, 2, 60, 75, 16, 16, dtype, pse=pse)


def test_dropout():
    for keep in (0.8, 0.3):
        check(2, 3, 3, 60, 75, 16, 16, torch.float32, keep=keep)
        check(2, 4, 2, 60, 75, 16, 16, torch.float32, "BSH", keep=keep, mask=torch.rand(60, 75) < 0.3)


def test_slopes():
    """pseType 2 and 3: the bias is computed from a slope per head."""
    q, k, v = (cases.tensor((2, 3, 20, 16), torch.float32, "contiguous", -1, 1, i) for i in range(3))
    slopes = torch.tensor([0.5, 0.25, 0.1])
    distance = (torch.arange(20).view(-1, 1) - torch.arange(20) + 4).abs().double()
    for kind in (2, 3):
        bias = -(distance if kind == 2 else distance.sqrt()) * slopes.double().view(3, 1, 1)
        expected, _, _ = reference(q.double(), k.double(), v.double(), 0.25, None, bias, 0)
        out, top, total = torch.empty_like(q), torch.empty(2, 3, 20, 8), torch.empty(2, 3, 20, 8)
        aclnn.call("FlashAttentionScoreV2", q, k, v, slopes, None, None, None, None, [6], [2], 0.25, 1.0, HUGE, HUGE, 3, "BNSD", 0, 0,
                   kind, top, total, torch.empty(0), out)
        cases.compare(out, expected, **tolerance(torch.float32))


def test_sink():
    q, k, v = (cases.tensor((2, 3, 20, 16), torch.float32, "contiguous", -1, 1, i) for i in range(3))
    grad = cases.tensor((2, 3, 20, 16), torch.float32, "contiguous", -1, 1, 5)
    sink = torch.tensor([0.5, -1.0, 3.0])
    leaves = [t.double().requires_grad_() for t in (q, k, v, sink)]
    expected, _, _ = reference(*leaves[:3], 0.25, sink=leaves[3])
    out, top, total, none = torch.empty_like(q), torch.empty(2, 3, 20, 8), torch.empty(2, 3, 20, 8), torch.empty(0)
    aclnn.call("FlashAttentionScoreV3", q, k, v, None, None, None, None, sink, None, None, None, 0.25, 1.0, HUGE, HUGE, 3, "BNSD", 0, 0,
               1, top, total, none, out)
    cases.compare(out, expected.detach(), **tolerance(torch.float32))
    wanted = torch.autograd.grad(expected, leaves, grad.double())
    results = [torch.empty_like(t) for t in (q, k, v, sink)]
    aclnn.call("FlashAttentionScoreGradV3", q, k, v, grad, None, None, None, None, top, total, none, out, sink, None, None, None, 0.25,
               1.0, HUGE, HUGE, 3, "BNSD", 0, 0, 1, *results[:3], None, results[3])
    for result, e in zip(results, wanted):
        cases.compare(result, e, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("sparse", [0, 2, 3, 4])
@pytest.mark.parametrize("dtype", TYPES)
def test_packed_sequences(dtype, sparse):
    q_lengths, k_lengths, n, kv, d = [20, 0, 70, 1], [30, 5, 64, 90], 4, 2, 16
    q_ends, k_ends = torch.tensor(q_lengths).cumsum(0).tolist(), torch.tensor(k_lengths).cumsum(0).tolist()
    q, k, v = (cases.tensor((t, h, d), dtype, "contiguous", -1, 1, i) for i, (t, h) in enumerate([(91, n), (189, kv), (189, kv)]))
    grad = cases.tensor((91, n, d), dtype, "contiguous", -1, 1, 5)
    mask = torch.triu(torch.ones(2048, 2048, dtype=torch.bool), 1) if sparse else None
    before, after = (10, 3) if sparse == 4 else (HUGE, 0 if sparse else HUGE)
    leaves = [t.double().requires_grad_() for t in (q, k, v)]
    pieces, q0, k0 = [], 0, 0
    for ql, kl in zip(q_lengths, k_lengths):
        hidden = band(ql, kl, before, after, sparse >= 3) if sparse else None
        piece = [t[a:a + m].transpose(0, 1)[None] for t, a, m in zip(leaves, (q0, k0, k0), (ql, kl, kl))]
        pieces.append(reference(*piece, 0.25, hidden)[0][0].transpose(0, 1))
        q0, k0 = q0 + ql, k0 + kl
    expected = torch.cat(pieces)
    out, top, total, none = torch.empty_like(q), torch.empty(91, n, 8), torch.empty(91, n, 8), torch.empty(0, dtype=dtype)
    aclnn.call("FlashAttentionVarLenScore", q, k, v, None, None, None, mask, None, q_ends, k_ends, 0.25, 1.0, before, after, n, "TND", 0,
               sparse, top, total, none, out)
    cases.compare(out, expected.detach(), **tolerance(dtype))
    wanted = torch.autograd.grad(expected, leaves, grad.double())
    results = [torch.full_like(t, 77) for t in (q, k, v)]
    aclnn.call("FlashAttentionUnpaddingScoreGrad", q, k, v, grad, None, None, None, mask, top, total, none, out, None, q_ends, k_ends,
               0.25, 1.0, before, after, n, "TND", 0, sparse, *results, None)
    loose = {name: 4 * value for name, value in tolerance(dtype).items()}
    for result, e in zip(results, wanted):
        cases.compare(result, e, **loose)


@pytest.mark.parametrize("version,with_sink", [("V3", False), ("V5", False), ("V5", True)])
@pytest.mark.parametrize("dtype", TYPES)
def test_packed_sequences_with_rotary_parts(dtype, version, with_sink):
    q_lengths, k_lengths, n, kv, d, dr, dv = [20, 0, 33], [30, 5, 64], 4, 2, 16, 8, 24
    q_ends, k_ends = torch.tensor(q_lengths).cumsum(0).tolist(), torch.tensor(k_lengths).cumsum(0).tolist()
    shapes = [(53, n, d), (53, n, dr), (99, kv, d), (99, kv, dr), (99, kv, dv)]
    q, qr, k, kr, v = tensors = [cases.tensor(shape, dtype, "contiguous", -1, 1, i) for i, shape in enumerate(shapes)]
    sink = torch.tensor([0.5, -1.0, 3.0, 0.0]) if with_sink else None
    grad = cases.tensor((53, n, dv), dtype, "contiguous", -1, 1, 5)
    mask = torch.triu(torch.ones(2048, 2048, dtype=torch.bool), 1)
    leaves = [t.double().requires_grad_() for t in tensors]
    sink_leaf = sink.double().requires_grad_() if with_sink else None
    query, key = torch.cat(leaves[:2], -1), torch.cat(leaves[2:4], -1)
    pieces, q0, k0 = [], 0, 0
    for ql, kl in zip(q_lengths, k_lengths):
        piece = [t[a:a + m].transpose(0, 1)[None] for t, a, m in zip((query, key, leaves[4]), (q0, k0, k0), (ql, kl, kl))]
        pieces.append(reference(*piece, 0.25, band(ql, kl, HUGE, 0, True), sink=sink_leaf)[0][0].transpose(0, 1))
        q0, k0 = q0 + ql, k0 + kl
    expected = torch.cat(pieces)
    out, top, total, none = torch.empty(53, n, dv, dtype=dtype), torch.empty(53, n, 8), torch.empty(53, n, 8), torch.empty(0, dtype=dtype)
    sinks, layout = ((sink,), ("",)) if version == "V5" else ((), ())
    aclnn.call("FlashAttentionVarLenScore" + version, q, qr, k, kr, v, None, None, None, mask, *sinks, None, q_ends, k_ends, None, None, 0.25, 1.0,
               HUGE, HUGE, n, "TND", 0, 3, 1, *layout, top, total, none, out)
    cases.compare(out, expected.detach(), **tolerance(dtype))
    wanted = torch.autograd.grad(expected, leaves + ([sink_leaf] if with_sink else []), grad.double())
    dq, dqr, dk, dkr, dvalue = results = [torch.full_like(t, 77) for t in tensors]
    dsink = (torch.empty(n) if with_sink else None,) if version == "V5" else ()
    aclnn.call("FlashAttentionUnpaddingScoreGrad" + version, q, qr, k, kr, v, grad, None, None, None, mask, top, total, none, out, *sinks, None,
               q_ends, k_ends, None, None, 0.25, 1.0, HUGE, HUGE, n, "TND", 0, 3, 1, *layout, dq, dqr, dk, dkr, dvalue, None, *dsink)
    loose = {name: 4 * value for name, value in tolerance(dtype).items()}
    for result, e in zip(results, wanted):
        cases.compare(result, e, **loose)
    if with_sink:  # float32, from outputs that were rounded to `dtype`
        torch.testing.assert_close(dsink[0].double(), wanted[-1], rtol=loose["rtol"], atol=loose["rtol"])


@pytest.mark.parametrize("layout", ["BNSD", "BSND"])
def test_rotary_parts(layout):
    shapes = [(2, 4, 20, 16), (2, 4, 20, 8), (2, 2, 31, 16), (2, 2, 31, 8), (2, 2, 31, 24)]
    tensors = [cases.tensor(shape, torch.float32, "contiguous", -1, 1, i) for i, shape in enumerate(shapes)]
    grad = cases.tensor((2, 4, 20, 24), torch.float32, "contiguous", -1, 1, 5)
    leaves = [t.double().requires_grad_() for t in tensors]
    expected, _, _ = reference(torch.cat(leaves[:2], -1), torch.cat(leaves[2:4], -1), leaves[4], 0.25)
    q, qr, k, kr, v = (lay(t, layout) for t in tensors)
    out, top, total, none = lay(torch.empty(2, 4, 20, 24), layout), torch.empty(2, 4, 20, 8), torch.empty(2, 4, 20, 8), torch.empty(0)
    aclnn.call("FlashAttentionScoreV4", q, k, v, None, None, None, None, qr, kr, None, None, None, None, None, None, None, None, None, 0.25, 1.0, HUGE,
               HUGE, 4, layout, 0, 0, 0, 1, "", 0, 0, top, total, none, out)
    cases.compare(unlay(out, layout, 4), expected.detach(), **tolerance(torch.float32))
    wanted = torch.autograd.grad(expected, leaves, grad.double())
    dq, dqr, dk, dkr, dv = results = [torch.full_like(t, 77) for t in (q, qr, k, kr, v)]
    aclnn.call("FlashAttentionScoreGradV4", q, k, v, lay(grad, layout), None, None, None, None, top, total, none, out, None, qr, kr, None, None, None,
               None, None, None, None, None, None, None, 0.25, 1.0, HUGE, HUGE, 4, layout, "", 0, 0, 1, 0, 0, 0, dq, dk, dv, dqr, dkr, None, None)
    for result, e, heads in zip(results, wanted, (4, 4, 2, 2, 2)):
        cases.compare(unlay(result, layout, heads), e, rtol=2e-5, atol=2e-5)
    with pytest.raises(aclnn.Failed, match="queryRope is .* only the last dimensions may differ"):
        aclnn.call("FlashAttentionScoreV4", q, k, v, None, None, None, None, kr, kr, None, None, None, None, None, None, None, None, None, 0.25, 1.0,
                   HUGE, HUGE, 4, layout, 0, 0, 0, 1, "", 0, 0, top, total, none, out)


def test_strided_heads():
    """q, k and v as parts of one projection, as transformers have them."""
    qkv = cases.tensor((2, 50, 3, 4, 16), torch.float32, "contiguous", -1, 1, 1)
    q, k, v = (qkv[:, :, i].transpose(1, 2) for i in range(3))
    expected, _, _ = reference(q.double(), k.double(), v.double(), 0.25)
    out = torch.empty(2, 50, 4, 16).transpose(1, 2)
    aclnn.call("FlashAttentionScore", q, k, v, None, None, None, None, None, 0.25, 1.0, HUGE, HUGE, 4, "BNSD", 0, 0,
               torch.empty(2, 4, 50, 8), torch.empty(2, 4, 50, 8), torch.empty(0), out)
    cases.compare(out, expected, **tolerance(torch.float32))


@pytest.mark.parametrize("change,part", [
    (dict(n=3), "headNum is 3"), (dict(layout="XYZ"), "inputLayout is XYZ"), (dict(sparse=9), "sparseMode is 9"),
    (dict(keep=0.5), "dropMask is absent"), (dict(mask=torch.zeros(3, 3, dtype=torch.bool)), "attenMask has shape [3,3]"),
    (dict(k=torch.zeros(1, 3, 5, 8)), "don't match"), (dict(out=torch.zeros(1, 2, 4, 7)), "attentionOut has shape [1,2,4,7]"),
])
def test_errors(change, part):
    a = dict(q=torch.zeros(1, 2, 4, 8), k=torch.zeros(1, 2, 5, 8), v=torch.zeros(1, 2, 5, 8), out=torch.zeros(1, 2, 4, 8), n=2,
             layout="BNSD", sparse=0, keep=1.0, mask=None) | change
    with pytest.raises(aclnn.Failed) as failure:
        aclnn.call("FlashAttentionScore", a["q"], a["k"], a["v"], None, None, None, a["mask"], None, 1.0, a["keep"], HUGE, HUGE, a["n"],
                   a["layout"], 0, a["sparse"], torch.empty(1, 2, 4, 8), torch.empty(1, 2, 4, 8), torch.empty(0), a["out"])
    assert part in str(failure.value) and failure.value.code == 161002


def infer(q, k, v, out, n, kv=0, layout="BNSD", mask=None, pse=None, q_lengths=None, k_lengths=None, before=HUGE, after=HUGE, sparse=0,
          lse=None, scale=0.25):
    aclnn.call("FusedInferAttentionScoreV2", q, [k], [v], pse, mask, q_lengths, k_lengths, *[None] * 17, n, scale, before, after, layout, kv,
               sparse, 1, 0, 0, lse is not None, 0, 0, out, lse)


@pytest.mark.parametrize("layout", ["BNSD", "BSND", "BSH", "BNSD_BSND"])
@pytest.mark.parametrize("dtype", TYPES)
def test_inference(dtype, layout):
    """One token and a prompt, grouped heads, caches that are longer than what counts."""
    of = layout.split("_")[0]
    for sq, sk, lengths in ((1, 300, [300, 17]), (70, 90, [90, 33]), (5, 40, None)):
        b, n, kv, d = 2, 6, 2, 32
        q, k, v = (cases.tensor(s, dtype, "contiguous", -1, 1, i) for i, s in enumerate([(b, n, sq, d), (b, kv, sk, d), (b, kv, sk, d)]))
        hidden = torch.zeros(b, 1, sq, sk, dtype=torch.bool)
        for i, length in enumerate(lengths or []):
            hidden[i, ..., length:] = True
        mask = torch.rand(1, 1, sq, sk, generator=torch.Generator().manual_seed(1)) < 0.3
        mask[..., 0] = False
        pse = cases.tensor((1, n, sq, sk), dtype, "contiguous", -1, 1, 7)
        expected, top, total = reference(q.double(), k.double(), v.double(), 0.25, hidden | mask, pse.double(), 0)
        out, lse = lay(torch.full((b, n, sq, d), 77.0, dtype=dtype), layout.split("_")[-1]), torch.full((b, n, sq, 1), 77.0)
        infer(lay(q, of), lay(k, of), lay(v, of), out, n, kv, layout, mask, pse, k_lengths=lengths, lse=lse)
        cases.compare(unlay(out, layout.split("_")[-1], n), expected, **tolerance(dtype))
        torch.testing.assert_close(lse, (top + total.log()).float(), rtol=1e-4, atol=1e-4)


def test_inference_of_padded_queries():
    q, k = cases.tensor((3, 4, 9, 16), torch.float32, low=-1, high=1), cases.tensor((3, 4, 12, 16), torch.float32, low=-1, high=1, seed=1)
    q_lengths, k_lengths, out = [9, 4, 0], [12, 6, 3], torch.full((3, 4, 9, 16), 77.0)
    infer(q, k, k, out, 4, q_lengths=q_lengths, k_lengths=k_lengths, sparse=3)
    for b in range(3):
        i, j = q_lengths[b], k_lengths[b]
        expected, _, _ = reference(q[b:b + 1, :, :i].double(), *[k[b:b + 1, :, :j].double()] * 2, 0.25, band(i, j, HUGE, 0, True))
        cases.compare(out[b:b + 1, :, :i], expected, **tolerance(torch.float32))
        assert not out[b, :, i:].any()


def test_inference_errors():
    t = torch.zeros(2, 2, 4, 8)
    for change, part in ((dict(kv=1), "expected 2 batches of numKeyValueHeads 1"), (dict(k_lengths=[5]), "has length 5, expected 0 to 4"),
                         (dict(lse=torch.zeros(3)), "softmaxLse has shape [3]")):
        with pytest.raises(aclnn.Failed) as failure:
            infer(t, t, t, torch.zeros_like(t), 2, **change)
        assert part in str(failure.value) and failure.value.code == 161002
