"""Elementwise unary operators against PyTorch in float64 (complex128, or the exact integer result)."""

import math

import pytest
import torch

import aclnn
import cases

REAL_FLOATS = cases.FLOATS
FLOATING = [*cases.FLOATS, *cases.COMPLEX]
TO_FLOAT = [*cases.INTS, torch.bool]


def boolean(_):
    return torch.bool


def as_float(dtype):
    return dtype if dtype.is_floating_point or dtype.is_complex else torch.float32


def promoted(reference):
    """Integers and bool compute in floating point."""
    return lambda x: reference(x if x.dtype.is_floating_point or x.dtype.is_complex else x.double())


@pytest.mark.parametrize("op, reference, low, high", [
    ("Exp", torch.exp, -3, 3), ("Exp2", torch.exp2, -3, 3), ("Expm1", torch.expm1, -3, 3), ("Log", torch.log, 0.1, 9),
    ("Log2", torch.log2, 0.1, 9), ("Log10", torch.log10, 0.1, 9), ("Log1p", torch.log1p, -0.9, 3), ("Sqrt", torch.sqrt, 0, 9),
    ("Rsqrt", torch.rsqrt, 0.2, 9), ("Reciprocal", torch.reciprocal, 0.2, 3), ("Sin", torch.sin, -9, 9), ("Cos", torch.cos, -9, 9),
    ("Tan", torch.tan, -1.4, 1.4), ("Asin", torch.asin, -0.99, 0.99), ("Acos", torch.acos, -0.99, 0.99), ("Atan", torch.atan, -5, 5),
    ("Sinh", torch.sinh, -3, 3), ("Cosh", torch.cosh, -3, 3), ("Tanh", torch.tanh, -3, 3), ("Asinh", torch.asinh, -3, 3),
    ("Acosh", torch.acosh, 1.1, 9), ("Atanh", torch.atanh, -0.9, 0.9), ("Sinc", torch.sinc, -3, 3),
    ("Sigmoid", torch.sigmoid, -5, 5),
])
def test_floating(op, reference, low, high):
    # pi x is rounded in the type: near its zeros sinc is a difference.
    cancels = op == "Sinc"
    cases.elementwise(op, promoted(reference), FLOATING, low=low, high=high, cancels=cancels)
    cases.elementwise(op, promoted(reference), TO_FLOAT, out_dtype=as_float, low=low, high=high, cancels=cancels)


@pytest.mark.parametrize("op, reference, low, high", [
    ("Erf", torch.erf, -3, 3), ("Erfc", torch.erfc, -3, 3), ("Erfinv", torch.erfinv, -0.99, 0.99),
    ("Lgamma", torch.lgamma, -3, 9), ("Digamma", torch.digamma, 0.3, 9),
])
def test_real_floating(op, reference, low, high):
    cases.elementwise(op, promoted(reference), REAL_FLOATS, low=low, high=high)
    cases.elementwise(op, promoted(reference), TO_FLOAT, out_dtype=as_float, low=low, high=high)


@pytest.mark.parametrize("op, reference", [
    ("Ceil", torch.ceil), ("Floor", torch.floor), ("Round", torch.round), ("Trunc", torch.trunc)])
def test_rounding(op, reference):
    cases.elementwise(op, reference, cases.REAL)


def test_frac():
    cases.elementwise("Frac", torch.frac, cases.FLOATS)


@pytest.mark.parametrize("decimals", [0, 1, 2, -1])
def test_round_decimals(decimals):
    cases.elementwise("RoundDecimals", lambda x: torch.round(x, decimals=decimals), [torch.float32, torch.float64], extra=(decimals,),
                      low=-300, high=300)
    cases.elementwise("RoundDecimals", lambda x: x, cases.INTS, extra=(decimals,))


def test_sign():
    cases.elementwise("Abs", torch.abs, cases.REAL)
    cases.elementwise("Abs", torch.abs, cases.COMPLEX, out_dtype=lambda d: torch.empty(0, dtype=d).real.dtype)
    cases.elementwise("Neg", torch.neg, [*cases.REAL, *cases.COMPLEX])
    cases.elementwise("Sign", torch.sign, [*cases.REAL, torch.bool])
    cases.elementwise("Sign", torch.sgn, cases.COMPLEX)
    cases.elementwise("Signbit", torch.signbit, [*cases.REAL, torch.bool], out_dtype=boolean)


