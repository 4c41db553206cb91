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


def randn(*shape, seed=0, dtype=torch.float16):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def numbers(got, expected, low=-128, high=127):
    assert (got.cpu().double() - expected.double().clamp(low, high)).abs().max() <= 0.53


def rms(x, gamma):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * gamma.double()


def test_dynamic_quant():
    x, smooth, ends = randn(9, 32), randn(3, 32, seed=1).abs() + 0.5, torch.tensor([2, 5, 9], dtype=torch.int32)
    v = x.double() * smooth.double()[torch.tensor([0] * 2 + [1] * 3 + [2] * 4)]
    y, scale = torch_npu.npu_dynamic_quant(x.npu(), smooth_scales=smooth.npu(), group_index=ends.npu())
    near(scale, v.abs().amax(-1) / 127, 1e-4)
    numbers(y, v / scale.cpu().double()[:, None])
    y, scale = torch_npu.npu_dynamic_quant(x.npu(), dst_type=torch.quint4x2)
    assert y.shape == (9, 4) and y.dtype == torch.int32
    near(scale, x.double().abs().amax(-1) / 7, 1e-4)
    y, scale, offset = torch_npu.npu_dynamic_quant_asymmetric(x.npu())
    numbers(y, x.double() / scale.cpu().double()[:, None] + offset.cpu().double()[:, None])
    y, scale = torch_npu.npu_dynamic_quant(x.npu(), quant_mode="pertensor")
    near(scale, x.double().abs().max()[None] / 127, 1e-4)


def test_swiglu_quant():
    x = randn(9, 48, dtype=torch.float32)
    a, b = x.double().chunk(2, -1)
    act = a * torch.nn.functional.silu(b)
    smooth = randn(24, seed=1, dtype=torch.float32).abs() + 0.5
    y, scale = torch_npu.npu_swiglu_quant(x.npu(), smooth_scales=smooth[None].npu(), quant_mode=1)
    numbers(y, act * smooth.double() * scale.cpu().double()[:, None])
    z = torch.randint(-999, 999, (9, 48), dtype=torch.int32)
    weight, row = uniform(1, 48), uniform(9, 1) * 10
    a, b = (z.double() * weight.double() * row.double()).chunk(2, -1)
    y, scale = torch_npu.npu_dequant_swiglu_quant(z.npu(), weight_scale=weight.npu(), activation_scale=row.npu(), group_index=torch.tensor([9]).npu(),
                                                  activate_left=True, quant_mode=1)
    act = torch.nn.functional.silu(a) * b
    near(scale, act.abs().amax(-1) / 127, 1e-4)
    numbers(y, act / scale.cpu().double()[:, None])


def test_norms():
    x1, x2, gamma = randn(5, 32), randn(5, 32, seed=1), randn(32, seed=2).abs() + 0.5
    scales, zeros = uniform(32) * 20 + 0.05, torch.randint(-9, 9, (32,), dtype=torch.int32)
    x = x1.double() + x2.double()
    y1, _, total = torch_npu.npu_add_rms_norm_quant(x1.npu(), x2.npu(), gamma.npu(), scales.npu(), zeros.npu())
    numbers(y1, rms(x, gamma) / scales.double() + zeros.double())
    near(total, x)
    y1, _, total, scale1, _ = torch_npu.npu_add_rms_norm_dynamic_quant(x1.npu(), x2.npu(), gamma.npu())
    numbers(y1, rms(x, gamma) / scale1.cpu().double()[:, None])
    beta, scale, offset = randn(32, seed=3), torch.tensor([20.0]).half(), torch.tensor([3], dtype=torch.int8)
    numbers(torch_npu.npu_rms_norm_quant(x1.npu(), gamma.npu(), beta.npu(), scale.npu(), offset.npu()), (rms(x1.double(), gamma) + beta.double()) * 20 + 3)


