"""Softmax and its relatives along every dimension, against torch in float64."""

import pytest
import torch

import aclnn
import cases

SHAPES = [(3, 5, 7), (4, 1000), (1000, 40), (6, 50, 33), (2, 3, 2, 20)]


def inputs(dtype, seed=0):
    for layout in cases.LAYOUTS:
        yield cases.tensor((3, 5, 7), dtype, layout, -9, 9, seed), layout
    for shape in SHAPES:
        yield cases.tensor(shape, dtype, "contiguous", -9, 9, seed), "contiguous"
    x = cases.tensor((5, 6), dtype, "contiguous", -9, 9, seed)
    x[0, 0], x[1, 1], x[2], x[3, 3] = float("nan"), float("inf"), -float("inf"), -float("inf")
    yield x, "contiguous"
    yield cases.tensor((30, 40, 20), dtype, "contiguous", -9, 9, seed).permute(2, 0, 1), "transposed"


def output_like(x, layout):
    return cases.lay(torch.full(x.shape, 77.0, dtype=torch.float64).to(x.dtype), cases.OUTPUT_LAYOUTS.get(layout, layout))


@pytest.mark.parametrize("dtype", cases.FLOATS)
@pytest.mark.parametrize("op,reference", [("Softmax", torch.softmax), ("LogSoftmax", torch.log_softmax)])
def test_softmax(op, reference, dtype):
    for x, layout in inputs(dtype):
        for dim in range(-1, max(1, x.dim())):
            out = output_like(x, layout)
            aclnn.call(op, x, dim, out)
            cases.compare(out, reference(cases.wide(x), dim), cancels=op == "LogSoftmax")


@pytest.mark.parametrize("dtype", cases.FLOATS)
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_softmax_backward(op, dtype):
    reference = torch.ops.aten._softmax_backward_data if op == "Softmax" else torch.ops.aten._log_softmax_backward_data
    for (x, layout), (dy, _) in zip(inputs(dtype), inputs(dtype, 1)):
        for dim in range(-1, max(1, x.dim())):
            y = (torch.softmax if op == "Softmax" else torch.log_softmax)(cases.wide(x), dim).to(dtype)
            out = output_like(x, layout)
            aclnn.call(op + "Backward", dy, y, dim, out)
            cases.compare(out, reference(cases.wide(dy), cases.wide(y), dim, torch.float64), atol=1e-4 if dtype == torch.float32 else None)


@pytest.mark.parametrize("dtype", cases.FLOATS)
@pytest.mark.parametrize("triangular", [False, True])
@pytest.mark.parametrize("mask_shape", [(2, 1, 5, 7), (1, 1, 5, 7), (2, 3, 5, 7)])
def test_scaled_masked_softmax(dtype, triangular, mask_shape):
    for layout in ("contiguous", "transposed", "strided"):
        x, mask = cases.tensor((2, 3, 5, 7), dtype, layout), cases.tensor(mask_shape, torch.bool, layout)
        if triangular:
            full = torch.ones(5, 7, dtype=torch.bool).triu(1)
        else:
            full = mask
        out, w = output_like(x, layout), cases.wide(x).requires_grad_()
        aclnn.call("ScaledMaskedSoftmax", x, mask, 0.7, triangular, out)
        y = torch.where(full, -10000.0, w * 0.7).softmax(-1)
        cases.compare(out, y.detach())
        dy, dx = cases.tensor((2, 3, 5, 7), dtype, layout, seed=4), output_like(x, layout)
        aclnn.call("ScaledMaskedSoftmaxBackward", dy, y.detach().to(dtype), mask, 0.7, triangular, dx)
        (e,) = torch.autograd.grad(y, w, cases.wide(dy))
        cases.compare(dx, e, atol={torch.float16: 2e-3, torch.bfloat16: 2e-2}.get(dtype))
