"""Matrix products against PyTorch in float64 (integers: exactly), over types, layouts, shapes and factors."""

import pytest
import torch

import aclnn
import cases
from test_format import FRACTAL_NZ, handle, nz

TYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.uint8, torch.int16, torch.int32,
         torch.int64, torch.complex64, torch.complex128]
LAYOUTS = ["contiguous", "transposed", "strided", "offset", "expanded"]
# Products of every height and width of the tile kernels and their edges, thin ones, and depths over one block.
SHAPES = [(1, 1, 1), (1, 70, 33), (3, 5, 7), (4, 100, 130), (5, 64, 1), (14, 32, 16), (15, 33, 17), (29, 31, 48), (64, 400, 80),
          (100, 1, 100), (130, 900, 70), (33, 129, 300), (200, 17, 3)]


def tolerance(dtype, k):
    """Both operands are in [-1, 1): partial sums grow as the root of k, and so does the number of roundings."""
    unit = {torch.float32: 6e-8, torch.complex64: 1.2e-7, torch.float64: 2e-16, torch.complex128: 4e-16}.get(dtype, 6e-8)
    r, a = cases.TOLERANCE.get(dtype, (0, 0))
    return dict(rtol=r, atol=max(a if dtype in (torch.float16, torch.bfloat16) else 0, unit * (k + 8 * (k + 1) ** 0.5)))


def check(out, expected, k):
    if out.dtype.is_floating_point or out.dtype.is_complex:
        cases.compare(out, expected, **tolerance(out.dtype, k))
    else:
        torch.testing.assert_close(out, expected.to(out.dtype), rtol=0, atol=0)


def operands(a_shape, b_shape, dtype, layout="contiguous"):
    span = 1.0 if dtype.is_floating_point or dtype.is_complex else 5.0
    return (cases.tensor(a_shape, dtype, layout, -span, span, cases.seed_of("a", a_shape)),
            cases.tensor(b_shape, dtype, layout, -span, span, cases.seed_of("b", b_shape)))


def product(a, b):
    return torch.matmul(cases.wide(a), cases.wide(b))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_mm_layouts(dtype, layout):
    a, b = operands((37, 45), (45, 51), dtype, layout)
    out = cases.empty((37, 51), dtype, layout)
    aclnn.call("Mm", a, b, out, 1)
    check(out, product(a, b), 45)


@pytest.mark.parametrize("dtype", TYPES)
def test_mm_shapes(dtype):
    for m, k, n in SHAPES:
        for transpose_a in (False, True):
            for transpose_b in (False, True):
                a, b = operands((k, m) if transpose_a else (m, k), (n, k) if transpose_b else (k, n), dtype)
                a, b = a.t() if transpose_a else a, b.t() if transpose_b else b
                out = cases.empty((m, n), dtype)
                aclnn.call("Mm", a, b, out, 0)
                check(out, product(a, b), k)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(300, 1100, 310), (1000, 70, 20), (20, 500, 1000), (2, 3000, 600), (600, 3000, 2)])
def test_mm_large(dtype, shape):
    m, k, n = shape
    for transpose_b in (False, True):
        a, b = operands((m, k), (n, k) if transpose_b else (k, n), dtype)
        b = b.t() if transpose_b else b
        out = cases.empty((m, n), dtype)
        aclnn.call("Mm", a, b, out, 0)
        check(out, product(a, b), k)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int32, torch.complex64])
@pytest.mark.parametrize("shape", [(64, 20011, 48), (5, 40000, 7), (200, 17000, 300)])
def test_mm_deep(dtype, shape):
    m, k, n = shape
    a, b = operands((m, k), (k, n), dtype)
    self = cases.tensor((m, n), dtype, "contiguous", -3, 3, 5)
    expected = cases.wide(self) + product(a, b)
    aclnn.call("InplaceAddmm", self, a, b, 1, 1, 0)
    check(self, expected, k)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("a_shape,b_shape", [
    ((7,), (7,)), ((7,), (7, 5)), ((4, 7), (7,)), ((2, 4, 7), (7,)), ((7,), (2, 7, 5)), ((2, 4, 7), (7, 5)), ((4, 7), (2, 7, 5)),
    ((3, 1, 4, 7), (2, 7, 5)), ((2, 3, 4, 7), (2, 3, 7, 5)), ((6, 1, 7), (7, 5)), ((2, 0, 7), (7, 5)), ((2, 4, 0), (0, 5)),
    ((0, 4, 7), (0, 7, 5))])
def test_matmul_ranks(dtype, a_shape, b_shape):
    a, b = operands(a_shape, b_shape, dtype)
    expected = product(a, b)
    out = cases.empty(tuple(expected.shape), dtype)
    aclnn.call("Matmul", a, b, out, 1)
    check(out, expected, a_shape[-1])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("batch", [(5,), (40,), (1,)])
