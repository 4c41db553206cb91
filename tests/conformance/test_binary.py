"""Binary, ternary and comparison operators against PyTorch: types x layouts, broadcasting, NaN and infinities, scalars in
their promoted type, operands of different types, in place."""

import numpy as np
import pytest
import torch

import aclnn
import cases

REAL, ALL, INTS, FLOATS = cases.REAL, cases.ALL, cases.INTS, cases.FLOATS
to_bool = lambda _: torch.bool  # noqa: E731


def true_division(dtype):
    return dtype if dtype.is_floating_point or dtype.is_complex else torch.float32


def run(op, *arguments, out):
    aclnn.call(op, *arguments, out)
    return out


TENSORS = {
    "Mul": (torch.mul, ALL, None), "Div": (torch.div, ALL, true_division),
    "Maximum": (torch.maximum, [*REAL, torch.bool], None), "Minimum": (torch.minimum, [*REAL, torch.bool], None),
    "EqTensor": (torch.eq, ALL, to_bool), "NeTensor": (torch.ne, ALL, to_bool),
    "LtTensor": (torch.lt, [*REAL, torch.bool], to_bool), "LeTensor": (torch.le, [*REAL, torch.bool], to_bool),
    "GtTensor": (torch.gt, [*REAL, torch.bool], to_bool), "GeTensor": (torch.ge, [*REAL, torch.bool], to_bool),
    "LogicalAnd": (torch.logical_and, ALL, to_bool), "LogicalOr": (torch.logical_or, ALL, to_bool),
    "LogicalXor": (torch.logical_xor, ALL, to_bool),
    "BitwiseAndTensor": (torch.bitwise_and, [*INTS, torch.bool], None),
    "BitwiseOrTensor": (torch.bitwise_or, [*INTS, torch.bool], None),
    "BitwiseXorTensor": (torch.bitwise_xor, [*INTS, torch.bool], None),
    "Atan2": (torch.atan2, [*FLOATS], None), "LogAddExp": (torch.logaddexp, [*FLOATS, *cases.COMPLEX], None),
    "LogAddExp2": (torch.logaddexp2, FLOATS, None),
    "ClampMinTensor": (lambda a, b: torch.clamp(a, min=b), REAL, None),
    "ClampMaxTensor": (lambda a, b: torch.clamp(a, max=b), REAL, None),
}


@pytest.mark.parametrize("op", TENSORS)
def test_two_tensors(op):
    reference, dtypes, out_dtype = TENSORS[op]
    cases.elementwise(op, reference, dtypes, inputs=2, out_dtype=out_dtype)


def test_gcd():
    cases.elementwise("Gcd", torch.gcd, cases.INTS, inputs=2, low=-60, high=60)


def test_integers_in_floating_point():
    integers = [*INTS, torch.bool]
    cases.elementwise("Atan2", lambda a, b: torch.atan2(a.double(), b.double()), integers, inputs=2, out_dtype=true_division)


@pytest.mark.parametrize("op,sign", [("Add", 1), ("Sub", -1), ("Rsub", -1)])
@pytest.mark.parametrize("alpha", [1, -1, 2, 0])
def test_add_alpha(op, sign, alpha):
    def reference(a, b):
        a, b = (b, a) if op == "Rsub" else (a, b)
        return a + sign * alpha * b
    cases.elementwise(op, reference, [*REAL, *cases.COMPLEX], inputs=2, extra=(alpha,))


def test_add_bool():
    a, b = torch.tensor([True, True, False, False]), torch.tensor([True, False, True, False])
    assert run("Add", a, b, True, out=torch.empty(4, dtype=torch.bool)).tolist() == [True, True, True, False]