def test_gelu_group_and_scatter():
    x, scale = randn(9, 32), uniform(32) * 500
    y, rows = torch_npu.npu_gelu_quant(x.npu(), input_scale=scale.half().npu(), approximate="tanh", quant_mode="dynamic")
    v = torch.nn.functional.gelu(x.double(), approximate="tanh") * scale.half().double()
    numbers(y, v / rows.cpu().double()[:, None])
    groups = uniform(2, 32) * 500
    numbers(torch_npu.npu_group_quant(x.npu(), groups.npu(), torch.tensor([4, 9]).npu(), dst_dtype=torch.int8), x.double() * groups.double()[torch.tensor([0] * 4 + [1] * 5)])
    cache, updates, scales = torch.zeros(2, 9, 32, dtype=torch.int8), randn(2, 1, 32, dtype=torch.bfloat16), (uniform(32) + 0.05).bfloat16()
    got = torch_npu.npu_quant_scatter(cache.npu(), torch.tensor([3, 5], dtype=torch.int32).npu(), updates.npu(), scales.npu(), None, -2, -1, "update").cpu()
    numbers(got[0, 3], updates[0, 0].double() / scales.double())
    numbers(got[1, 5], updates[1, 0].double() / scales.double())
    wide = randn(5, 20, dtype=torch.float32)
    a, b = wide.double()[:, ::2].clamp(max=7.0), wide.double()[:, 1::2].clamp(-7.0, 7.0)
    near(torch_npu.npu_clipped_swiglu(wide.npu()), a * torch.sigmoid(1.702 * a) * (b + 1), 1e-5)


def test_products_and_layouts():
    a, b = randn(6, 4, 32), randn(4, 32, 48, seed=1)
    y = (a.double().transpose(0, 1) @ b.double()).transpose(0, 1)
    near(torch_npu.npu_transpose_batchmatmul(a.npu(), b.npu(), perm_x1=[1, 0, 2]), y)
    near(torch_npu.npu_transpose_batchmatmul(a.npu(), b.npu(), perm_x1=[1, 0, 2], batch_split_factor=4), y.reshape(6, 4, -1).transpose(0, 1))
    x1, x2, x3 = randn(9, 32), randn(32, 40, seed=1), randn(9, 40, seed=2)
    near(torch_npu.npu_fused_matmul(x1.npu(), x2.npu(), x3=x3.npu(), fused_op_type="add"), x1.double() @ x2.double() + x3.double())
    near(torch_npu.npu_fused_matmul(x1.npu(), x2.npu(), fused_op_type="gelu_tanh"), torch.nn.functional.gelu(x1.double() @ x2.double(), approximate="tanh"))
    x, p1, p2 = randn(6, 16, 32), randn(16, 16, seed=1), randn(32, 32, seed=2)
    out, scale = torch_npu.npu_kronecker_quant(x.npu(), p1.npu(), p2.npu())
    assert out.shape == (6, 16, 4) and out.dtype == torch.int32
    near(scale, (p1.double() @ (x.double() @ p2.double())).abs().amax((1, 2)) / 7, 1e-3)


def test_rotation_and_sum_of_products():
    x, turn = randn(9, 128), randn(32, 32, seed=1)
    y, scale = torch_npu.npu_rotate_quant(x.npu(), turn.npu())
    numbers(y, (x.double().reshape(-1, 32) @ turn.double()).reshape(9, 128) / scale.cpu().double()[:, None])
    torch_npu.npu.config.allow_internal_format = True
    a, b, row, column = integers(5, 9, 64), integers(5, 64, 96, seed=1), uniform(5, 9), uniform(96).bfloat16()
    got = torch_npu.npu_quant_matmul_reduce_sum(a.npu(), torch_npu.npu_format_cast(b.npu(), 29), x1_scale=row.npu(), x2_scale=column.npu())
    near(got, (a.double() @ b.double() * row.double()[..., None]).sum(0) * column.double(), 8e-3)