@pytest.mark.parametrize("dtype", cases.SIGNED)
def test_least_integer_stays_itself(dtype):
    least = torch.tensor([torch.iinfo(dtype).min], dtype=dtype)
    for op in ("Abs", "Neg"):
        out = torch.zeros_like(least)
        aclnn.call(op, least, out)
        assert out == least


def test_parts():
    cases.elementwise("AngleV2", torch.angle, cases.FLOATS)
    cases.elementwise("AngleV2", torch.angle, [*cases.INTS, torch.bool], out_dtype=lambda _: torch.float32)
    cases.elementwise("AngleV2", torch.angle, cases.COMPLEX, out_dtype=lambda d: torch.empty(0, dtype=d).real.dtype)
    cases.elementwise("Real", torch.real, cases.COMPLEX, out_dtype=lambda d: torch.empty(0, dtype=d).real.dtype)
    cases.elementwise("Complex", torch.complex, [torch.float32, torch.float64], inputs=2,
                      out_dtype=lambda d: torch.complex64 if d == torch.float32 else torch.complex128)


def test_tests():
    cases.elementwise("IsFinite", torch.isfinite, cases.ALL, out_dtype=boolean)
    cases.elementwise("IsInf", torch.isinf, cases.ALL, out_dtype=boolean)
    cases.elementwise("IsPosInf", torch.isposinf, [*cases.REAL, torch.bool], out_dtype=boolean)
    cases.elementwise("IsNegInf", torch.isneginf, [*cases.REAL, torch.bool], out_dtype=boolean)
    cases.elementwise("LogicalNot", torch.logical_not, cases.ALL, out_dtype=boolean)
    cases.elementwise("LogicalNot", torch.logical_not, cases.ALL, out_dtype=lambda _: torch.float32)
    cases.elementwise("BitwiseNot", torch.bitwise_not, [*cases.INTS, torch.bool])


def test_nan_to_num():
    cases.elementwise("NanToNum", lambda x: torch.nan_to_num(x, 0.5, 99.0, -98.0), cases.FLOATS, extra=(0.5, 99.0, -98.0))
    cases.elementwise("NanToNum", lambda x: x, [*cases.INTS, torch.bool], extra=(0.5, 99.0, -98.0))


@pytest.mark.parametrize("op", ["Sin", "Cos", "Tan", "Sinc"])
def test_large_arguments(op):
    """Beyond the fast reduction; also on both sides of it in one block, and in place."""
    x = torch.cat([torch.logspace(0, 38, 4000, dtype=torch.float64), torch.linspace(-9, 9, 4000, dtype=torch.float64)]).float()
    x = torch.cat([x, -x, torch.tensor([math.inf, -math.inf, math.nan, 0.0])])
    # sinc rounds pi x to float32 as PyTorch does: compare with the function of that number.
    y = (x * torch.tensor(math.pi, dtype=torch.float32)).double()
    expected = torch.where(x == 0, 1.0, torch.sin(y) / y) if op == "Sinc" else getattr(torch, op.lower())(x.double())
    aclnn.call(op, x, x)
    cases.compare(x, expected)


def test_copy():
    for source in cases.ALL:
        for target in [*cases.ALL, torch.complex32]:
            x = cases.tensor((3, 1, 7), source, "transposed", 0, 3)
            out = cases.empty((4, 3, 5, 7), target, "strided")
            aclnn.call("InplaceCopy", out, x)
            expected = (x.real if source.is_complex and not target.is_complex else x).to(target)
            if source.is_complex and target == torch.bool:
                expected = x != 0
            assert torch.equal(torch.view_as_real(out) if target == torch.complex32 else out,
                               torch.view_as_real(expected.expand(4, 3, 5, 7)) if target == torch.complex32
                               else expected.expand(4, 3, 5, 7)), (source, target)


@pytest.mark.parametrize("shape", [(300, 500), (7, 129, 260), (2, 3, 64, 64), (1000, 3), (3, 1000), (1, 1)])
@pytest.mark.parametrize("dtype", [torch.int8, torch.float16, torch.float32, torch.int64, torch.complex128])
def test_copy_of_transposed(shape, dtype):
    x = cases.values(shape, dtype)
    for order in ([*range(len(shape))][::-1], [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2], [1, 0, *range(2, len(shape))]):
        y = x.permute(order)
        out = torch.zeros(y.shape, dtype=dtype)
        aclnn.call("InplaceCopy", out, y)
        assert torch.equal(out, y)
        back = torch.zeros(shape, dtype=torch.float64 if dtype == torch.float32 else dtype)
        aclnn.call("InplaceCopy", back.permute(order), out)
        assert torch.equal(back, x.to(back.dtype))