def test_batched(dtype, batch):
    a, b = operands((*batch, 33, 20), (*batch, 20, 47), dtype)
    out = cases.empty((*batch, 33, 47), dtype)
    aclnn.call("BatchMatMul", a, b, out, 1)
    check(out, product(a, b), 20)
    at, bt = operands((*batch, 20, 33), (*batch, 47, 20), dtype)
    out = cases.empty((*batch, 47, 33), dtype).transpose(-1, -2)
    aclnn.call("BatchMatMul", at.transpose(-1, -2), bt.transpose(-1, -2), out, 1)
    check(out, product(at.transpose(-1, -2), bt.transpose(-1, -2)), 20)


ADDENDS = [(37, 51), (51,), (37, 1), (1, 1), ()]
FACTORS = [(1, 1), (0.5, 2.0), (0, 1), (1, 0)]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("addend", ADDENDS)
def test_addmm(dtype, addend):
    a, b = operands((37, 45), (45, 51), dtype)
    self = cases.tensor(addend, dtype, "contiguous", -3, 3, 5)
    for beta, alpha in FACTORS:
        if not (dtype.is_floating_point or dtype.is_complex):
            beta, alpha = int(beta * 2), int(alpha * 3)
        out = cases.empty((37, 51), dtype)
        aclnn.call("Addmm", self, a, b, beta, alpha, out, 1)
        check(out, (beta * cases.wide(self) + alpha * product(a, b)).expand(37, 51), 45 * max(1, abs(alpha)) ** 2)