NUMBERS = [*REAL, *cases.COMPLEX]
ORDERED = [*REAL, torch.bool]
# op -> reference(x, s), types, type of the result
SCALARS = {
    "Muls": (torch.mul, NUMBERS, None), "Divs": (torch.div, ALL, true_division),
    "FloorDivides": (torch.floor_divide, REAL, None), "RemainderTensorScalar": (torch.remainder, REAL, None),
    "FmodScalar": (torch.fmod, REAL, None), "PowTensorScalar": (torch.pow, NUMBERS, None),
    "EqScalar": (torch.eq, ALL, to_bool), "NeScalar": (torch.ne, ALL, to_bool),
    "LtScalar": (torch.lt, ORDERED, to_bool), "LeScalar": (torch.le, ORDERED, to_bool), "GtScalar": (torch.gt, ORDERED, to_bool),
    "GeScalar": (torch.ge, ORDERED, to_bool), "LessScalar": (torch.lt, ORDERED, to_bool),
    "ClampMin": (lambda x, s: x.clamp(min=s), REAL, None), "ClampMax": (lambda x, s: x.clamp(max=s), REAL, None),
    "BitwiseAndScalar": (torch.bitwise_and, INTS, None), "BitwiseOrScalar": (torch.bitwise_or, INTS, None),
    "BitwiseXorScalar": (torch.bitwise_xor, INTS, None),
}


@pytest.mark.parametrize("op", SCALARS)
def test_tensor_and_scalar(op):
    reference, dtypes, out_dtype = SCALARS[op]
    for s in (2, 3):
        cases.elementwise(op, lambda x: reference(x, s), dtypes, extra=(s,), out_dtype=out_dtype, low=-5, high=5)


@pytest.mark.parametrize("s", [2, 3])
def test_scalar_forms(s):
    def run_all(op, reference, dtypes, **more):
        cases.elementwise(op, reference, dtypes, low=-5, high=5, **more)
    run_all("Adds", lambda x: x + 2 * s, NUMBERS, extra=(s, 2))
    run_all("Subs", lambda x: x - 2 * s, NUMBERS, extra=(s, 2))
    run_all("Rsubs", lambda x: s - 2 * x, NUMBERS, extra=(s, 2))
    run_all("AddV3", lambda x: s + 2 * x, NUMBERS, before=(s,), extra=(2,))
    run_all("DivMods", lambda x: x / s, ALL, extra=(s, 0), out_dtype=true_division)
    run_all("DivMods", lambda x: torch.div(x, s, rounding_mode="trunc"), REAL, extra=(s, 1))
    run_all("DivMods", lambda x: torch.div(x, s, rounding_mode="floor"), REAL, extra=(s, 2))
    for low, high in ((1, 3), (3, 1), (None, 3), (1, None)):
        run_all("Clamp", lambda x: x.clamp(low, high), REAL, extra=(low, high))
    cases.elementwise("RemainderScalarTensor", lambda x: torch.remainder(s, x), REAL, before=(s,), low=1, high=5)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("op", ["FloorDivide", "FmodTensor", "RemainderTensorTensor", "trunc", "floor"])
def test_division_signs(op, dtype):
    low = 0 if dtype == torch.uint8 else -100
    a, b = cases.values((40, 30), dtype, low, 100, 1), cases.values((40, 30), dtype, low / 10, 10, 2)
    b = torch.where(b == 0, torch.ones_like(b), b)
    # float16 and bfloat16 are divided in float32 and rounded once, float32 in its own type: where the quotient rounds
    # up to an integer, that decides.
    wa, wb = (a.float(), b.float()) if dtype in (torch.float16, torch.bfloat16) else (a, b)
    if op in ("trunc", "floor"):
        actual = run("DivMod", a, b, {"trunc": 1, "floor": 2}[op], out=torch.empty_like(a))
        expected = torch.div(wa, wb, rounding_mode=op)
    else:
        actual = run(op, a, b, out=torch.empty_like(a))
        expected = {"FloorDivide": torch.floor_divide, "FmodTensor": torch.fmod, "RemainderTensorTensor": torch.remainder}[op](wa, wb)
    cases.compare(actual, expected)


