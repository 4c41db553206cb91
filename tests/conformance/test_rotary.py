"""Rotary position embeddings and their gradients against their definition in float64."""

import pytest
import torch

import aclnn
import cases

TYPES = [torch.float32, torch.float16, torch.bfloat16]
MODES = ["half", "interleave", "quarter", "interleave-half"]


def parts(x, mode):
    """p(x) and r(x): out = p(x) * cos + r(x) * sin."""
    if mode == "half":
        a, b = x.chunk(2, -1)
        return x, torch.cat((-b, a), -1)
    if mode == "interleave":
        return x, torch.stack((-x[..., 1::2], x[..., ::2]), -1).flatten(-2)
    if mode == "quarter":
        a, b, c, d = x.chunk(4, -1)
        return x, torch.cat((-b, a, -d, c), -1)
    return torch.cat((x[..., ::2], x[..., 1::2]), -1), torch.cat((-x[..., 1::2], x[..., ::2]), -1)


def rotary(x, cos, sin, mode):
    p, r = parts(x, mode)
    return p * cos + r * sin


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("mode", range(4))
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "strided"])
def test_rotary(dtype, mode, layout):
    for shape, angle_shape in [((2, 7, 3, 16), (1, 7, 1, 16)), ((2, 3, 7, 40), (1, 1, 7, 40)), ((5, 2, 8), (5, 1, 8)), ((2, 3, 4, 12), (2, 3, 4, 12))]:
        x, dy = (cases.tensor(shape, dtype, layout, -2, 2, i) for i in range(2))
        cos, sin = (cases.tensor(angle_shape, dtype, layout, -1, 1, 7 + i) for i in range(2))
        leaves = [t.double().requires_grad_() for t in (x, cos, sin)]
        expected = rotary(*leaves, MODES[mode])
        out = cases.empty(shape, dtype, layout)
        aclnn.call("RotaryPositionEmbedding", x, cos, sin, mode, out)
        cases.compare(out, expected.detach())
        out = cases.empty(shape, dtype, layout)
        aclnn.call("RotaryPositionEmbeddingV2", x, cos, sin, mode, None, out)
        cases.compare(out, expected.detach())
        wanted = torch.autograd.grad(expected, leaves, dy.double())
        dx, dcos, dsin = cases.empty(shape, dtype, layout), cases.empty(angle_shape, dtype, layout), cases.empty(angle_shape, dtype, layout)
        aclnn.call("RotaryPositionEmbeddingGrad", dy, cos, sin, x, mode, dx, dcos, dsin)
        for result, e in zip((dx, dcos, dsin), wanted):
            cases.compare(result, e, **({} if dtype != torch.float32 else dict(rtol=1e-5, atol=1e-5)))
        aclnn.call("RotaryPositionEmbeddingGrad", dy, cos, sin, None, mode, dx.zero_(), dcos, dsin)
        cases.compare(dx, wanted[0])


def test_rotation_by_matrix():
    x = cases.tensor((2, 7, 3, 16), torch.float32, "contiguous", -2, 2, 1)
    cos, sin = (cases.tensor((1, 7, 1, 16), torch.float32, "contiguous", -1, 1, i) for i in (2, 3))
    eye = torch.eye(16, dtype=torch.float64)
    matrix = parts(eye, "half")[1]
    out = cases.empty((2, 7, 3, 16), torch.float32)
    aclnn.call("RotaryPositionEmbeddingV2", x, cos, sin, 0, matrix.float(), out)
    cases.compare(out, rotary(x.double(), cos.double(), sin.double(), "half"))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("mode", MODES[:3])
def test_apply_in_place(dtype, mode):
    q, k = cases.tensor((2, 7, 4, 16), dtype, "contiguous", -2, 2, 1), cases.tensor((2, 7, 2, 16), dtype, "contiguous", -2, 2, 2)
    cos, sin = (cases.tensor((2, 7, 1, 16), dtype, "contiguous", -1, 1, i) for i in (3, 4))
    expected = [rotary(t.double(), cos.double(), sin.double(), mode) for t in (q, k)]
    if mode == "half":
        q1, k1 = q.clone(), k.clone()
        aclnn.call("ApplyRotaryPosEmb", q1, k1, cos, sin, 1)
        cases.compare(q1, expected[0]), cases.compare(k1, expected[1])
    aclnn.call("ApplyRotaryPosEmbV2", q, k, cos, sin, 1, mode)
    cases.compare(q, expected[0])
    cases.compare(k, expected[1])


def test_errors():
    x, cos = torch.zeros(2, 3, 4, 6), torch.zeros(1, 3, 1, 6)
    for arguments, part in [((x, cos, cos, 2, None, x.clone()), "multiple of 4"), ((x, cos, cos, 5, None, x.clone()), "mode is 5"),
                            ((x, cos[:, :2], cos, 0, None, x.clone()), "cos [1,2,1,6] can't be broadcast"),
                            ((x, cos, cos, 0, None, x[:1].clone()), "out has shape")]:
        with pytest.raises(aclnn.Failed, match=part.replace("[", r"\[")):
            aclnn.call("RotaryPositionEmbeddingV2", *arguments)
