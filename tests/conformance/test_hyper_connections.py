"""Hyper-connections against plain PyTorch in float64."""

import pytest
import torch

import aclnn
from test_cache import FLOATS, near

N, D, EPS = 4, 24, 1e-3


def near_gradient(actual, expected, dtype):
    tolerance = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}[dtype]
    torch.testing.assert_close(actual.double(), expected.reshape(actual.shape), rtol=tolerance, atol=tolerance * max(1.0, expected.abs().max().item()))


def pre(x, phi, alpha, bias, gamma, norm_eps, hc_eps):
    flat = x.flatten(-2)
    inverse = (flat.square().mean(-1) + norm_eps).rsqrt()
    mix = (flat if gamma is None else flat * gamma.flatten()) @ phi.T
    h = mix * inverse.unsqueeze(-1)
    weight = torch.sigmoid(h[..., :N] * alpha[0] + bias[:N]) + hc_eps
    post = 2 * torch.sigmoid(h[..., N:2 * N] * alpha[1] + bias[N:2 * N])
    res = (h[..., 2 * N:] * alpha[2] + bias[2 * N:]).unflatten(-1, (N, N)) if phi.shape[0] > 2 * N else None
    return (weight.unsqueeze(-1) * x).sum(-2), post, res, inverse, mix, weight


def balanced(x, eps, iterations):
    y = x.softmax(-1) + eps
    y = y / (y.sum(-2, keepdim=True) + eps)
    for _ in range(iterations - 1):
        y = y / (y.sum(-1, keepdim=True) + eps)
        y = y / (y.sum(-2, keepdim=True) + eps)
    return y


def inputs(shape, dtype, mixing=True, scaled=True):
    numbers = 2 * N + (N * N if mixing else 0)
    x, phi = torch.randn(*shape, N, D).to(dtype), torch.randn(numbers, N * D) / 8
    return x, phi, torch.rand(3 if mixing else 2), torch.randn(numbers), torch.rand(N, D) if scaled else None


