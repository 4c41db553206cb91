"""Quantisation operators against PyTorch's own, and against their formulas."""

import pytest
import torch

import aclnn
from test_norm import arrange

LAYOUTS = ["contiguous", "transposed", "offset"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_fake_quant(layout, dtype):
    torch.manual_seed(0)
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
    torch.manual_seed(0)
    x = arrange(torch.randn(4, 5, 6) * 20, layout)
    scale, zero = torch.rand(5) + 0.05, torch.randint(0, 9, (5,), dtype=torch.int32)
    out = arrange(torch.empty(x.shape, dtype=dtype), layout)
    aclnn.call("Quantize", x, scale, zero, dtype, 1, out)
    assert torch.equal(out, torch.quantize_per_channel(x.contiguous(), scale, zero, 1, quantised).int_repr())
    aclnn.call("Quantize", x, scale[:1], None, dtype, 0, out)
    assert torch.equal(out, torch.quantize_per_tensor(x.contiguous(), scale[0].item(), 0, quantised).int_repr())


@pytest.mark.parametrize("mode,f", [("round", torch.round), ("floor", torch.floor), ("ceil", torch.ceil), ("trunc", torch.trunc)])
def test_ascend_quant(mode, f):
    torch.manual_seed(0)
    x, scale, offset = torch.randn(3, 4, 8) * 20, torch.rand(8) * 3, torch.randn(8)
    y = torch.empty(x.shape, dtype=torch.int8)
    aclnn.call("AscendQuant", x, scale, offset, False, mode, 2, y)
    assert torch.equal(y, f(x * scale + offset).clamp(-128, 127).to(torch.int8))
    aclnn.call("AscendQuantV3", x, scale, None, True, mode, 2, -1, y)
    assert torch.equal(y, f(x * scale * scale).clamp(-128, 127).to(torch.int8))


def test_ascend_anti_quant():
    torch.manual_seed(0)
    x, scale, offset = torch.randint(-128, 127, (5, 8), dtype=torch.int8), torch.rand(8), torch.randn(8)
    y = torch.empty(x.shape, dtype=torch.float16)
    aclnn.call("AscendAntiQuant", x, scale, offset, 1, False, y)
    assert torch.equal(y, ((x.float() + offset) * scale).half())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_dynamic_quant(dtype):
    torch.manual_seed(0)
    x, smooth = (torch.randn(3, 7, 33) * 4).to(dtype), (torch.rand(33) + 0.5).to(dtype)
    x[1, 2] = 0
    y, scale, offset = torch.empty(x.shape, dtype=torch.int8), torch.empty(3, 7), torch.empty(3, 7)
    aclnn.call("DynamicQuant", x, smooth, y, scale)
    v = x.float() * smooth.float()
    torch.testing.assert_close(scale, v.abs().amax(-1) / 127)
    assert ((y.float() * scale[..., None] - v).abs() <= scale[..., None] * 0.501).all()
    aclnn.call("DynamicQuantV2", x, None, None, 2, y, scale, offset)
    v = x.float()
    assert (((y.float() - offset[..., None]) * scale[..., None] - v).abs() <= scale[..., None] * 0.501 + 1e-6).all()
    assert (y[1, 2] == 0).all() and scale[1, 2] == 0
