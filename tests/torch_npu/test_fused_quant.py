"""Quantised operators through torch_npu's own calls, against formulas of PyTorch on the CPU in float64."""

import pytest
import torch
import torch_npu


def near(actual, expected, share=4e-3):
    bound = share * max(1e-3, expected.abs().max().item())
    torch.testing.assert_close(actual.cpu().double(), expected.double(), rtol=0, atol=bound)


def integers(*shape, low=-128, high=127, seed=0):
    return torch.randint(low, high + 1, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.int8)


def uniform(*shape, seed=9):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 0.02 + 1e-3


def pack(w):
    return torch_npu.npu_convert_weight_to_int4pack(w.int().npu())


@pytest.mark.parametrize("fractal", [False, True])
def test_quant_matmul(fractal):
    torch_npu.npu.config.allow_internal_format = True
    a, b, scale, row = integers(20, 64), integers(64, 96, seed=1), uniform(96), uniform(20)
    sums = a.double() @ b.double()
    bias = torch.randint(-99, 99, (96,), dtype=torch.int32)
    x2 = torch_npu.npu_format_cast(b.npu(), 29) if fractal else b.npu()
    call = lambda **options: torch_npu.npu_quant_matmul(a.npu(), x2, options.pop("scale", scale).npu(), **options)
    near(call(pertoken_scale=row.npu(), output_dtype=torch.bfloat16), sums * scale.double() * row.double()[:, None], 8e-3)
    near(call(output_dtype=torch.float16, bias=bias.npu()), (sums + bias.double()) * scale.double())
    assert torch.equal(call(output_dtype=torch.int32, bias=bias.npu()).cpu(), (sums + bias.double()).int())
    offset = torch.randint(-9, 9, (96,)).float()
    got = call(scale=scale / 40, offset=offset.npu())
    assert got.dtype == torch.int8 and (got.cpu().double() - (sums * scale / 40 + offset).clamp(-128, 127)).abs().max() < 0.6
    transposed = b.t().contiguous().npu().t()
    near(torch_npu.npu_quant_matmul(a.npu(), transposed, scale.npu(), pertoken_scale=row.npu(), output_dtype=torch.float16),
         sums * scale.double() * row.double()[:, None])


def test_quant_matmul_int4():
    a, b, scale, row = integers(20, 64, low=-8, high=7), integers(64, 96, low=-8, high=7, seed=1), uniform(96), uniform(20)
    expected = a.double() @ b.double() * scale.double() * row.double()[:, None]
    for x2 in (pack(b), pack(b.t().contiguous()).t()):
        near(torch_npu.npu_quant_matmul(pack(a), x2, scale.npu(), pertoken_scale=row.npu(), output_dtype=torch.float16), expected)
    x = integers(20, 64)
    groups = uniform(2, 96)
    params = torch_npu.npu_trans_quant_param(groups.flatten().npu()).reshape(2, 96)
    w = b.double() * groups.double().repeat_interleave(32, 0)
    near(torch_npu.npu_quant_matmul(x.npu(), pack(b), scale=params, offset=(8 * w.sum(0)).float().npu(), pertoken_scale=row[:, None].npu(),
                                    output_dtype=torch.float16, group_sizes=[0, 0, 32]), x.double() @ w * row.double()[:, None])


def test_dequant_bias_and_quant_matmul_dequant():
    x = torch.randint(-999, 999, (7, 33), dtype=torch.int32)
    weight, row, bias = uniform(33), uniform(7), torch.randn(33)
    near(torch_npu.npu_dequant_bias(x.npu(), weight.npu(), row.npu(), bias.npu(), output_dtype=torch.float16),
         x.double() * weight.double() * row.double()[:, None] + bias.double())
    a, w, scale = torch.randn(9, 64).half(), integers(48, 64), uniform(48)
    near(torch_npu.npu_quant_matmul_dequant(a.npu(), w.npu(), scale.npu(), quant_mode="pertoken"),
         a.double() @ (w.double().t() * scale.double()), 2e-2)
