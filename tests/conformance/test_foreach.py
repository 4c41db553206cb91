"""Operators over lists of tensors against PyTorch, on lists of many shapes: empty, 0-d, strided, large."""

import pytest
import torch

import aclnn
import cases

SHAPES = [(3, 4), (), (0, 5), (1000,), (7, 1, 9), (300, 257)]
NUMBERS = [*cases.REAL, *cases.COMPLEX]


def tensors(dtype, seed, low=-3.0, high=3.0):
    xs = [cases.values(s, dtype, low, high, seed * 100 + i) for i, s in enumerate(SHAPES)]
    xs.append(cases.lay(cases.values((8, 6), dtype, low, high, seed), "transposed"))
    return xs


def compare(actual, expected):
    for a, e in zip(actual, expected, strict=True):
        cases.compare(a, e)


def wide(xs):
    return [cases.wide(x) for x in xs]


def run(op, *arguments, dtype, like):
    out = [torch.empty_like(x, dtype=dtype) for x in like]
    aclnn.call(op, *arguments, out)
    return out


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Maximum", "Minimum"])
def test_constants(op, dtype):
    if dtype.is_complex and op in ("Maximum", "Minimum"):
        return
    xs = tensors(dtype, 1)
    if op == "Div" and not (dtype.is_floating_point or dtype.is_complex):
        out_dtype = torch.float32
    else:
        out_dtype = dtype
    f = {"Add": torch.add, "Sub": torch.sub, "Mul": torch.mul, "Div": torch.div,
         "Maximum": lambda x, c: x.clamp(min=c), "Minimum": lambda x, c: x.clamp(max=c)}[op]
    many = [i % 3 + 1 for i in range(len(xs))]
    compare(run(f"Foreach{op}ScalarV2", xs, 2, dtype=out_dtype, like=xs), [f(x, 2) for x in wide(xs)])
    compare(run(f"Foreach{op}Scalar", xs, torch.tensor([2], dtype=dtype), dtype=out_dtype, like=xs), [f(x, 2) for x in wide(xs)])
    compare(run(f"Foreach{op}ScalarList", xs, many, dtype=out_dtype, like=xs), [f(x, c) for x, c in zip(wide(xs), many)])
    if out_dtype == dtype:
        ys = [x.clone() for x in xs]
        aclnn.call(f"Foreach{op}ScalarV2", ys, 3, ys)
        compare(ys, [f(x, 3) for x in wide(xs)])


@pytest.mark.parametrize("dtype", NUMBERS)
def test_lists(dtype):
    xs, ys = tensors(dtype, 1), tensors(dtype, 2, 1, 4)
    pairs = list(zip(wide(xs), wide(ys)))
    alpha = torch.tensor([2], dtype=dtype)
    compare(run("ForeachAddListV2", xs, ys, 2, dtype=dtype, like=xs), [x + 2 * y for x, y in pairs])
    compare(run("ForeachAddList", xs, ys, alpha, dtype=dtype, like=xs), [x + 2 * y for x, y in pairs])
    compare(run("ForeachSubListV2", xs, ys, 2, dtype=dtype, like=xs), [x - 2 * y for x, y in pairs])
    compare(run("ForeachSubList", xs, ys, alpha, dtype=dtype, like=xs), [x - 2 * y for x, y in pairs])
    compare(run("ForeachMulList", xs, ys, dtype=dtype, like=xs), [x * y for x, y in pairs])
    if not dtype.is_complex:
        compare(run("ForeachMaximumList", xs, ys, dtype=dtype, like=xs), [torch.maximum(x, y) for x, y in pairs])
        compare(run("ForeachMinimumList", xs, ys, dtype=dtype, like=xs), [torch.minimum(x, y) for x, y in pairs])
    if dtype.is_floating_point or dtype.is_complex:
        compare(run("ForeachDivList", xs, ys, dtype=dtype, like=xs), [x / y for x, y in pairs])


