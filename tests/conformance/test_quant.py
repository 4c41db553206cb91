"""Quantisation operators against PyTorch's own, and against their formulas."""

import pytest
import torch

import aclnn
import cases
from test_norm import arrange

LAYOUTS = ["contiguous", "transposed", "offset"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_fake_quant(layout, dtype):
    x = arrange((torch.randn(4, 5, 6) * 20).to(dtype), layout)
    scale, zero = torch.rand(5) + 0.05, torch.randint(-3, 3, (5,), dtype=torch.int32)
    out, mask = arrange(torch.empty(x.shape, dtype=dtype), layout), torch.empty(x.shape, dtype=torch.bool)
    aclnn.call("FakeQuantPerChannelAffineCachemask", x, scale, zero, 1, -128, 127, out, mask)
    expected, expected_mask = torch.ops.aten.fake_quantize_per_channel_affine_cachemask(x.float(), scale, zero, 1, -128, 127)
    assert torch.equal(out, expected.to(dtype)) and torch.equal(mask, expected_mask)
    aclnn.call("FakeQuantPerTensorAffineCachemask", x, scale[:1], zero[:1], 1.0, 0, 255, out, mask)
    expected, expected_mask = torch.ops.aten._fake_quantize_per_tensor_affine_cachemask_tensor_qparams(
        x.float(), scale[:1], zero[:1], torch.ones(1, dtype=torch.int64), 0, 255)
    assert torch.equal(out, expected.to(dtype)) and torch.equal(mask, expected_mask)
    aclnn.call("FakeQuantPerTensorAffineCachemask", x, scale[:1], zero[:1], 0.0, 0, 255, out, mask)
    assert torch.equal(out, x) and mask.all()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("quantised,dtype", [(torch.qint8, torch.int8), (torch.quint8, torch.uint8), (torch.qint32, torch.int32)])
def test_quantize(layout, quantised, dtype):
    x = arrange(torch.randn(4, 5, 6) * 20, layout)
    scale, zero = torch.rand(5) + 0.05, torch.randint(0, 9, (5,), dtype=torch.int32)
    out = arrange(torch.empty(x.shape, dtype=dtype), layout)
    aclnn.call("Quantize", x, scale, zero, dtype, 1, out)
    assert torch.equal(out, torch.quantize_per_channel(x.contiguous(), scale, zero, 1, quantised).int_repr())
    aclnn.call("Quantize", x, scale[:1], None, dtype, 0, out)
    assert torch.equal(out, torch.quantize_per_tensor(x.contiguous(), scale[0].item(), 0, quantised).int_repr())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mode,f", [("round", torch.round), ("floor", torch.floor), ("ceil", torch.ceil), ("trunc", torch.trunc)])
def test_ascend_quant(mode, f, layout, dtype):
    x = arrange((torch.randn(3, 4, 8) * 20).to(dtype), layout)
    scale, offset = (torch.rand(8) * 3).to(dtype), torch.randn(8).to(dtype)
    y = arrange(torch.empty(x.shape, dtype=torch.int8), layout)
    aclnn.call("AscendQuant", x, scale, offset, False, mode, 2, y)
    assert torch.equal(y, f(x.float() * scale.float() + offset.float()).clamp(-128, 127).to(torch.int8))
    aclnn.call("AscendQuantV3", x, scale, None, True, mode, 2, -1, y)
    assert torch.equal(y, f(x.float() * scale.float() * scale.float()).clamp(-128, 127).to(torch.int8))


@pytest.mark.parametrize("code,dtype", [(1, torch.float16), (27, torch.bfloat16)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_ascend_anti_quant(layout, code, dtype):
    x = arrange(torch.randint(-128, 127, (5, 8), dtype=torch.int8), layout)
    scale, offset = torch.rand(8), torch.randn(8)
    y = arrange(torch.empty(x.shape, dtype=dtype), layout)
    aclnn.call("AscendAntiQuant", x, scale, offset, code, False, y)
    assert torch.equal(y, ((x.float() + offset) * scale).to(dtype))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_dynamic_quant(dtype, layout):
    x, smooth = (torch.randn(3, 7, 33) * 4).to(dtype), (torch.rand(33) + 0.5).to(dtype)
    x[1, 2] = 0
    x = arrange(x, layout)
    y, scale, offset = torch.empty(x.shape, dtype=torch.int8), torch.empty(3, 7), torch.empty(3, 7)
    aclnn.call("DynamicQuant", x, smooth, y, scale)
    v = x.float() * smooth.float()
    torch.testing.assert_close(scale, v.abs().amax(-1) / 127)
    assert ((y.float() * scale[..., None] - v).abs() <= scale[..., None] * 0.501).all()
    aclnn.call("DynamicQuantV2", x, None, None, 2, y, scale, offset)
    v = x.float()
    assert (((y.float() - offset[..., None]) * scale[..., None] - v).abs() <= scale[..., None] * 0.501 + 1e-6).all()
    assert (y[1, 2] == 0).all() and scale[1, 2] == 0


def pack(w):
    """int8 [.., n] with values of 4 bits -> int32 [.., n / 8], the first value in the lowest bits."""
    parts = (w.long() & 15).unflatten(-1, (-1, 8)) << (4 * torch.arange(8))
    value = parts.sum(-1)
    return torch.where(value >= 2**31, value - 2**32, value).to(torch.int32)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_quantised_weights(dtype, transposed, bits):
    g = torch.Generator().manual_seed(0)
    k, n, high = 96, 40, 2 ** (bits - 1)
    w = torch.randint(-high, high, (k, n), generator=g, dtype=torch.int8)
    given = w.t().contiguous() if transposed else w
    given = pack(given) if bits == 4 else given
    given = given.t() if transposed else given
    bias = torch.randn(n, generator=g).to(dtype)
    for rows in ((1, k), (33, k), (2, 5, k)):
        x = torch.randn(rows, generator=g).to(dtype)
        for group, shape in ((0, (1,)), (0, (n,)), (0, (1, n)), (32, (3, n)), (64, (2, n))):
            scale, offset = (torch.rand(shape, generator=g) + 0.1).to(dtype), torch.randint(-4, 4, shape, generator=g).to(dtype)
            for o, b in ((None, None), (offset, bias)):
                def per_row(t):
                    return t.double().repeat_interleave(group, 0)[:k] if group else t.double()
                plain = (w.double() + (per_row(o) if o is not None else 0)) * per_row(scale)
                expected = x.double() @ plain + (b.double() if b is not None else 0)
                y = torch.full((*rows[:-1], n), 77.0, dtype=dtype)
                aclnn.call("WeightQuantBatchMatmulV2", x, given, scale, o, None, None, b, group, y)
                bound = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}[dtype] * expected.abs().max().item()
                cases.compare(y, expected, rtol=0, atol=bound)


def test_quantised_weights_say_what_is_wrong():
    x, w = torch.rand(2, 64), torch.zeros(64, 8, dtype=torch.int8)
    for change, part in ((dict(w=w.float()), "weight has type float32"), (dict(x=torch.rand(2, 63)), "63 columns, 64 rows"),
                         (dict(scale=torch.rand(2, 8)), "antiquantScale has shape [2,8]"), (dict(group=32), "[2,8]"),
                         (dict(y=torch.rand(2, 9)), "y has shape [2,9]"), (dict(bias=torch.rand(9)), "biasOptional has shape [9]")):
        a = dict(x=x, w=w, scale=torch.rand(8), bias=None, group=0, y=torch.rand(2, 8)) | change
        with pytest.raises(aclnn.Failed) as failure:
            aclnn.call("WeightQuantBatchMatmulV2", a["x"], a["w"], a["scale"], None, None, None, a["bias"], a["group"], a["y"])
        assert part in str(failure.value) and failure.value.code == 161002
