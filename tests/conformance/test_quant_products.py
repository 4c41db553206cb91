"""Quantised products against their formulas in float64."""

import pytest
import torch

import aclnn
from test_format import FRACTAL_NZ, handle, nz
from test_quant import pack

CODES = {torch.float16: 1, torch.bfloat16: 27}
ROUNDING = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def near(actual, expected, factor=1.0):
    if actual.dtype in (torch.int8, torch.int32):
        assert torch.equal(actual, expected.to(actual.dtype))
    else:
        bound = factor * ROUNDING[actual.dtype] * max(1e-3, expected.abs().max().item())
        torch.testing.assert_close(actual.double(), expected.double(), rtol=0, atol=bound)


def integers(shape, seed, low=-128, high=127):
    return torch.randint(low, high + 1, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.int8)


def uniform(*shape, seed=9):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 0.02 + 1e-3


def params(scale, offset=None, mode=None):
    out = torch.empty(max(scale.numel(), offset.numel() if offset is not None else 0), dtype=torch.int64)
    aclnn.call("TransQuantParamV2", scale, offset, out) if mode is None else aclnn.call("TransQuantParamV3", scale, offset, mode, out)
    return out


def cut(scale):
    return (scale.view(torch.int32) & ~0x1fff).view(torch.float32)


def test_trans_quant_param():
    scale, offset = torch.randn(64), torch.randint(-200, 200, (64,)).float()
    for mode in (None, 0):
        assert torch.equal(params(scale, None, mode), (cut(scale).view(torch.int32).long() & 0xffffffff) | 1 << 46)
    packed = params(scale, offset)
    assert torch.equal(packed >> 37 & 0x1ff, offset.long() & 0x1ff)
    rounded = (params(scale, None, 1) & 0xffffffff).to(torch.int64)
    back = torch.where(rounded >= 2**31, rounded - 2**32, rounded).to(torch.int32).view(torch.float32)
    assert ((back - scale).abs() <= scale.abs() * 2**-11).all() and ((back - scale).abs().sum() < (cut(scale) - scale).abs().sum())
    assert params(scale[:1], offset).shape == (64,)
    with pytest.raises(aclnn.Failed, match="roundMode is 2"):
        params(scale, None, 2)
    with pytest.raises(aclnn.Failed, match=r"scale has shape \[64\]"):
        aclnn.call("TransQuantParamV2", scale, None, torch.empty(3, dtype=torch.int64))


def test_convert_weight_to_int4_pack():
    w = torch.randint(-8, 8, (5, 48), dtype=torch.int32)
    out = torch.empty(5, 6, dtype=torch.int32)
    aclnn.call("ConvertWeightToINT4Pack", w, out)
    assert torch.equal(out, pack(w))
    w[2, 3] = 9
    with pytest.raises(aclnn.Failed, match="weight has 9 at element 99"):
        aclnn.call("ConvertWeightToINT4Pack", w, out)
    with pytest.raises(aclnn.Failed, match="weightInt4Pack has shape"):
        aclnn.call("ConvertWeightToINT4Pack", w, torch.empty(5, 7, dtype=torch.int32))


def v5(x1, x2, x2_scale, out, x1_scale=None, offset=None, bias=None, t1=False, t2=False, group=0, y_offset=None, op="QuantMatmulV5"):
    aclnn.call(op, x1, x2, x1_scale, x2_scale, None, torch.empty(0), offset, y_offset if y_offset is not None else torch.empty(0),
               bias, t1, t2, group, out)
    return out


@pytest.mark.parametrize("shapes", [((1, 70), (70, 33)), ((37, 128), (128, 64)), ((3, 5, 40), (3, 40, 24)), ((2, 1, 9, 40), (3, 40, 16))])
def test_int8(shapes):
    a, b = integers(shapes[0], 0), integers(shapes[1], 1)
    sums = a.double() @ b.double()
    m, n = sums.shape[-2:]
    whole, real = torch.randint(-999, 999, (n,), dtype=torch.int32), torch.randn(n) * 10
    row, scale, offset = uniform(m), uniform(n), torch.randint(-9, 9, (n,)).float()
    near(v5(a, b, scale, torch.empty(sums.shape, dtype=torch.int32), bias=whole), sums + whole.double())
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        for s in (scale, scale[:1], scale.bfloat16()):
            near(v5(a, b, s, torch.empty(sums.shape, dtype=dtype), row, bias=real), sums * s.double() * row.double()[:, None] + real.double())
            near(v5(a, b, s, torch.empty(sums.shape, dtype=dtype), bias=whole), (sums + whole.double()) * s.double())
        near(v5(a, b, params(scale), torch.empty(sums.shape, dtype=dtype)), sums * cut(scale).double())
        out = torch.empty(*sums.shape[:-2], n, m, dtype=dtype).transpose(-1, -2)
        aclnn.call("QuantMatmulV4", a, b, scale, None, row, None, False, False, out)
        near(out, sums * scale.double() * row.double()[:, None])
    small = scale / 40
    for s, o in ((params(small), offset), (params(small, offset), None), (small, offset), (params(small), offset[:1])):
        expected = (sums * (cut(small) if s.dtype == torch.int64 else small).double() + (offset if o is None else o).double()).float()
        got = v5(a, b, s, torch.empty(sums.shape, dtype=torch.int8), offset=o)
        assert (got.double() - expected.double().clamp(-128, 127)).abs().max() < 0.501
        aclnn.call("QuantMatmulV3", a, b, s, o, None, False, False, got)
        assert (got.double() - expected.double().clamp(-128, 127)).abs().max() < 0.501