def test_beta_zero_ignores_nan():
    a, b = operands((4, 6), (6, 5), torch.float32)
    out = cases.empty((4, 5), torch.float32)
    aclnn.call("Addmm", torch.full((4, 5), float("nan")), a, b, 0, 1, out, 1)
    check(out, product(a, b), 6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_addmm_in_place_and_no_depth(dtype):
    a, b = operands((37, 45), (45, 51), dtype)
    self = cases.tensor((37, 51), dtype, "contiguous", -3, 3, 5)
    expected = 0.5 * cases.wide(self) + 2 * product(a, b)
    aclnn.call("InplaceAddmm", self, a, b, 0.5, 2.0, 1)
    check(self, expected, 45 * 4)
    self = cases.tensor((4, 5), dtype, "contiguous", -3, 3, 5)
    out = cases.empty((4, 5), dtype)
    aclnn.call("Addmm", self, torch.empty(4, 0, dtype=dtype), torch.empty(0, 5, dtype=dtype), 0.5, 2.0, out, 1)
    check(out, 0.5 * cases.wide(self), 1)


@pytest.mark.parametrize("dtype", TYPES)
def test_batched_addends(dtype):
    exact = not (dtype.is_floating_point or dtype.is_complex)
    beta, alpha = (2, 3) if exact else (0.5, 2.0)
    a, b = operands((6, 9, 8), (6, 8, 10), dtype)
    for shape in [(6, 9, 10), (9, 10), (1, 9, 10), (10,)]:
        self = cases.tensor(shape, dtype, "contiguous", -3, 3, 5)
        out = cases.empty((6, 9, 10), dtype)
        aclnn.call("Baddbmm", self, a, b, beta, alpha, out, 1)
        check(out, (beta * cases.wide(self) + alpha * product(a, b)).expand(6, 9, 10), 8 * alpha**2)
    self = cases.tensor((9, 10), dtype, "contiguous", -3, 3, 5)
    for items in (6, 1, 0):
        out = cases.empty((9, 10), dtype)
        aclnn.call("Addbmm", self, a[:items], b[:items], beta, alpha, out, 1)
        check(out, beta * cases.wide(self) + alpha * product(a[:items], b[:items]).sum(0), 48 * alpha**2)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_vectors(dtype, layout):
    exact = not (dtype.is_floating_point or dtype.is_complex)
    beta, alpha = (2, 3) if exact else (0.5, 2.0)
    m, v = operands((37, 45), (45,), dtype, layout)
    out = cases.empty((37,), dtype, layout)
    aclnn.call("Mv", m, v, out, 1)
    check(out, torch.mv(cases.wide(m), cases.wide(v)), 45)
    self = cases.tensor((37,), dtype, layout, -3, 3, 5)
    aclnn.call("Addmv", self, m, v, alpha, beta, out, 1)
    check(out, beta * cases.wide(self) + alpha * torch.mv(cases.wide(m), cases.wide(v)), 45 * alpha**2)
    x, y = operands((45,), (45,), dtype, layout)
    out = cases.empty((), dtype)
    aclnn.call("Dot", x, y, out)
    check(out, (cases.wide(x) * cases.wide(y)).sum(), 45)
    self = cases.tensor((45, 45), dtype, layout, -3, 3, 5)
    out = cases.empty((45, 45), dtype, layout)
    aclnn.call("Addr", self, x, y, beta, alpha, out)
    check(out, beta * cases.wide(self) + alpha * torch.outer(cases.wide(x), cases.wide(y)), alpha**2)


def test_nan_and_inf():
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        a, b = operands((20, 33), (33, 40), dtype)
        a[3, 5], a[7, 0], b[2, 9] = float("nan"), float("inf"), -float("inf")
        out = cases.empty((20, 40), dtype)
        aclnn.call("Mm", a, b, out, 1)
        check(out, product(a, b), 33)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_weight_in_fractal_order(dtype):
    k, n = 40, 50
    a, b = operands((9, k), (k, n), dtype)
    stored = nz(b, 32 // dtype.itemsize)
    out = cases.empty((9, n), dtype)
    weight = handle(stored, b.shape, FRACTAL_NZ)
    aclnn.call("MatmulWeightNz", a, weight, out, 1)
    check(out, product(a, b), k)
    self = cases.tensor((n,), dtype, seed=4)
    for given in (weight, b):  # in fractal order, and as it is
        out = cases.empty((9, n), dtype)
        aclnn.call("AddmmWeightNz", self, a, given, 0.5, 2.0, out, 1)
        check(out, 0.5 * cases.wide(self) + 2 * product(a, b), 4 * k)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_batched_weight_in_fractal_order(dtype):
    k, n = 40, 50
    a, b = operands((3, 9, k), (3, k, n), dtype)
    stored = nz(b, 32 // dtype.itemsize)
    for given in (handle(stored, b.shape, FRACTAL_NZ), b):
        out = cases.empty((3, 9, n), dtype)
        aclnn.call("BatchMatMulWeightNz", a, given, out, 1)
        check(out, product(a, b), k)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int8])
def test_a_weight_keeps_its_order(dtype):
    """Nothing is gained by another order, so a weight stays as it is, and later products read it as it is."""
    weight = cases.tensor((40, 50), dtype)
    kept = weight.clone()
    aclnn.call("TransMatmulWeight", weight)
    assert torch.equal(weight, kept)


@pytest.mark.parametrize("arguments,part", [
    (("Mm", torch.zeros(2, 3), torch.zeros(4, 5), torch.zeros(2, 5), 1), "self [2,3] and mat2 [4,5]"),
    (("Mm", torch.zeros(2, 3), torch.zeros(3, 5), torch.zeros(2, 4), 1), "out has shape [2,4]"),
    (("Mm", torch.zeros(2, 3, 1), torch.zeros(3, 5), torch.zeros(2, 5), 1), "self has 3 dimensions"),
    (("Matmul", torch.zeros(2, 4, 3), torch.zeros(3, 3, 5), torch.zeros(2, 4, 5), 1), "can't be broadcast"),
    (("Addmm", torch.zeros(3), torch.zeros(2, 3), torch.zeros(3, 5), 1, 1, torch.zeros(2, 5), 1), "self [3]"),
])
def test_errors(arguments, part):
    with pytest.raises(aclnn.Failed) as failure:
        aclnn.call(*arguments)
    assert part in str(failure.value) and failure.value.code == 161002


@pytest.mark.parametrize("dtype,tolerance", [(torch.bfloat16, 1e-3), (torch.float32, 2e-5)])
def test_a_wrong_product_is_found(dtype, tolerance):
    m, k, n, segments = 21, 70, 300, 3
    a, b, weight = cases.tensor((m, k), dtype), cases.tensor((k, n), dtype, seed=1), torch.ones(n, dtype=dtype)
    c = (a.double() @ b.double()).float()
    for wrong in (None, (0, 0), (20, 299), (13, 150)):
        given = c.clone()
        if wrong:
            given[wrong] += 0.01 * (a[wrong[0]].abs().double() @ b.abs().double().sum(1)).item()
        verdict = torch.zeros(segments * 3, dtype=torch.uint8)
        aclnn.call("MatmulAbftVerify", a, b, given, weight, tolerance, verdict)
        bits = torch.stack([verdict.view(segments, 3) >> i & 1 for i in range(8)], -1).view(segments, 24)[:, :m]
        found = [(r, s) for s, r in (bits == 0).nonzero().tolist()]
        assert found == ([(wrong[0], wrong[1] // 100)] if wrong else [])
    given = c.clone()
    given[3, 3] = float("nan")
    aclnn.call("MatmulAbftVerify", a, b, given, weight, tolerance, verdict)
    assert verdict[0] == 255 - 8
