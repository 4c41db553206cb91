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
            cases.compare(out, reference(cases.wide(x), dim))


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