def test_transposes_and_batch_bias():
    a, b = integers((3, 20, 48), 0), integers((3, 48, 36), 1)
    sums, scale, bias = a.double() @ b.double(), uniform(36), torch.randint(-99, 99, (3, 1, 36), dtype=torch.int32)
    expected = (sums + bias.double()) * scale.double()
    for t1 in (False, True):
        for t2 in (False, True):
            for flags in (False, True):
                x1, x2 = (x.transpose(1, 2).contiguous() if t else x for x, t in ((a, t1), (b, t2)))
                x1, x2 = (x1, x2) if flags else (x.transpose(1, 2) if t else x for x, t in ((x1, t1), (x2, t2)))
                near(v5(x1, x2, scale, torch.empty(sums.shape), bias=bias, t1=t1 and flags, t2=t2 and flags), expected)
    real = torch.randn(3, 1, 36)
    near(v5(a, b, scale, torch.empty(sums.shape), uniform(20), bias=real), sums * scale.double() * uniform(20).double()[:, None] + real.double())


@pytest.mark.parametrize("transposed", [False, True])
def test_int4(transposed):
    for m, k, n in ((1, 64, 8), (17, 128, 40), (5, 8, 16)):
        a, b = integers((m, k), 0, -8, 7), integers((k, n), 1, -8, 7)
        x1, x2 = pack(a), pack(b.t().contiguous()).t() if transposed else pack(b)
        scale, row, whole = uniform(n), uniform(m), torch.randint(-99, 99, (n,), dtype=torch.int32)
        sums = a.double() @ b.double()
        near(v5(x1, x2, params(scale), torch.empty(m, n).half(), bias=whole), (sums + whole.double()) * cut(scale).double())
        near(v5(x1, x2, scale, torch.empty(m, n).bfloat16(), row), sums * scale.double() * row.double()[:, None])
        group = 32
        if k % group == 0:
            s, o = uniform(k // group, n), torch.randint(-4, 4, (k // group, n)).half()
            w = (b.double() - o.double().repeat_interleave(group, 0)) * s.double().repeat_interleave(group, 0)
            given = (s.t().contiguous().t(), o.t().contiguous().t()) if transposed else (s, o)
            near(v5(x1, x2, given[0], torch.empty(m, n).half(), row[:, None], given[1], group=1 << 32 | 1 << 16 | group),
                 a.double() @ w * row.double()[:, None])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_int8_by_int4(dtype):
    """x1 counts from 8, for which clients make up in yOffset."""
    m, k, n, group = 9, 128, 40, 32
    a, b = integers((m, k), 0), integers((k, n), 1, -8, 7)
    row, y_offset = uniform(m, 1), torch.randn(n)
    for g, shape in ((group, (k // group, n)), (0, (1, n))):
        packed = params(uniform(*shape).flatten()).reshape(shape)
        w = b.double() * cut(uniform(*shape)).double().repeat_interleave(k // shape[0], 0)
        near(v5(a, pack(b), packed, torch.empty(m, n, dtype=dtype), row, group=g, y_offset=y_offset),
             ((a.double() - 8) @ w + y_offset.double()) * row.double())
        near(v5(a, pack(b), packed, torch.empty(m, n, dtype=dtype), row, group=g, y_offset=(8 * w.sum(0)).float()), a.double() @ w * row.double(), 3)


def test_weights_in_fractal_order():
    a, b, scale = integers((20, 70), 0), integers((70, 50), 1), uniform(50)
    stored = nz(b, 32)
    for given in (handle(stored, b.shape, FRACTAL_NZ), b):
        near(v5(a, given, scale, torch.empty(20, 50).half(), uniform(20), op="QuantMatmulWeightNz"),
             a.double() @ b.double() * scale.double() * uniform(20).double()[:, None])
    stored = nz(b.t().contiguous(), 32)  # transposed by the flag
    near(v5(a, handle(stored, (50, 70), FRACTAL_NZ), scale, torch.empty(20, 50).half(), t2=True, op="QuantMatmulWeightNz"),
         a.double() @ b.double() * scale.double())
    c = integers((70, 64), 1, -8, 7)
    packed = pack(c)
    stored = nz(packed, 8)
    near(v5(a, handle(stored, packed.shape, FRACTAL_NZ), params(uniform(64)), torch.empty(20, 64).half(), uniform(20), op="QuantMatmulWeightNz"),
         a.double() @ c.double() * cut(uniform(64)).double() * uniform(20).double()[:, None])


def test_products_say_what_is_wrong():
    a, b, s = integers((4, 16), 0), integers((16, 8), 1), uniform(8)
    out = torch.empty(4, 8).half()
    for arguments, part in (((a, b[:8], s, out), "16 columns, 8 rows"), ((a, b, s[:3], out), r"x2Scale has shape \[3\]"),
                            ((a.float(), b, s, out), "x1 has type float32"), ((a, b, s, out[:3]), r"out has shape \[3,8\]"),
                            ((a, b, s, out, s[:3]), r"x1Scale has shape \[3\]"), ((a, b, s, out, None, s[:2]), r"x2Offset has shape \[2\]"),
                            ((a, b, s, out, None, None, s[:2]), r"bias has shape \[2\]"), ((a, b, s.int(), out), "x2Scale has type int32")):
        with pytest.raises(aclnn.Failed, match=part) as failure:
            v5(*arguments)
        assert failure.value.code == 161002
    for group, part in ((-1, "groupSize is -1"), (4, r"expected \[4,8\]"), (4 << 16 | 4, "groups of 4 columns")):
        with pytest.raises(aclnn.Failed, match=part):
            v5(a, b, s, out, group=group)
    v5(a[:0], b, s, out[:0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_dequant_bias(dtype):
    x = torch.randint(-9999, 9999, (7, 33), dtype=torch.int32)
    weight, row = uniform(33), uniform(7)
    out = torch.empty(7, 33, dtype=dtype)
    for w in (weight, weight.bfloat16()):
        for r in (None, row):
            for bias in (None, torch.randn(33), torch.randn(33).half(), torch.randn(33).bfloat16(), torch.randint(-99, 99, (33,), dtype=torch.int32)):
                whole = bias is not None and bias.dtype == torch.int32
                expected = (x.double() + (bias if whole else 0)) * w.double() * (r.double()[:, None] if r is not None else 1)
                expected = expected if bias is None or whole else expected + bias.double()
                aclnn.call("DequantBias", x.t().contiguous().t(), w, r, bias, CODES[dtype], out)
                near(out, expected)
    for arguments, part in (((x, weight[:3], None, None), "weightScale has shape"), ((x, weight, weight, None), "activateScaleOptional has shape"),
                            ((x.float(), weight, None, None), "x has type float32"), ((x, weight, None, x), "biasOptional has shape")):
        with pytest.raises(aclnn.Failed, match=part):
            aclnn.call("DequantBias", *arguments, CODES[dtype], out)
    with pytest.raises(aclnn.Failed, match="outputDtype is 0"):
        aclnn.call("DequantBias", x, weight, None, None, 0, out)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_quant_matmul_dequant(dtype):
    m, k, n = 9, 64, 48
    x, w = torch.randn(m, k, generator=torch.Generator().manual_seed(3)).to(dtype), integers((k, n), 1)
    scale, smooth = uniform(n), (torch.rand(k, generator=torch.Generator().manual_seed(4)) + 0.5).to(dtype)
    for s in (None, smooth):
        v = x.float() * s.float() if s is not None else x.float()
        dynamic = v.abs().amax(1) / 127
        for mode, given in (("pertoken", None), ("pertoken", uniform(m) * 5), ("pertensor", torch.tensor([0.02]))):
            rows = dynamic if given is None else given.expand(m)
            q = (v * (1 / rows)[:, None]).round().clamp(-128, 127)
            for weight, transposed in ((w, False), (w.t().contiguous(), True)):
                out = torch.empty(m, n, dtype=dtype)
                aclnn.call("QuantMatmulDequant", x, weight, scale, None, given, None, s, mode, transposed, out)
                near(out, q.double() @ w.double() * scale.double() * rows.double()[:, None])
        given = torch.tensor([0.02])
        aclnn.call("QuantMatmulDequant", x, w, params(scale), None, given, None, s, "pertensor", False, out)
        near(out, (v * (1 / given)).round().clamp(-128, 127).double() @ w.double() * cut(scale).double())
    for change, part in ((dict(mode="none"), 'xQuantMode is "none"'), (dict(mode="pertensor"), "xScaleOptional is absent"),
                         (dict(smooth=scale), "smoothScaleOptional is"), (dict(x=x[:, 1:]), "63 columns, 64 rows"), (dict(scale=smooth), "weightScale is")):
        a = dict(x=x, scale=scale, smooth=None, mode="pertoken") | change
        with pytest.raises(aclnn.Failed, match=part):
            aclnn.call("QuantMatmulDequant", a["x"], w, a["scale"], None, None, None, a["smooth"], a["mode"], False, out)


def test_storage_and_emptiness_are_checked():
    a, b, out = integers((4, 64), 0), integers((64, 32), 1), torch.empty(4, 32)
    stored = nz(b, 32)
    with pytest.raises(aclnn.Failed, match="FRACTAL_NZ doesn't hold"):
        v5(a, handle(stored, (64, 64), FRACTAL_NZ), uniform(64), torch.empty(4, 64), op="QuantMatmulWeightNz")
    near(v5(a[:, :0], b[:0], uniform(32), out), torch.zeros(4, 32).double())
    aclnn.call("QuantMatmulDequant", torch.empty(4, 0), b[:0], uniform(32), None, None, None, None, "pertoken", False, out)
    near(out, torch.zeros(4, 32).double())
