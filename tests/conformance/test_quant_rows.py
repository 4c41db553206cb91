"""Rows of floats quantised, alone and after activations and normalisations, against their formulas."""

import pytest
import torch
import torch.nn.functional as F

import aclnn
from test_norm import arrange

FLOATS = [torch.float16, torch.bfloat16, torch.float32]


def randn(*shape, seed=0, dtype=torch.float32, scale=1.0):
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale).to(dtype)


def uniform(*shape, seed=0, dtype=torch.float32):
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) + 0.5).to(dtype)


def unpack(y):
    """int32 of eight 4-bit numbers, or int8 of two, to the numbers."""
    y = y.contiguous().view(torch.uint8)
    low, high = (y & 15).to(torch.int16), (y >> 4).to(torch.int16)
    both = torch.stack((low, high), -1).flatten(-2)
    return torch.where(both > 7, both - 16, both)


def integers(got, expected, low=-128, high=127, slack=2e-2):
    """Within half a unit, and a little for what rounding moves."""
    assert (got.double() - expected.double().clamp(low, high)).abs().max() <= 0.5 + slack


@pytest.mark.parametrize("layout", ["contiguous", "transposed", "offset"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_dynamic_quant_of_groups(dtype, layout):
    x, smooth = arrange(randn(3, 5, 32, dtype=dtype), layout), uniform(4, 32, seed=1, dtype=dtype)
    ends = torch.tensor([2, 2, 9, 15], dtype=torch.int32)
    group = torch.tensor([0] * 2 + [2] * 7 + [3] * 6)
    v = x.double() * smooth.double()[group].reshape(3, 5, 32)
    scale, offset = torch.empty(3, 5), torch.empty(3, 5)
    for high, out, code in ((127, torch.empty(3, 5, 32, dtype=torch.int8), 2), (7, torch.empty(3, 5, 4, dtype=torch.int32), 3)):
        numbers = lambda: out if high == 127 else unpack(out)
        aclnn.call("DynamicQuantV2", x, smooth, ends, code, out, scale, None)
        torch.testing.assert_close(scale.double(), v.abs().amax(-1) / high, rtol=1e-5, atol=0)
        integers(numbers(), v / scale[..., None].double(), -high - 1, high)
        aclnn.call("DynamicQuantV2", x, smooth, ends, code, out, scale, offset)
        torch.testing.assert_close(scale.double(), (v.amax(-1) - v.amin(-1)) / (2 * high + 1), rtol=1e-5, atol=0)
        integers(numbers(), v / scale[..., None].double() + offset[..., None].double(), -high - 1, high)
        plain = x.double() * smooth[0].double()
        for op, last in (("DynamicQuantV3", ()), ("DynamicQuantV4", (0.0,))):
            aclnn.call(op, x, smooth[0], None, code, True, "pertoken", *last, out, scale, None)
            integers(numbers(), plain / (plain.abs().amax(-1, keepdim=True) / high), -high - 1, high)
            one, shift = torch.empty(1), torch.empty(1)
            aclnn.call(op, x, smooth[0], None, code, True, "pertensor", *last, out, one, None)
            torch.testing.assert_close(one.double(), plain.abs().max()[None] / high, rtol=1e-5, atol=0)
            integers(numbers(), plain / one.double(), -high - 1, high)
            aclnn.call(op, x, smooth[0], None, code, False, "pertensor", *last, out, one, shift)
            integers(numbers(), plain / one.double() + shift.double(), -high - 1, high)
    out, column, rows = torch.empty(3, 5, 32, dtype=torch.int8), torch.empty(3, 32), uniform(5, 1, dtype=dtype)
    aclnn.call("DynamicQuantV3", x, rows, None, 2, True, "perchannel", out, column, None)
    v = x.double() * rows.double()
    torch.testing.assert_close(column.double(), v.abs().amax(-2) / 127, rtol=1e-5, atol=0)
    integers(out, v / column.double()[:, None])


def test_dynamic_quant_says_what_is_wrong():
    x, y, scale = randn(6, 16), torch.empty(6, 16, dtype=torch.int8), torch.empty(6)
    smooth = torch.ones(2, 16)
    for ends, part in (([3, 7], "has 7 at 1"), ([4, 3], "has 3 at 1"), ([-1, 6], "has -1 at 0")):
        with pytest.raises(aclnn.Failed, match=part):
            aclnn.call("DynamicQuantV2", x, smooth, torch.tensor(ends, dtype=torch.int32), 2, y, scale, None)
    for arguments, part in ((("pertoken", 3), "dstType is 3"), (("none", 2), 'quantMode is "none"')):
        with pytest.raises(aclnn.Failed, match=part):
            aclnn.call("DynamicQuantV3", x, None, None, arguments[1], True, arguments[0], y, scale, None)
    with pytest.raises(aclnn.Failed, match="offsetOut is absent"):
        aclnn.call("DynamicQuantV3", x, None, None, 2, False, "pertoken", y, scale, None)
    with pytest.raises(aclnn.Failed, match="dstTypeMax is 3"):
        aclnn.call("DynamicQuantV4", x, None, None, 2, True, "pertoken", 3.0, y, scale, None)
    with pytest.raises(aclnn.Failed, match="smoothScalesOptional has shape"):
        aclnn.call("DynamicQuant", x, smooth, y, scale)


def swiglu(x, left):
    a, b = x.double().chunk(2, -1)
    return F.silu(a) * b if left else a * F.silu(b)


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("dtype", FLOATS)
def test_swiglu_quant(dtype, left):
    x, rows, n = randn(9, 48, dtype=dtype, scale=2), 9, 24
    act, scale = swiglu(x, left), torch.empty(9)
    out, half = torch.empty(9, n, dtype=torch.int8), torch.empty(9, n // 2, dtype=torch.int8)
    group = torch.tensor([0] * 2 + [1] * 3 + [2] * 4)
    ends, sizes = torch.tensor([2, 5, 9], dtype=torch.int32), torch.tensor([2, 3, 4], dtype=torch.int32)
    for index, kind in ((None, 0), (ends, 0), (sizes, 1)):
        count = 1 if index is None else 3
        for shape in ((count, n), (count,)):
            smooth, offset = uniform(*shape) * 9, randn(*shape, seed=3)
            if shape == (1, n):
                smooth, offset = smooth[0], offset[0]
            at = lambda t: (t if index is None else t[group].reshape(rows, -1)).double()
            v = act * at(smooth)
            aclnn.call("SwiGluQuantV2", x, smooth, offset, index, left, "static", kind, 2, out, scale)
            integers(out, v + at(offset))
            for high, y, code in ((127, out, 2), (7, half, 29)):
                aclnn.call("SwiGluQuantV2", x, smooth, None, index, left, "dynamic", kind, code, y, scale)
                torch.testing.assert_close(scale.double(), high / v.abs().amax(-1), rtol=1e-4, atol=0)
                integers(out if high == 127 else unpack(half), v * scale.double()[:, None], -high - 1, high)
            if kind == 0:
                aclnn.call("SwiGluQuant", x, smooth, None, index, left, "dynamic", out, scale)
                integers(out, v * scale.double()[:, None])
    for change, part in ((dict(mode="x"), 'quantModeOptional is "x"'), (dict(x=x[:, 1:]), "expected an even last"), (dict(smooth=smooth[:2]), "smoothScalesOptional"),
                         (dict(index=torch.tensor([2, 5, 8])), "sum"), (dict(kind=2), "groupListType is 2"), (dict(y=out[1:]), "yOut has shape")):
        a = dict(x=x, smooth=uniform(3, n), index=sizes, mode="dynamic", kind=1, y=out) | change
        with pytest.raises(aclnn.Failed, match=part):
            aclnn.call("SwiGluQuantV2", a["x"], a["smooth"], None, a["index"], left, a["mode"], a["kind"], 2, a["y"], scale)


@pytest.mark.parametrize("mode", [0, 1, 2])
@pytest.mark.parametrize("left", [False, True])
def test_dequant_swiglu_quant(left, mode):
    rows, n, scale = 9, 24, torch.empty(9)
    x = torch.randint(-3000, 3000, (rows, 2 * n), dtype=torch.int32)
    out = torch.empty(rows, n, dtype=torch.int8)
    sizes = torch.tensor([2, 3, 3])
    group = torch.tensor([0] * 2 + [1] * 3 + [2] * 3)
    row = uniform(rows, 1) / 100

    def gate(v):
        if mode == 0:
            return swiglu(v, left)
        a, b = (v[:, ::2], v[:, 1::2]) if mode == 1 else v.chunk(2, -1) if left else v.chunk(2, -1)[::-1]
        a, b = a.clamp(max=7.0), b.clamp(-7.0, 7.0)
        return a * torch.sigmoid(1.702 * a) * (b + 1)

    for index in (None, sizes):
        weight, smooth, offset = uniform(3, 2 * n, seed=1) / 20, uniform(3, n, seed=2), randn(3, n, seed=4)
        given = (lambda t: t[0]) if index is None else (lambda t: t)
        at = (lambda t: t[:1].double()) if index is None else (lambda t: t[group].double())
        used = rows if index is None else 8
        for bias in (None, torch.randint(-99, 99, (2 * n,), dtype=torch.int32), randn(2 * n)):
            if bias is not None and index is not None:
                continue
            whole = bias is not None and bias.dtype == torch.int32
            v = (x[:used].double() + (bias.double() if whole else 0)) * at(weight) * row[:used].double() + (bias.double() if bias is not None and not whole else 0)
            act = gate(v)
            for kind in ("static", "dynamic"):
                last = (2, "rint", -1, mode, 7.0, 1.702, 1.0)
                aclnn.call("DequantSwigluQuantV2", x, given(weight), row, bias, given(smooth), given(offset) if kind == "static" else None, index, left, kind, *last, out, scale)
                if kind == "static":
                    integers(out[:used], act / at(smooth) + at(offset))
                else:
                    y = act * at(smooth)
                    torch.testing.assert_close(scale[:used].double(), y.abs().amax(-1) / 127, rtol=1e-4, atol=0)
                    integers(out[:used], y / scale[:used, None].double())
                if mode == 0:
                    again, other = torch.empty_like(out), torch.empty(9)
                    aclnn.call("DequantSwigluQuant", x, given(weight), row, bias, given(smooth), given(offset) if kind == "static" else None, index, left, kind, again, other)
                    assert torch.equal(again[:used], out[:used])
            assert index is None or (out[used:] == 0).all()
    half = randn(rows, 2 * n).half()
    aclnn.call("DequantSwigluQuantV2", half, None, None, None, None, None, None, left, "dynamic", 2, "floor", -1, mode, 7.0, 1.702, 1.0, out, scale)
    assert ((out.double() - (gate(half.double()) / scale[:, None].double()).floor()).abs() <= 1).all()
    for change, part in ((dict(mode=3), "swigluMode is 3"), (dict(limit=-1.0), "clampLimit is -1"), (dict(dim=0), "activateDim is 0"),
                         (dict(round="up"), 'roundModeOptional is "up"'), (dict(row=row[:3]), "activationScaleOptional is")):
        a = dict(mode=max(mode, 1), limit=7.0, dim=-1, round="rint", row=row) | change
        with pytest.raises(aclnn.Failed, match=part):
            aclnn.call("DequantSwigluQuantV2", x, None, a["row"], None, None, None, None, left, "dynamic", 2, a["round"], a["dim"], a["mode"], a["limit"], 1.0, 0.0, out, scale)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("dtype", FLOATS)
def test_clipped_swiglu(dtype, interleaved):
    tolerance = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}[dtype]
    x = randn(4, 6, 10, dtype=dtype, scale=4)
    for dim in (-1, 1, 0):
        v = x.double().movedim(dim, -1)
        a, b = (v[..., ::2], v[..., 1::2]) if interleaved else v.chunk(2, -1)
        a, b = a.clamp(max=3.0), b.clamp(-3.0, 3.0)
        expected = (a * torch.sigmoid(1.5 * a) * (b + 0.5)).movedim(-1, dim)
        out = torch.empty(expected.shape, dtype=dtype)
        aclnn.call("ClippedSwiglu", x, None, dim, 1.5, 3.0, 0.5, interleaved, out)
        torch.testing.assert_close(out.double(), expected, rtol=tolerance, atol=tolerance)
        if dim == 1:
            aclnn.call("ClippedSwiglu", x, torch.tensor([1, 2]), dim, 1.5, 3.0, 0.5, interleaved, out)
            torch.testing.assert_close(out[:3].double(), expected[:3], rtol=tolerance, atol=tolerance)
    with pytest.raises(aclnn.Failed, match="sum"):
        aclnn.call("ClippedSwiglu", x, torch.tensor([1, 9]), 1, 1.5, 3.0, 0.5, interleaved, torch.empty(4, 3, 10, dtype=dtype))
    with pytest.raises(aclnn.Failed, match="expected an even dimension"):
        aclnn.call("ClippedSwiglu", x[:3], None, 0, 1.5, 3.0, 0.5, interleaved, out)


@pytest.mark.parametrize("form", ["none", "tanh"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_gelu_quant(dtype, form):
    x, scale, offset, rows = randn(5, 7, 32, dtype=dtype, scale=3), uniform(32) * 20, randn(32, seed=2), torch.empty(5, 7)
    out, g = torch.empty(x.shape, dtype=torch.int8), F.gelu(x.double(), approximate=form)
    for s in (scale, scale[:1]):
        aclnn.call("GeluQuant", x, s, offset, form, "static", "rint", 2, out, None)
        integers(out, g * s.double() + offset.double())
        aclnn.call("GeluQuant", x, s, None, form, "dynamic", "rint", 2, out, rows)
        v = g * s.double()
        torch.testing.assert_close(rows.double(), v.abs().amax(-1) / 127, rtol=1e-4, atol=0)
        integers(out, v / rows.double()[..., None])
    for arguments, part in ((("erf", "static"), 'approximate is "erf"'), (("none", "x"), 'quantMode is "x"'), (("none", "dynamic"), "outScaleOptional is absent")):
        with pytest.raises(aclnn.Failed, match=part):
            aclnn.call("GeluQuant", x, scale, None, *arguments, "rint", 2, out, None)


@pytest.mark.parametrize("dtype", FLOATS)
def test_group_quant(dtype):
    x, scale, offset = randn(9, 32, dtype=dtype), uniform(3, 32) * 40, torch.tensor([3.0])
    group = torch.tensor([0] * 2 + [1] * 3 + [2] * 4)
    v = x.double() * scale.double()[group]
    for kind in (torch.int32, torch.int64):
        ends, out = torch.tensor([2, 5, 9], dtype=kind), torch.empty(9, 32, dtype=torch.int8)
        aclnn.call("GroupQuant", x, scale, ends, None, 2, out)
        integers(out, v)
        aclnn.call("GroupQuant", x, scale, ends, offset, 2, out)
        integers(out, v + 3)
        out = torch.empty(9, 4, dtype=torch.int32)
        aclnn.call("GroupQuant", x, scale / 20, ends, offset, 3, out)
        integers(unpack(out), v / 20 + 3, -8, 7)
    with pytest.raises(aclnn.Failed, match="groupIndex has 10 at 2"):
        aclnn.call("GroupQuant", x, scale, torch.tensor([2, 5, 10]), None, 3, out)
    with pytest.raises(aclnn.Failed, match="scale has shape"):
        aclnn.call("GroupQuant", x, scale[:2], torch.tensor([2, 5, 9]), None, 3, out)


def rms(x, gamma, beta=None):
    y = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * gamma.double()
    return y if beta is None else y + beta.double()


@pytest.mark.parametrize("layout", ["contiguous", "transposed", "offset"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_rms_norm_quant(dtype, layout):
    x, gamma, beta = arrange(randn(3, 5, 32, dtype=dtype), layout), uniform(32, dtype=dtype), randn(32, seed=2, dtype=dtype)
    scale, offset, slack = uniform(1, seed=5, dtype=dtype) * 10, torch.tensor([3], dtype=torch.int8), 2e-2
    y, out, rstd = rms(x.double(), gamma, beta), torch.empty(x.shape, dtype=torch.int8), torch.empty(3, 5, 1)
    aclnn.call("RmsNormQuant", x, gamma, beta, scale, offset, 1e-6, out)
    integers(out, y * scale.double() + 3, slack=slack)
    aclnn.call("RmsNormQuantV3", x, gamma, scale / 100, offset, beta, 1e-6, True, True, out, rstd)
    integers(out, y / (scale / 100).double() + 3, slack=slack)
    torch.testing.assert_close(rstd.double(), torch.rsqrt(x.double().pow(2).mean(-1, keepdim=True) + 1e-6), rtol=1e-4, atol=0)
    aclnn.call("RmsNormQuantV3", x, gamma, scale, None, None, 1e-6, False, False, out, None)
    integers(out, rms(x.double(), gamma) * scale.double(), slack=slack)
    four = torch.empty(3, 5, 4, dtype=torch.int32)
    aclnn.call("RmsNormQuant", x, gamma, beta, scale / 10, offset, 1e-6, four)
    integers(unpack(four), y * (scale / 10).double() + 3, -8, 7, slack=slack)
    smooth, rows = uniform(32, seed=7, dtype=dtype), torch.empty(3, 5)
    for s in (None, smooth):
        aclnn.call("RmsNormDynamicQuant", x, gamma, s, beta, 1e-6, 2, out, rows)
        v = y * (s.double() if s is not None else 1)
        torch.testing.assert_close(rows.double(), v.abs().amax(-1) / 127, rtol=1e-4, atol=0)
        integers(out, v / rows.double()[..., None], slack=slack)
    with pytest.raises(aclnn.Failed, match="gamma has shape"):
        aclnn.call("RmsNormQuant", x, gamma[1:], beta, scale, offset, 1e-6, out)
    with pytest.raises(aclnn.Failed, match="rstd is absent"):
        aclnn.call("RmsNormQuantV3", x, gamma, scale, offset, beta, 1e-6, True, True, out, None)
    with pytest.raises(aclnn.Failed, match="scale has shape"):
        aclnn.call("RmsNormQuant", x, gamma, beta, scale.expand(3).contiguous(), offset, 1e-6, out)


@pytest.mark.parametrize("dtype", FLOATS)
def test_add_rms_norm_quant(dtype):
    x1, x2, gamma, beta = randn(3, 5, 32, dtype=dtype), randn(3, 5, 32, seed=1, dtype=dtype), uniform(32, dtype=dtype), randn(32, seed=2, dtype=dtype)
    s1, s2 = uniform(32, seed=5) / 10, uniform(32, seed=6) / 10
    z1, z2 = torch.randint(-9, 9, (32,), dtype=torch.int32), torch.randint(-9, 9, (32,), dtype=torch.int32)
    y1, y2, total, plain = torch.empty(x1.shape, dtype=torch.int8), torch.empty(x1.shape, dtype=torch.int8), torch.empty_like(x1), torch.empty_like(x1)
    x = x1.double() + x2.double()
    slack = {torch.float32: 2e-2, torch.float16: 2e-2, torch.bfloat16: 0.3}[dtype]  # the sum may be rounded before it is normalised
    aclnn.call("AddRmsNormQuant", x1, x2, gamma, s1, s2, z1, z2, -1, 1e-6, True, y1, y2, total)
    integers(y1, rms(x, gamma) / s1.double() + z1, slack=slack)
    integers(y2, rms(x, gamma) / s2.double() + z2, slack=slack)
    torch.testing.assert_close(total, x.to(dtype), rtol=1e-2, atol=1e-2)
    aclnn.call("AddRmsNormQuantV2", x1, x2, gamma, 10 * s1, None, None, None, beta, -1, 1e-6, False, y1, y2, total, plain)
    integers(y1, rms(x, gamma, beta) * 10 * s1.double(), slack=slack)
    torch.testing.assert_close(plain.double(), rms(x, gamma, beta), rtol=2e-2, atol=2e-2)
    aclnn.call("AddRmsNormQuantV2", x1, x2, gamma, 10 * s1, None, None, None, beta, -1, 1e-6, False, y1, y2, total, None)
    r1, r2, smooth1, smooth2 = torch.empty(3, 5), torch.empty(3, 5), uniform(32, seed=7, dtype=dtype), uniform(32, seed=8, dtype=dtype)
    aclnn.call("AddRmsNormDynamicQuant", x1, x2, gamma, smooth1, smooth2, 1e-6, y1, y2, total, r1, r2)
    for y, r, s in ((y1, r1, smooth1), (y2, r2, smooth2)):
        v = rms(x, gamma) * s.double()
        torch.testing.assert_close(r.double(), v.abs().amax(-1) / 127, rtol=1e-2, atol=0)
        integers(y, v / r.double()[..., None], slack=slack)
    four = torch.empty(3, 5, 4, dtype=torch.int32)
    aclnn.call("AddRmsNormDynamicQuantV2", x1, x2, gamma, None, smooth2, beta, 1e-6, [False, True], torch.empty((), dtype=torch.int32), four, total, torch.empty(()), r2)
    v = rms(x, gamma, beta) * smooth2.double()
    integers(unpack(four), v / r2.double()[..., None], -8, 7, slack=slack)
    with pytest.raises(aclnn.Failed, match="outputMask is false twice"):
        aclnn.call("AddRmsNormDynamicQuantV2", x1, x2, gamma, None, None, None, 1e-6, [False, False], y1, y2, total, r1, r2)
    with pytest.raises(aclnn.Failed, match="axis is 0"):
        aclnn.call("AddRmsNormQuant", x1, x2, gamma, s1, None, None, None, 0, 1e-6, True, y1, y2, total)


@pytest.mark.parametrize("layout", ["contiguous", "transposed", "offset"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_quant_scatter(dtype, layout):
    start = torch.randint(-128, 127, (4, 3, 9, 16), dtype=torch.int8)
    updates, scale, zero = randn(2, 3, 2, 16, dtype=dtype), uniform(16) / 20, torch.randint(-9, 9, (16,), dtype=torch.int32)
    for op, last in (("InplaceQuantScatter", ()), ("InplaceQuantScatterV2", ("rint",))):
        for z in (None, zero):
            for indices, where in ((torch.tensor([5, 7], dtype=torch.int32), ((0, 5), (1, 7))), (torch.tensor([[3, 0], [1, 4]], dtype=torch.int32), ((3, 0), (1, 4)))):
                cache = arrange(start, layout).clone(memory_format=torch.preserve_format)
                aclnn.call(op, cache, indices, updates, scale, z, -2, -1, 1, *last)
                quantised = updates.double() / scale.double() + (z.double() if z is not None else 0)
                rest = torch.ones_like(cache, dtype=torch.bool)
                for i, (batch, position) in enumerate(where):
                    integers(cache[batch, :, position:position + 2], quantised[i])
                    rest[batch, :, position:position + 2] = False
                assert torch.equal(cache[rest], start[rest])
    for indices, part in (([5, 8], "position 8"), ([[4, 0], [0, 0]], "batch 4"), ([-1, 0], "position -1")):
        with pytest.raises(aclnn.Failed, match=part):
            aclnn.call("InplaceQuantScatter", cache, torch.tensor(indices, dtype=torch.int32), updates, scale, None, -2, -1, 1)
    with pytest.raises(aclnn.Failed, match="axis is 0"):
        aclnn.call("InplaceQuantScatter", cache, torch.tensor([0, 0], dtype=torch.int32), updates, scale, None, 0, -1, 1)
