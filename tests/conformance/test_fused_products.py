"""Products with what goes before or after them, against their formulas in float64."""

import pytest
import torch
import torch.nn.functional as F

import aclnn
from test_format import FRACTAL_NZ, handle, nz
from test_quant_products import cut, near, params
from test_quant_rows import FLOATS, randn, uniform, unpack


@pytest.mark.parametrize("dtype", FLOATS)
def test_transpose_batch_matmul(dtype):
    batch, m, k, n = 4, 5, 32, 48
    a, b = randn(batch, m, k, dtype=dtype), randn(batch, k, n, seed=1, dtype=dtype)
    y = (a.double() @ b.double()).transpose(0, 1)
    stored = nz(b, 32 // dtype.itemsize)
    for op, weight in (("TransposeBatchMatMul", b), ("TransposeBatchMatMulWeightNz", b), ("TransposeBatchMatMulWeightNz", handle(stored, b.shape, FRACTAL_NZ))):
        for x, order in ((a, [0, 1, 2]), (a.transpose(0, 1).contiguous(), [1, 0, 2])):
            out = torch.empty(m, batch, n, dtype=dtype)
            aclnn.call(op, x, weight, None, None, order, [0, 1, 2], [1, 0, 2], 1, 1, out)
            near(out, y)
            for parts in (2, 8):
                out = torch.empty(parts, m, batch * n // parts, dtype=dtype)
                aclnn.call(op, x, weight, None, None, order, [0, 1, 2], [1, 0, 2], 1, parts, out)
                near(out, y.reshape(m, parts, -1).transpose(0, 1))
    out = torch.empty(batch, m, n, dtype=dtype)
    aclnn.call("TransposeBatchMatMul", a, b.transpose(1, 2).contiguous(), None, None, [0, 1, 2], [0, 2, 1], [0, 1, 2], 1, 1, out)
    near(out, y.transpose(0, 1))
    scale, quantised = uniform(batch * n), torch.empty(m, 1, batch * n, dtype=torch.int8)
    aclnn.call("TransposeBatchMatMul", a, b, None, params(scale), [0, 1, 2], [0, 1, 2], [1, 0, 2], 1, 1, quantised)
    assert (quantised[:, 0].double() - y.reshape(m, -1) * cut(scale).double()).abs().max() < 0.52
    for change, part in ((dict(perm=[0, 0, 1]), "permX1 is not an order"), (dict(parts=5), "batchSplitFactor is 5"), (dict(x=a[:3]), "don't match"),
                         (dict(out=out[:1]), "out has shape"), (dict(bias=scale), "bias is given")):
        c = dict(x=a, perm=[0, 1, 2], parts=1, out=out, bias=None) | change
        with pytest.raises(aclnn.Failed, match=part):
            aclnn.call("TransposeBatchMatMul", c["x"], b, c["bias"], None, c["perm"], [0, 1, 2], [1, 0, 2], 1, c["parts"], c["out"])


@pytest.mark.parametrize("dtype", FLOATS)
def test_fused_matmul(dtype):
    for shapes in (((9, 32), (32, 40)), ((3, 9, 32), (3, 32, 40)), ((2, 1, 9, 32), (3, 32, 40)), ((130, 64), (64, 70))):
        a, b, bias = randn(*shapes[0], dtype=dtype), randn(*shapes[1], seed=1, dtype=dtype), randn(shapes[1][-1], seed=2, dtype=dtype)
        x3 = randn(*(a.double() @ b.double()).shape, seed=3, dtype=dtype)
        for given in (None, bias):
            y = a.double() @ b.double() + (given.double() if given is not None else 0)
            for kind, expected in (("", y), ("16cast32", y), ("add", y + x3.double()), ("mul", y * x3.double()), ("relu", y.relu()),
                                   ("gelu_erf", F.gelu(y)), ("gelu_tanh", F.gelu(y, approximate="tanh"))):
                out = torch.empty(y.shape[:-2] + y.shape[:-3:-1], dtype=dtype).transpose(-1, -2)
                aclnn.call("FusedMatmul", a, b, given, x3 if kind in ("add", "mul") else None, kind, 0, out)
                near(out, expected, 2)
    for arguments, part in (((a, b, None, None, "add"), "x3 is absent"), ((a, b, None, None, "x"), 'fusedOpType is "x"'), ((a, b[:9], None, None, ""), "64 columns, 9 rows"),
                            ((a, b, a, None, ""), "bias has shape"), ((a, b, None, b, "mul"), "x3 has shape")):
        with pytest.raises(aclnn.Failed, match=part):
            aclnn.call("FusedMatmul", *arguments, 0, out)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_flat_quant(dtype):
    x, p1, p2 = randn(6, 16, 32, dtype=dtype), randn(16, 16, seed=1, dtype=dtype), randn(32, 32, seed=2, dtype=dtype)
    y = p1.double() @ (x.double() @ p2.double())
    for op, last in (("FlatQuant", ()), ("FlatQuantV2", (0.0,))):
        for ratio in (1.0, 0.7):
            out, scale = torch.empty(6, 16, 4, dtype=torch.int32), torch.empty(6)
            aclnn.call(op, x, p1, p2, ratio, *last, out, scale)
            torch.testing.assert_close(scale.double(), y.abs().amax((1, 2)) / 7 / ratio, rtol=1e-2, atol=0)
            assert (unpack(out).double() - (y / scale.double()[:, None, None]).clamp(-8, 7)).abs().max() < 0.6
    with pytest.raises(aclnn.Failed, match="clipRatio is 0"):
        aclnn.call("FlatQuant", x, p1, p2, 0.0, out, scale)
    with pytest.raises(aclnn.Failed, match="kroneckerP2 has shape"):
        aclnn.call("FlatQuant", x, p1, p1, 1.0, out, scale)


def test_weight_quant_v3():
    x, w, scale = randn(5, 64).half(), torch.randint(-128, 128, (64, 40), dtype=torch.int8), uniform(40).half()
    out = torch.empty(5, 40).half()
    aclnn.call("WeightQuantBatchMatmulV3", x, w, scale, None, None, None, None, 0, 1, out)
    near(out, x.double() @ (w.double() * scale.double()))


def test_rotate_quant():
    x, turn = randn(9, 128, dtype=torch.bfloat16), randn(32, 32, seed=1, dtype=torch.bfloat16)
    y = (x.double().reshape(-1, 32) @ turn.double()).reshape(9, 128)
    for high, out in ((127, torch.empty(9, 128, dtype=torch.int8)), (7, torch.empty(9, 16, dtype=torch.int32))):
        scale = torch.empty(9)
        aclnn.call("RotateQuant", x, turn, None, -1, "rint", 0, 0.0, False, out, scale)
        torch.testing.assert_close(scale.double(), y.abs().amax(1) / high, rtol=1e-4, atol=0)
        numbers = out if high == 127 else unpack(out)
        assert (numbers.double() - (y / scale.double()[:, None]).clamp(-high - 1, high)).abs().max() < 0.52
    with pytest.raises(aclnn.Failed, match="rotation has shape"):
        aclnn.call("RotateQuant", x, turn[:30, :30].contiguous(), None, -1, "rint", 0, 0.0, False, out, scale)
    with pytest.raises(aclnn.Failed, match="alpha is given"):
        aclnn.call("RotateQuant", x, turn, scale, -1, "rint", 0, 0.0, False, out, scale)


def test_quant_matmul_reduce_sum():
    a, b = (torch.randint(-128, 128, s, generator=torch.Generator().manual_seed(len(s)), dtype=torch.int8) for s in ((5, 9, 64), (5, 64, 96)))
    row, column = uniform(5, 9) / 100, (uniform(96, seed=1) / 100).bfloat16()
    expected = (a.double() @ b.double() * row.double()[..., None]).sum(0) * column.double()
    stored = nz(b, 32)
    for weight in (b, handle(stored, b.shape, FRACTAL_NZ)):
        for keep in (False, True):
            out = torch.empty((1, 9, 96) if keep else (9, 96), dtype=torch.bfloat16)
            aclnn.call("QuantMatmulReduceSumWeightNz", a, weight, row, column, None, None, None, None, None, False, False, -1, [0], keep, out)
            near(out.reshape(9, 96), expected)
    for change, part in ((dict(row=row[:2]), "x1Scale is"), (dict(column=column[:2]), "x2Scale is"), (dict(dims=[0, 1]), "dims has 2 values"), (dict(bias=column), "bias is given")):
        c = dict(row=row, column=column, dims=[0], bias=None) | change
        with pytest.raises(aclnn.Failed, match=part):
            aclnn.call("QuantMatmulReduceSumWeightNz", a, b, c["row"], c["column"], None, None, None, None, c["bias"], False, False, -1, c["dims"], True, out)
