"""Distances between rows, against torch in float64."""

import pytest
import torch

import aclnn
import cases

ORDERS = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, float("inf")]
SHAPES = [((5, 7), (4, 7)), ((2, 3, 9), (2, 6, 9)), ((3, 1, 5, 2), (4, 6, 2)), ((300, 3), (290, 3)), ((6, 500), (7, 500)), ((0, 3), (4, 3)), ((3, 0), (4, 0))]


@pytest.mark.parametrize("dtype", cases.FLOATS)
@pytest.mark.parametrize("p", ORDERS)
def test_cdist(dtype, p):
    for a, b in SHAPES:
        for layout in ("contiguous", "strided", "transposed"):
            x1, x2 = cases.lay(cases.values(a, dtype, seed=1), layout), cases.lay(cases.values(b, dtype, seed=2), layout)
            w1, w2 = cases.wide(x1).contiguous().requires_grad_(), cases.wide(x2).contiguous()
            e = torch.cdist(w1, w2, p, compute_mode="donot_use_mm_for_euclid_dist")
            out = cases.lay(torch.full(e.shape, 77.0, dtype=torch.float64).to(dtype), layout)
            aclnn.call("Cdist", x1, x2, p, 0, out)
            cases.compare(out, e.detach())
            if p == 0 or 0 in e.shape or dtype in (torch.float16, torch.bfloat16) or p < 1:
                continue
            g = cases.values(e.shape, dtype, seed=3)
            batch = torch.broadcast_shapes(a[:-2], b[:-2])
            # The gradient of the expanded x1, as torch's own operator gives it.
            wide1 = w1.detach().expand(*batch, *a[-2:]).contiguous().requires_grad_()
            (e_grad,) = torch.autograd.grad(torch.cdist(wide1, w2, p, compute_mode="donot_use_mm_for_euclid_dist"), wide1, cases.wide(g))
            grad = cases.lay(torch.full(e_grad.shape, 77.0, dtype=torch.float64).to(dtype), layout)
            aclnn.call("CdistBackward", g, x1, x2, e.detach().to(dtype), p, grad)
            cases.compare(grad, e_grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", cases.FLOATS)
@pytest.mark.parametrize("p", ORDERS)
def test_pdist(dtype, p):
    for shape in [(5, 7), (2, 3), (1, 3), (0, 3), (300, 4)]:
        x = cases.values(shape, dtype)
        e = torch.pdist(cases.wide(x), p)
        out = torch.full(e.shape, 77.0, dtype=torch.float64).to(dtype)
        aclnn.call("Pdist", x, p, out)
        cases.compare(out, e)
        aclnn.call("PdistForward", x, p, out)
        cases.compare(out, e)