@pytest.mark.parametrize("layout", cases.LAYOUTS)
@pytest.mark.parametrize("dtype", cases.ALL)
def test_cast_and_expand(dtype, layout):
    x = cases.tensor((3, 4, 5), dtype, layout, 0, 3)
    for target in cases.ALL:
        out = cases.empty((3, 4, 5), target, layout)
        aclnn.call("Cast", x, target, out)
        assert torch.equal(out, x != 0 if target == torch.bool else (x.real if dtype.is_complex and not target.is_complex else x).to(target))
    expected = x.expand(2, *x.shape)
    out = cases.lay(torch.full(expected.shape, 7).to(dtype), cases.OUTPUT_LAYOUTS.get(layout, layout))
    aclnn.call("Expand", x, [2, *[-1] * x.dim()], out)
    assert torch.equal(out, expected)


@pytest.mark.parametrize("dtype", cases.ALL)
@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_fills(dtype, layout):
    out = cases.empty((3, 5, 7), dtype, layout)
    value = torch.tensor(3, dtype=torch.float64).to(dtype)
    aclnn.call("InplaceFillScalar", out, 3)
    assert (out == value).all()
    aclnn.call("InplaceZero", out)
    assert (out == torch.zeros((), dtype=dtype)).all()
    aclnn.call("InplaceOne", out)
    assert (out == torch.ones((), dtype=dtype)).all()
    aclnn.call("InplaceFillTensor", out, torch.tensor([3]))
    assert (out == value).all()


def test_errors_name_what_is_wrong():
    x = torch.zeros(2, 3)
    with pytest.raises(aclnn.Failed, match=r"aclnnExp: out has shape \[2,4\], expected \[2,3\]"):
        aclnn.call("Exp", x, torch.zeros(2, 4))
    with pytest.raises(aclnn.Failed, match="complex64"):
        aclnn.call("Exp", x.to(torch.complex64), x)
    with pytest.raises(aclnn.Failed, match="aclnnErf: type complex64 is not supported"):
        aclnn.call("Erf", x.to(torch.complex64), x)
    with pytest.raises(aclnn.Failed, match=r"src \[5\] can't be broadcast to selfRef \[2,3\]"):
        aclnn.call("InplaceCopy", x, torch.zeros(5))


FOREACH = [
    ("Abs", torch.abs), ("Acos", torch.acos), ("Asin", torch.asin), ("Atan", torch.atan), ("Cos", torch.cos), ("Cosh", torch.cosh),
    ("Erf", torch.erf), ("Erfc", torch.erfc), ("Exp", torch.exp), ("Expm1", torch.expm1), ("Log", torch.log), ("Log10", torch.log10),
    ("Log1p", torch.log1p), ("Log2", torch.log2), ("Neg", torch.neg), ("Reciprocal", torch.reciprocal), ("Sigmoid", torch.sigmoid),
    ("Sign", torch.sign), ("Sin", torch.sin), ("Sinh", torch.sinh), ("Sqrt", torch.sqrt), ("Tan", torch.tan), ("Tanh", torch.tanh),
    ("Copy", lambda x: x)]


@pytest.mark.parametrize("op, reference", FOREACH)
@pytest.mark.parametrize("dtype", [*cases.REAL, torch.bool, *cases.COMPLEX])
def test_foreach(op, reference, dtype):
    exact = op in ("Abs", "Neg", "Sign", "Copy")  # of the types that are the same in and out
    if not dtype.is_floating_point and not (exact and (dtype in cases.INTS or op == "Copy")):
        return
    xs = [cases.tensor(shape, dtype, layout, 0.1, 0.9, i) for i, (shape, layout) in enumerate([
        ((3, 5), "contiguous"), ((), "contiguous"), ((0, 3), "contiguous"), ((40, 70), "transposed"), ((7, 8), "strided"), ((1,), "offset"),
        ((3000,), "contiguous")])]
    outs = [cases.empty(x.shape, dtype, "strided" if i % 2 else "contiguous") for i, x in enumerate(xs)]
    aclnn.call("Foreach" + op, xs, outs)
    for x, out in zip(xs, outs):
        cases.compare(out, reference(cases.wide(x)), cancels=False)


def test_foreach_zero():
    for dtype in cases.ALL:
        xs = [cases.empty(s, dtype, "strided") for s in ((3, 4), (), (5,), (0, 2))]
        aclnn.call("ForeachZeroInplace", xs)
        assert all((x == torch.zeros((), dtype=dtype)).all() for x in xs)