@pytest.mark.parametrize("op", ["FloorDivide", "FmodTensor", "RemainderTensorTensor"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_division_special(op, dtype):
    inf, nan = float("inf"), float("nan")
    v = [0.0, -0.0, 1.0, -1.0, inf, -inf, nan, 5e-324, 1e30, -1e30, 0.1, 3.0]
    a = torch.tensor(v, dtype=dtype).repeat_interleave(len(v))
    b = torch.tensor(v, dtype=dtype).repeat(len(v))
    actual = run(op, a, b, out=torch.empty_like(a))
    if op == "FloorDivide":
        expected = torch.floor_divide(a, b)
    else:  # numpy's is the C library's, exact; torch's vectorised fmod gives NaN where the quotient overflows
        with np.errstate(all="ignore"):
            expected = torch.from_numpy(np.fmod(a.numpy(), b.numpy()))
        if op == "RemainderTensorTensor":
            expected = torch.where((expected != 0) & ((expected < 0) != (b < 0)), expected + b, expected)
    cases.compare(actual, expected, 0, 0)
    if op != "RemainderTensorTensor":
        assert torch.equal(torch.signbit(actual)[~expected.isnan()], torch.signbit(expected)[~expected.isnan()])


@pytest.mark.parametrize("dtype", cases.INTS)
def test_integer_division_never_traps(dtype):
    info = torch.iinfo(dtype)
    v = torch.tensor([info.min, info.max, 0, 1, 7], dtype=dtype)
    a, b = v.repeat_interleave(5), v.repeat(5)
    if dtype.is_signed:
        b[b == 1] = -1
    q = run("DivMod", a, b, 1, out=torch.empty_like(a))
    r = run("FmodTensor", a, b, out=torch.empty_like(a))
    assert torch.equal(q * b + r, a)  # wraps where it must
    assert torch.equal(q[b == 0], torch.full_like(q[b == 0], -1 if dtype.is_signed else info.max))
    run("RemainderTensorTensor", a, b, out=torch.empty_like(a))
    run("FloorDivide", a, b, out=torch.empty_like(a))


def test_pow_layouts():
    cases.elementwise("PowTensorTensor", torch.pow, [*FLOATS, *cases.COMPLEX], inputs=2, low=0.2)
    cases.elementwise("PowTensorTensor", torch.pow, INTS, inputs=2, low=0, high=4)
    cases.elementwise("PowScalarTensor", lambda x: torch.pow(3, x), [*FLOATS, *cases.COMPLEX], before=(3,))
    cases.elementwise("PowScalarTensor", lambda x: torch.pow(3, x), INTS, before=(3,), low=0, high=4)


@pytest.mark.parametrize("dtype", [*FLOATS, torch.complex64, torch.complex128])
def test_pow(dtype):
    for e in (0, 0.5, 1, 2, 3, -0.5, -1, -2, 1.7, 4, -3):
        x = cases.values((7, 11), dtype, 0.1, 3)
        cases.compare(run("PowTensorScalar", x, e, out=torch.empty_like(x)), cases.wide(x) ** e)
        cases.compare(run("PowScalarTensor", 2.5, x, out=torch.empty_like(x)), 2.5 ** cases.wide(x))
        cases.compare(run("PowScalarTensor", 2, x, out=torch.empty_like(x)), 2 ** cases.wide(x))
    b = cases.values((7, 11), dtype, -3, 3, 5)
    cases.compare(run("PowTensorTensor", x, b, out=torch.empty_like(x)), cases.wide(x) ** cases.wide(b), rtol=2e-6 if dtype == torch.complex64 else None)
    y = x.clone()
    aclnn.call("InplacePowTensorTensor", y, b)
    cases.compare(y, cases.wide(x) ** cases.wide(b), rtol=2e-6 if dtype == torch.complex64 else None)
    y = x.clone()
    aclnn.call("InplacePowTensorScalar", y, 2)
    cases.compare(y, cases.wide(x) ** 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pow_special(dtype):
    inf, nan = float("inf"), float("nan")
    v = [0.0, -0.0, 1.0, -1.0, inf, -inf, nan, 2.0, -2.0, 0.5, -0.5, 3.0, -3.0, 1e-30, 1e30, 1e-42, 126.5, -151.0]
    a, b = torch.tensor(v, dtype=dtype).repeat_interleave(len(v)), torch.tensor(v, dtype=dtype).repeat(len(v))
    actual, expected = run("PowTensorTensor", a, b, out=torch.empty_like(a)), torch.tensor(
        [[torch.pow(torch.tensor(float(x), dtype=torch.float64), float(y)) for x, y in zip(a, b)]]).squeeze().to(dtype)
    cases.compare(actual, torch.pow(a.double(), b.double()).to(dtype))
    assert expected.shape == actual.shape


@pytest.mark.parametrize("dtype", INTS)
def test_integer_pow(dtype):
    a, b = cases.values((50,), dtype, -4, 5, 1), cases.values((50,), dtype, 0, 6, 2)
    cases.compare(run("PowTensorTensor", a, b, out=torch.empty_like(a)), torch.pow(a, b))
    cases.compare(run("PowTensorScalar", a, 5, out=torch.empty_like(a)), a ** 5)
    cases.compare(run("PowTensorScalar", a, 2.5, out=torch.empty(50)), a.double() ** 2.5)
    if dtype.is_signed:
        negative = torch.full_like(a, -3)
        expected = torch.where(a == 1, 1, torch.where(a == -1, -1, 0)).to(dtype)
        assert torch.equal(run("PowTensorTensor", a, negative, out=torch.empty_like(a)), expected)
    with pytest.raises(aclnn.Failed, match="exponent is -1"):
        run("PowTensorScalar", a, -1, out=torch.empty_like(a))


PAIRS = [(torch.int32, torch.int64), (torch.float16, torch.float32), (torch.float16, torch.bfloat16), (torch.int64, torch.float16),
         (torch.bool, torch.int8), (torch.uint8, torch.int8), (torch.float32, torch.complex64), (torch.float64, torch.float32)]


@pytest.mark.parametrize("a,b", PAIRS)
@pytest.mark.parametrize("op,reference", [("Mul", torch.mul), ("EqTensor", torch.eq), ("Div", torch.div)])
def test_promotion(op, reference, a, b):
    for x, y in ((a, b), (b, a)):
        p, q = cases.values((5, 6), x, 1, 9, 1), cases.values((5, 6), y, 1, 9, 2)
        expected = reference(p, q)
        cases.compare(run(op, p, q, out=torch.empty(5, 6, dtype=expected.dtype)), expected)


@pytest.mark.parametrize("tensor,scalar", [(torch.int64, 1.5), (torch.bool, 3), (torch.bool, 2.5), (torch.float16, 0.1),
                                           (torch.bfloat16, 3), (torch.float32, 1 + 2j), (torch.float64, 1j), (torch.uint8, 200)])
def test_scalar_promotion(tensor, scalar):
    x = cases.values((5, 6), tensor, 0, 9, 1)
    expected = x * scalar
    cases.compare(run("Muls", x, scalar, out=torch.empty(5, 6, dtype=expected.dtype)), expected)
    cases.compare(run("EqScalar", x, scalar, out=torch.empty(5, 6, dtype=torch.bool)), x == scalar)


def test_comparison_rounds_the_scalar():
    for dtype in (torch.float16, torch.bfloat16):
        x = torch.tensor([0.1, 0.2], dtype=dtype)
        assert run("EqScalar", x, 0.1, out=torch.empty(2, dtype=torch.bool)).tolist() == (x == 0.1).tolist() == [True, False]


def test_nan_propagates():
    nan = float("nan")
    a, b = torch.tensor([nan, 1.0, nan, 2.0]), torch.tensor([1.0, nan, nan, 3.0])
    for op, f in (("Maximum", torch.maximum), ("Minimum", torch.minimum)):
        cases.compare(run(op, a, b, out=torch.empty(4)), f(a, b))
    cases.compare(run("Clamp", a, 0, 1, out=torch.empty(4)), a.clamp(0, 1))
    cases.compare(run("Clamp", a, nan, 1, out=torch.empty(4)), a.clamp(nan, 1))
    cases.compare(run("ClampTensor", a, b, torch.tensor(0.5), out=torch.empty(4)), torch.clamp(a, b, torch.tensor(0.5)))
    for op, f in (("LtScalar", torch.lt), ("GeScalar", torch.ge), ("NeScalar", torch.ne)):
        assert torch.equal(run(op, a, nan, out=torch.empty(4, dtype=torch.bool)), f(a, nan))


@pytest.mark.parametrize("dtype", [*INTS])
def test_shifts_and_bits(dtype):
    x, n = cases.values((60,), dtype, -100, 100, 1), cases.values((60,), dtype, -2, 70, 2)
    cases.compare(run("LeftShift", x, n, out=torch.empty_like(x)), torch.bitwise_left_shift(x, n))
    cases.compare(run("RightShift", x, n, out=torch.empty_like(x)), torch.bitwise_right_shift(x, n))
    for s in (0, 3, 31, 64, 100, -1):
        expected = torch.bitwise_left_shift(x, torch.full_like(x, min(s, 70))) if s >= 0 else torch.zeros_like(x)
        cases.compare(run("LeftShifts", x, s, out=torch.empty_like(x)), expected)
    cases.elementwise("LeftShift", torch.bitwise_left_shift, [dtype], inputs=2, low=0, high=6)
    cases.elementwise("RightShift", torch.bitwise_right_shift, [dtype], inputs=2, low=0, high=6)
    cases.elementwise("LeftShifts", lambda v: v << 2, [dtype], extra=(2,))


@pytest.mark.parametrize("dtype", ALL)
@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_where_and_masked_fill(dtype, layout):
    shape = (3, 5, 7)
    a, b = cases.tensor(shape, dtype, layout, seed=1), cases.tensor(shape, dtype, layout, seed=2)
    c = cases.tensor(shape, torch.bool, layout, seed=3)
    assert torch.equal(run("SWhere", c, a, b, out=cases.empty(shape, dtype, layout)), torch.where(c, a, b))
    value = True if dtype == torch.bool else 2 + 1j if dtype.is_complex else 2
    x = cases.lay(a.clone(), cases.OUTPUT_LAYOUTS.get(layout, layout))
    aclnn.call("InplaceMaskedFillScalar", x, c, value)
    assert torch.equal(x, a.masked_fill(c, value))
    x = cases.lay(a.clone(), cases.OUTPUT_LAYOUTS.get(layout, layout))
    aclnn.call("InplaceMaskedFillTensor", x, c, torch.tensor(value).to(dtype))
    assert torch.equal(x, a.masked_fill(c, value))


def test_where_broadcast_and_types():
    c = torch.rand(4, 1) < 0.5
    a, b = torch.randn(1, 6), torch.tensor(3, dtype=torch.int32)
    cases.compare(run("SWhere", c, a, b, out=torch.empty(4, 6)), torch.where(c, a, b))
    x = torch.randn(2, 4, 6)
    y = x.clone()
    aclnn.call("InplaceMaskedFillScalar", y, c, float("-inf"))
    assert torch.equal(y, x.masked_fill(c, float("-inf")))


@pytest.mark.parametrize("dtype", [*FLOATS, *cases.COMPLEX])
def test_ternary(dtype):
    x = [cases.values((6, 9), dtype, 0.5, 3, s) for s in range(3)]
    w = [cases.wide(t) for t in x]
    cases.compare(run("Addcmul", *x, 0.5, out=torch.empty_like(x[0])), torch.addcmul(*w, value=0.5))
    cases.compare(run("Addcdiv", *x, 0.5, out=torch.empty_like(x[0])), torch.addcdiv(*w, value=0.5))
    cases.compare(run("Lerp", *x, out=torch.empty_like(x[0])), torch.lerp(*w))
    for weight in (0.0, 0.3, 0.7, 1.0, 2.0):
        cases.compare(run("Lerps", *x[:2], weight, out=torch.empty_like(x[0])), torch.lerp(*w[:2], weight))
    for op, f in (("InplaceAddcmul", torch.addcmul), ("InplaceAddcdiv", torch.addcdiv)):
        y = x[0].clone()
        aclnn.call(op, y, x[1], x[2], -0.1)
        cases.compare(y, f(*w, value=-0.1))


def test_ternary_layouts():
    floating = [*FLOATS, *cases.COMPLEX]
    cases.elementwise("Addcmul", lambda a, b, c: torch.addcmul(a, b, c, value=2), NUMBERS, inputs=3, extra=(2,))
    cases.elementwise("Addcdiv", lambda a, b, c: torch.addcdiv(a, b, c, value=2), floating, inputs=3, extra=(2,), low=0.5)
    cases.elementwise("Lerp", torch.lerp, floating, inputs=3)
    cases.elementwise("Lerps", lambda a, b: torch.lerp(a, b, 0.25), floating, inputs=2, extra=(0.25,))
    cases.elementwise("ClampTensor", torch.clamp, REAL, inputs=3)


@pytest.mark.parametrize("dtype", ALL)
def test_is_close_and_equal(dtype):
    a = cases.values((400,), dtype, -100, 100, 1)
    b = a if dtype in (torch.bool,) else (cases.wide(a) * 1.004).to(dtype)
    if dtype != torch.bool:
        expected = torch.isclose(a, b, rtol=1e-2, atol=1e-3)
        assert torch.equal(run("IsClose", a, b, 1e-2, 1e-3, False, out=torch.empty(400, dtype=torch.bool)), expected)
    for x, y in ((a, b), (a, a.clone()), (a, a.clone()[:-1]), (a.view(20, 20).t(), a.view(20, 20).t().contiguous())):
        assert run("Equal", x, y, out=torch.empty(1, dtype=torch.bool)).item() == torch.equal(x, y)
    big = torch.zeros(300000, dtype=dtype)
    other = big.clone()
    other[-1] = 1
    assert not run("Equal", big, other, out=torch.empty((), dtype=torch.bool)).item()


def test_is_close_layouts():
    cases.elementwise("IsClose", lambda a, b: torch.isclose(a, b, 0.3, 0.2), ALL, inputs=2, extra=(0.3, 0.2, False), out_dtype=to_bool)


def test_is_close_special():
    inf, nan = float("inf"), float("nan")
    v = torch.tensor([inf, -inf, nan, 0.0, 1.0])
    a, b = v.repeat_interleave(5), v.repeat(5)
    for equal_nan in (False, True):
        out = run("IsClose", a, b, 1e-5, 1e-8, equal_nan, out=torch.empty(25, dtype=torch.bool))
        assert torch.equal(out, torch.isclose(a, b, equal_nan=equal_nan))


def test_xlogy_layouts():
    cases.elementwise("XLogYTensor", torch.xlogy, FLOATS, inputs=2, low=0.1)
    cases.elementwise("XLogYTensor", lambda a, b: torch.xlogy(a.double(), b.double()), [*INTS, torch.bool], inputs=2, low=0,
                      out_dtype=true_division)
    cases.elementwise("XLogYScalarOther", lambda x: torch.xlogy(x.double(), 2.5), [*REAL, torch.bool], extra=(2.5,), out_dtype=true_division)
    cases.elementwise("XLogYScalarSelf", lambda y: torch.xlogy(2.5, y.double()), [*REAL, torch.bool], before=(2.5,), low=0.1,
                      out_dtype=true_division)


@pytest.mark.parametrize("dtype", FLOATS)
def test_xlogy(dtype):
    x, y = cases.values((8, 8), dtype, -1, 2, 1), cases.values((8, 8), dtype, 0.01, 4, 2)
    x[0] = 0
    y[0, :3] = torch.tensor([0.0, float("nan"), float("inf")]).to(dtype)
    cases.compare(run("XLogYTensor", x, y, out=torch.empty_like(x)), torch.xlogy(cases.wide(x), cases.wide(y)))
    cases.compare(run("XLogYScalarOther", x, 2.5, out=torch.empty_like(x)), torch.xlogy(cases.wide(x), 2.5))
    cases.compare(run("XLogYScalarSelf", 0.0, y, out=torch.empty_like(x)), torch.xlogy(0.0, cases.wide(y)))


@pytest.mark.parametrize("dtype,out", [(torch.float32, torch.complex64), (torch.float64, torch.complex128)])
def test_polar(dtype, out):
    r, a = cases.values((9, 5), dtype, 0, 3, 1), cases.values((9, 5), dtype, -10, 10, 2)
    cases.compare(run("Polar", r, a, out=torch.empty(9, 5, dtype=out)), torch.polar(r.double(), a.double()), atol=1e-6)
    cases.elementwise("Polar", torch.polar, [dtype], inputs=2, out_dtype=lambda _: out, low=0)


def test_in_place_on_a_transposed_tensor():
    z = torch.arange(12.0).view(3, 4)
    aclnn.call("InplaceMul", z.t(), torch.arange(3.0))
    cases.compare(z, torch.arange(12.0).view(3, 4) * torch.arange(3.0)[:, None])


def test_transform_bias_rescale_qkv():
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        x, b = cases.values((2, 7, 48), dtype, seed=1), cases.values((48,), dtype, seed=2)
        outs = [torch.empty(2, 4, 7, 4, dtype=dtype) for _ in range(3)]
        aclnn.call("TransformBiasRescaleQkv", x, b, 4, *outs)
        expected = torch._transform_bias_rescale_qkv(x.double(), b.double(), 4)
        for o, e in zip(outs, expected):
            cases.compare(o, e)


@pytest.mark.parametrize("op,arguments,message", [
    ("Mul", (torch.ones(2, 3), torch.ones(4), torch.ones(2, 3)), r"\[2,3\], \[4\] can't be broadcast"),
    ("Mul", (torch.ones(2, 3), torch.ones(3), torch.ones(3)), r"out has shape \[3\], expected \[2,3\]"),
    ("Mul", (torch.ones(3, dtype=torch.complex64), torch.ones(3), torch.ones(3)), "can't be cast"),
    ("LtTensor", (torch.ones(3, dtype=torch.complex64), torch.ones(3), torch.ones(3, dtype=torch.bool)), "not supported"),
    ("DivMod", (torch.ones(3), torch.ones(3), 7, torch.ones(3)), "mode is 7"),
    ("Clamp", (torch.ones(3), None, None, torch.ones(3)), "at least one bound"),
    ("IsClose", (torch.ones(3), torch.ones(3), -1.0, 0.0, False, torch.ones(3, dtype=torch.bool)), "rtol is -1"),
    ("Equal", (torch.ones(3), torch.ones(3), torch.ones(3, dtype=torch.bool)), "expected one element"),
    ("BitwiseAndTensor", (torch.ones(3), torch.ones(3), torch.ones(3)), "float32 is not supported"),
])
def test_errors(op, arguments, message):
    with pytest.raises(aclnn.Failed, match=message) as e:
        aclnn.call(op, *arguments)
    assert e.value.code in (161001, 161002)