@pytest.mark.parametrize("operator", ["MhcPre", "MhcPreV2"])
@pytest.mark.parametrize("shape", [(7,), (2, 3)])
@pytest.mark.parametrize("mixing,scaled,extras", [(True, True, True), (True, False, False), (False, True, True)])
@pytest.mark.parametrize("dtype", FLOATS)
def test_pre(dtype, mixing, scaled, extras, shape, operator):
    x, phi, alpha, bias, gamma = inputs(shape, dtype, mixing, scaled)
    outs = [torch.empty(*shape, D, dtype=dtype), torch.empty(*shape, N), torch.empty(*shape, N, N), torch.empty(shape), torch.empty(*shape, len(phi)), torch.empty(*shape, N)]
    mode = (0,) if operator == "MhcPreV2" else ()
    aclnn.call(operator, x, phi, alpha, bias, gamma, 1e-6, EPS, *mode, *outs[:3], *(outs[3:] if extras else (None, None, None)))
    wanted = pre(*(None if t is None else t.double() for t in (x, phi, alpha, bias, gamma)), 1e-6, EPS)
    near(outs[0], wanted[0], dtype)
    for i, (got, w) in enumerate(zip(outs[1:], wanted[1:]), 1):
        if w is not None and (i < 3 or extras):
            torch.testing.assert_close(got.double(), w, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scaled,more", [(True, True), (False, False)])
@pytest.mark.parametrize("dtype", FLOATS)
def test_pre_gradient(dtype, scaled, more):
    x, phi, alpha, bias, gamma = tensors = inputs((9,), dtype, True, scaled)
    leaves = [None if t is None else t.double().requires_grad_() for t in tensors]
    made = pre(*leaves, 1e-6, EPS)
    grads = [torch.randn(9, D).to(dtype), torch.randn(9, N), torch.randn(9, N, N)]
    extra = torch.randn(x.shape).to(dtype) if more else None
    given = [t for t in leaves if t is not None]
    wanted = list(torch.autograd.grad(made[:3], given, [g.double() for g in grads]))
    if more:
        wanted[0] = wanted[0] + extra.double()
    saved = [made[i].detach().float() for i in (3, 4, 5, 1)]
    results = [torch.empty_like(t) for t in tensors if t is not None]
    aclnn.call("MhcPreBackward", x, phi, alpha, *grads, *saved, gamma, extra, EPS, *results[:4], results[4] if scaled else torch.empty(0))
    for got, w in zip(results, wanted):
        near_gradient(got, w, dtype)


@pytest.mark.parametrize("mixing", [True, False])
@pytest.mark.parametrize("shape", [(7,), (2, 3)])
@pytest.mark.parametrize("dtype", FLOATS)
def test_post(dtype, shape, mixing):
    tensors = torch.randn(*shape, N, D).to(dtype), torch.randn(*shape, N, N) if mixing else None, torch.randn(*shape, D).to(dtype), torch.randn(*shape, N)
    x, res, out, post = leaves = [None if t is None else t.double().requires_grad_() for t in tensors]
    expected = post.unsqueeze(-1) * out.unsqueeze(-2) + (x if res is None else (res.unsqueeze(-1) * x.unsqueeze(-2)).sum(-3))
    y = torch.empty_like(tensors[0])
    aclnn.call("MhcPost", *tensors, y)
    near(y, expected.detach(), dtype)
    if mixing:
        y = torch.empty_like(tensors[0])
        aclnn.call("HcPost", tensors[2], tensors[0], tensors[3], tensors[1], y)
        near(y, expected.detach(), dtype)
    grad = torch.randn(expected.shape).to(dtype)
    wanted = torch.autograd.grad(expected, [t for t in leaves if t is not None], grad.double())
    results = [torch.empty_like(t) if t is not None else torch.empty(0) for t in tensors]
    if mixing:
        aclnn.call("MhcPostBackward", grad, *tensors, *results)
        for got, w in zip(results, wanted):
            near_gradient(got, w, dtype)


@pytest.mark.parametrize("iterations", [1, 2, 20])
@pytest.mark.parametrize("n", [2, 4, 8])
def test_sinkhorn(n, iterations):
    x = torch.randn(2, 5, n, n)
    leaf = x.double().requires_grad_()
    expected = balanced(leaf, 1e-6, iterations)
    y, steps, sums = torch.empty_like(x), torch.empty(2 * iterations * 10 * n * 8), torch.empty(2 * iterations * 10 * 8)
    aclnn.call("MhcSinkhorn", x, 1e-6, iterations, y, steps, sums)
    torch.testing.assert_close(y.double(), expected.detach(), rtol=1e-5, atol=1e-6)
    plain = torch.empty_like(x)
    aclnn.call("MhcSinkhorn", x, 1e-6, iterations, plain, None, None)
    assert torch.equal(plain, y)
    grad, gx = torch.randn(x.shape), torch.empty_like(x)
    aclnn.call("MhcSinkhornBackward", grad, steps, sums, gx)
    torch.testing.assert_close(gx.double(), torch.autograd.grad(expected, leaf, grad.double())[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", FLOATS)
def test_hc_pre(dtype):
    x, phi, alpha, bias, _ = inputs((2, 3), dtype, True, False)
    y, post, comb = torch.empty(2, 3, D, dtype=dtype), torch.empty(2, 3, N), torch.empty(2, 3, N, N)
    aclnn.call("HcPre", x, phi, alpha, bias, N, 20, EPS, 1e-6, y, post, comb)
    wanted = pre(*(t.double() for t in (x, phi, alpha, bias)), None, 1e-6, EPS)
    near(y, wanted[0], dtype)
    torch.testing.assert_close(post.double(), wanted[1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(comb.double(), balanced(wanted[2], EPS, 20), rtol=1e-3, atol=1e-4)


def test_wrong_arguments():
    with pytest.raises(aclnn.Failed, match="numIters is 0, expected 1 to 1000"):
        aclnn.call("MhcSinkhorn", torch.randn(1, 2, 4, 4), 1e-6, 0, torch.empty(1, 2, 4, 4), None, None)
    x, phi, alpha, bias, _ = inputs((2,), torch.float32)
    with pytest.raises(aclnn.Failed, match=r"phi has shape \[5,96\], expected \[24,96\]"):
        aclnn.call("MhcPre", x, phi[:5], alpha, bias, None, 1e-6, 1e-6, torch.empty(2, D), torch.empty(2, N), torch.empty(2, N, N), None, None, None)
