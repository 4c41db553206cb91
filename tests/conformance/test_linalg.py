"""Linear algebra against PyTorch in double precision; decompositions by what defines them."""

import pytest
import torch

import accuracy
import aclnn
import cases
from test_norm import arrange

TYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]
TOLERANCE = {torch.float32: 2e-5, torch.complex64: 2e-5, torch.float64: 1e-11, torch.complex128: 1e-11}
WIDE = {torch.float32: torch.float64, torch.complex64: torch.complex128}
SIZES = [1, 2, 5, 64, 65, 150]


def make(shape, dtype, layout="contiguous"):
    torch.manual_seed(0)
    return arrange(torch.randn(shape, dtype=WIDE.get(dtype, dtype)).to(dtype), layout)


def wide(x):
    return x.to(WIDE.get(x.dtype, x.dtype))


def real(dtype):
    return {torch.complex64: torch.float32, torch.complex128: torch.float64}.get(dtype, dtype)


def close(a, e, factor=1.0):
    tolerance = TOLERANCE[a.dtype] * factor
    e = e.to(wide(a).dtype)
    torch.testing.assert_close(wide(a), e, rtol=tolerance, atol=tolerance * max(1.0, e.abs().max().item() if e.numel() else 1.0))
    accuracy.record(aclnn.writers(a), a, e)


def well_conditioned(n, dtype, layout="contiguous", batch=()):
    x = make((*batch, n, n), dtype)
    return arrange(x + 2 * n ** 0.5 * torch.eye(n, dtype=dtype), layout)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "offset"])
def test_inverse_and_determinants(dtype, n, layout):
    a = well_conditioned(n, dtype, layout, (2,))
    out = arrange(torch.empty_like(a), layout)
    aclnn.call("Inverse", a, out)
    close(out, torch.linalg.inv(wide(a)), 10)
    sign, log = torch.empty(2, dtype=dtype), torch.empty(2, dtype=real(dtype))
    aclnn.call("Slogdet", a, sign, log)
    expected = torch.linalg.slogdet(wide(a))
    close(sign, expected.sign, 10)
    close(log, expected.logabsdet, 10)
    logdet = torch.empty(2, dtype=dtype)
    aclnn.call("Logdet", a, logdet)
    cases.compare(logdet, torch.logdet(wide(a)), rtol=1e-4, atol=1e-4)


def test_determinant_of_a_permutation_and_of_a_singular_matrix():
    a = torch.eye(4)[[1, 0, 2, 3]]
    sign, log = torch.empty(()), torch.empty(())
    aclnn.call("Slogdet", a, sign, log)
    assert sign == -1 and log == 0
    aclnn.call("Slogdet", torch.zeros(3, 3), sign, log)
    assert sign == 0 and log == -torch.inf
    with pytest.raises(aclnn.Failed, match="matrix 1 of self is singular"):
        aclnn.call("Inverse", torch.stack([torch.eye(3), torch.ones(3, 3)]), torch.empty(2, 3, 3))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("upper", [True, False])
@pytest.mark.parametrize("transpose", [True, False])
@pytest.mark.parametrize("unit", [True, False])
def test_triangular_solve(dtype, n, upper, transpose, unit):
    a = make((2, n, n), dtype) * 0.3 / n ** 0.5 + 2 * torch.eye(n, dtype=dtype)
    b = make((2, n, 7), dtype, "transposed")
    x, m = torch.empty_like(b), torch.empty_like(a)
    aclnn.call("TriangularSolve", b, a, upper, transpose, unit, x, m)
    t = wide(a).triu() if upper else wide(a).tril()
    if unit:
        t = t - torch.diag_embed(t.diagonal(dim1=-2, dim2=-1)) + torch.eye(n)
    close(x, torch.linalg.solve(t.transpose(-2, -1) if transpose else t, wide(b)), 10)
    assert torch.equal(m, a)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("upper", [True, False])
def test_cholesky(dtype, n, upper):
    x = make((3, n, n), dtype)
    a = x @ x.mH + torch.eye(n, dtype=dtype)
    out = torch.empty_like(a)
    aclnn.call("LinalgCholesky", a, upper, out)
    close(out, torch.linalg.cholesky(wide(a), upper=upper), 50)


def test_cholesky_of_an_indefinite_matrix():
    with pytest.raises(aclnn.Failed, match="not positive definite: its leading minor of order 2 is not"):
        aclnn.call("LinalgCholesky", torch.diag(torch.tensor([1.0, -1.0])), False, torch.empty(2, 2))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (7, 3), (3, 7), (80, 70)])
def test_qr(dtype, shape):
    m, n = shape
    k = min(m, n)
    a = make((2, m, n), dtype, "offset")
    for mode, rows in (("reduced", k), ("complete", m), ("r", k)):
        q = torch.empty((2, m, rows) if mode != "r" else (0,), dtype=dtype)
        r = torch.empty(2, rows, n, dtype=dtype)
        aclnn.call("LinalgQr", a, ("reduced", "complete", "r").index(mode), q, r)
        expected = torch.linalg.qr(wide(a), mode)
        close(r, expected.R, 10)  # LAPACK's signs
        if mode != "r":
            close(q, expected.Q, 20)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (7, 3), (3, 7), (60, 45)])
@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("rank", [None, 1])
def test_svd(dtype, shape, full, rank):
    m, n = shape
    k = min(m, n)
    a = make((2, m, n), dtype)
    if rank:
        a = (a[..., :1] @ a[:, :1, :]).contiguous()
    u, v = torch.empty(2, m, m if full else k, dtype=dtype), torch.empty(2, n, n if full else k, dtype=dtype)
    s = torch.empty(2, k, dtype=dtype)
    aclnn.call("Svd", a, full, True, s, u, v)
    close(s, torch.linalg.svdvals(wide(a)), 2)
    close((u[..., :k] * s.unsqueeze(-2)) @ v[..., :k].mT, wide(a), 2)
    close(u.mT @ u, torch.eye(u.shape[-1]).expand(2, -1, -1), 2)
    close(v.mT @ v, torch.eye(v.shape[-1]).expand(2, -1, -1), 2)
    values = torch.empty(2, k, dtype=dtype)
    aclnn.call("Svd", a, full, False, values, torch.empty(0, dtype=dtype), torch.empty(0, dtype=dtype))
    close(values, wide(s), 2)


@pytest.mark.parametrize("dtype", [*cases.REAL, *cases.COMPLEX])
def test_cross(dtype):
    torch.manual_seed(0)
    a, b = (torch.randint(-7, 7, s).to(dtype) for s in ((4, 3, 5), (1, 3, 5)))
    out = arrange(torch.empty(4, 3, 5, dtype=dtype), "transposed")
    aclnn.call("LinalgCross", a, b, 1, out)
    cases.compare(out, torch.linalg.cross(cases.wide(a), cases.wide(b), dim=1), rtol=0, atol=0)


def test_empty_batches():
    aclnn.call("Inverse", torch.empty(0, 3, 3), torch.empty(0, 3, 3))
    aclnn.call("Svd", torch.empty(0, 3, 3), False, True, torch.empty(0, 3), torch.empty(0, 3, 3), torch.empty(0, 3, 3))
    sign, log = torch.empty(2), torch.empty(2)
    aclnn.call("Slogdet", torch.empty(2, 0, 0), sign, log)
    assert sign.eq(1).all() and log.eq(0).all()


def test_errors_name_the_argument():
    with pytest.raises(aclnn.Failed, match=r"self has shape \[2,3\], expected square matrices"):
        aclnn.call("Inverse", torch.ones(2, 3), torch.ones(2, 3))