@pytest.mark.parametrize("dtype", NUMBERS)
def test_addcmul_addcdiv(dtype):
    xs, ys, zs = tensors(dtype, 1), tensors(dtype, 2), tensors(dtype, 3, 1, 4)
    triples = list(zip(wide(xs), wide(ys), wide(zs)))
    values = torch.arange(1, len(xs) + 1).to(dtype)
    for name, f in (("cmul", torch.addcmul), ("cdiv", torch.addcdiv)):
        if name == "cdiv" and not (dtype.is_floating_point or dtype.is_complex):
            continue
        one = [f(*t, value=2) for t in triples]
        compare(run(f"ForeachAd{name.replace('c', 'dc', 1)}ScalarV2", xs, ys, zs, 2, dtype=dtype, like=xs), one)
        compare(run(f"ForeachAd{name.replace('c', 'dc', 1)}Scalar", xs, ys, zs, torch.tensor([2], dtype=dtype), dtype=dtype, like=xs), one)
        many = [f(*t, value=v.item()) for t, v in zip(triples, values)]
        compare(run(f"ForeachAd{name.replace('c', 'dc', 1)}ScalarList", xs, ys, zs, values, dtype=dtype, like=xs), many)


@pytest.mark.parametrize("dtype", cases.FLOATS)
def test_lerp_and_pow(dtype):
    xs, ys, ws = tensors(dtype, 1, 0.5, 3), tensors(dtype, 2, 0.5, 3), tensors(dtype, 3, 0, 1)
    pairs = list(zip(wide(xs), wide(ys)))
    for weight in (0.1, 0.9):
        compare(run("ForeachLerpScalar", xs, ys, weight, dtype=dtype, like=xs), [torch.lerp(x, y, weight) for x, y in pairs])
    compare(run("ForeachLerpList", xs, ys, ws, dtype=dtype, like=xs), [torch.lerp(x, y, w) for (x, y), w in zip(pairs, wide(ws))])
    compare(run("ForeachPowScalarV2", xs, 1.5, dtype=dtype, like=xs), [x ** 1.5 for x, _ in pairs])
    compare(run("ForeachPowScalar", xs, torch.tensor([1.5], dtype=dtype), dtype=dtype, like=xs), [x ** 1.5 for x, _ in pairs])
    compare(run("ForeachPowScalarAndTensor", 1.5, xs, dtype=dtype, like=xs), [1.5 ** x for x, _ in pairs])
    compare(run("ForeachPowList", xs, ys, dtype=dtype, like=xs), [x ** y for x, y in pairs])
    compare(run("ForeachPowScalarList", xs, [0.5 * i for i in range(len(xs))], dtype=dtype, like=xs), [x ** (0.5 * i) for i, (x, _) in enumerate(pairs)])


def test_broadcast_constant_tensor():
    xs = tensors(torch.float32, 1)
    compare(run("ForeachMulList", xs, [torch.tensor(0.5)] * len(xs), dtype=torch.float32, like=xs), [x * 0.5 for x in wide(xs)])


@pytest.mark.parametrize("arguments,message", [
    (lambda x: (x, x[:1], 1.0, x), "x2 has 1 tensors, expected 2"),
    (lambda x: (x, [x[0], x[1].double()], 1.0, x), "type float64, expected that of the list's first, float32"),
    (lambda x: (x, [x[0], torch.ones(7)], 1.0, x), r"\[7\], which can't be broadcast"),
])
def test_errors(arguments, message):
    x = [torch.ones(3), torch.ones(4)]
    with pytest.raises(aclnn.Failed, match=message):
        aclnn.call("ForeachAddListV2", *arguments(x))


def test_wrong_number_of_constants():
    x = [torch.ones(3), torch.ones(4), torch.ones(2)]
    with pytest.raises(aclnn.Failed, match="2 constants, expected 1 or one for each of the 3"):
        aclnn.call("ForeachAddScalarList", x, [1.0, 2.0], x)
