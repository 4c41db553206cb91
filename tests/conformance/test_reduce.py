"""Reductions over types, layouts and dimensions, against torch in float64."""

import itertools

import pytest
import torch

import aclnn
import cases

SHAPE = (3, 5, 7)
LARGE = [torch.float32, torch.float16, torch.int64, torch.bool]
DIMS = [[], [0], [1], [-1], [0, 2], [0, 1, 2]]


def inputs(dtype, low=-3.0, high=3.0):
    for layout in cases.LAYOUTS:
        yield layout, cases.tensor(SHAPE, dtype, layout, low, high, cases.seed_of(dtype, layout))
    # Long rows, long columns, many columns: the engine's other paths, and its pieces.
    for shape in [(2, 70001), (30001, 2), (3000, 40), (300, 4, 50), (5, 3, 257)] if dtype in LARGE else []:
        yield f"large {shape}", cases.tensor(shape, dtype, "contiguous", low, high, 1)
    yield "permuted", cases.tensor((40, 30, 50), dtype, "contiguous", low, high, 9).permute(1, 2, 0)
    yield "every third", cases.tensor((40, 300), dtype, "contiguous", low, high, 9)[:, ::3]
    if dtype.is_floating_point:
        x = cases.tensor((4, 6, 5), dtype, "contiguous", low, high, 3)
        x[0, 1, 2], x[1, 2, 3], x[2, 0, 0] = float("nan"), float("inf"), -float("inf")
        yield "special", x


def dims_of(x):
    for dims in DIMS:
        if all(-x.dim() <= d < x.dim() for d in dims) and len({d % max(1, x.dim()) for d in dims}) == len(dims):
            yield dims
    if x.dim() == 0:
        yield [0]


def reduced_shape(x, dims, keepdim):
    dims = {d % max(1, x.dim()) for d in dims} or set(range(x.dim()))
    return tuple(1 if i in dims else s for i, s in enumerate(x.shape) if keepdim or i not in dims)


def check(op, dtype, call, reference, out_dtypes, low=-3.0, high=3.0, nonempty=False, rtol=None, atol=None):
    """call(x, dims, keepdim, *outs); reference(wide x, dims, keepdim) -> result or tuple of them."""
    for name, x in inputs(dtype, low, high):
        if nonempty and x.numel() == 0:
            continue
        for dims, keepdim in itertools.product(dims_of(x), (False, True)):
            outs = [cases.empty(reduced_shape(x, dims, keepdim), t, "strided" if keepdim else "contiguous") for t in out_dtypes]
            call(x, dims, keepdim, *outs)
            expected = reference(cases.wide(x), dims or list(range(x.dim())), keepdim)
            for out, e in zip(outs, expected if isinstance(expected, tuple) else (expected,)):
                try:
                    cases.compare(out, e, rtol, atol)
                except AssertionError as error:
                    raise AssertionError(f"{op} {dtype} {name} dims {dims} keepdim {keepdim}: {error}") from None


@pytest.mark.parametrize("dtype", cases.ALL)
def test_sum(dtype):
    to = dtype if dtype.is_floating_point or dtype.is_complex else torch.int64
    check("Sum", dtype, lambda x, d, k, out: aclnn.call("ReduceSum", x, d, k, to, out), lambda x, d, k: x.sum(d, keepdim=k), [to], low=-1)


@pytest.mark.parametrize("self,to", [(torch.int32, torch.float32), (torch.float16, torch.float32), (torch.bool, torch.float32),
                                     (torch.float32, torch.int64), (torch.int64, torch.int32)])
def test_sum_to_another_type(self, to):
    check("Sum", self, lambda x, d, k, out: aclnn.call("ReduceSum", x.nan_to_num(0, 0, 0), d, k, to, out),
          lambda x, d, k: x.nan_to_num(0, 0, 0).to(to).to(torch.float64).sum(d, keepdim=k), [to], low=-1)


@pytest.mark.parametrize("dtype", [*cases.FLOATS, *cases.COMPLEX])
def test_mean(dtype):
    check("Mean", dtype, lambda x, d, k, out: aclnn.call("Mean", x, d, k, dtype, out), lambda x, d, k: x.mean(d, keepdim=k), [dtype])


@pytest.mark.parametrize("dtype", [*cases.REAL, torch.bool])
def test_nansum(dtype):
    to = dtype if dtype.is_floating_point else torch.int64
    check("Nansum", dtype, lambda x, d, k, out: aclnn.call("ReduceNansum", x, d, k, to, out), lambda x, d, k: x.nansum(d, keepdim=k), [to], low=-1)


@pytest.mark.parametrize("dtype", [*cases.REAL, torch.bool])
@pytest.mark.parametrize("op,reference", [("Amax", torch.amax), ("Amin", torch.amin)])
def test_amax_amin(op, reference, dtype):
    check(op, dtype, lambda x, d, k, out: aclnn.call(op, x, d, k, out), lambda x, d, k: reference(x, d, k), [dtype], nonempty=True)


@pytest.mark.parametrize("dtype", [*cases.REAL, torch.bool])
def test_aminmax(dtype):
    check("Aminmax", dtype, lambda x, d, k, a, b: aclnn.call("Aminmax", x, d, k, a, b), lambda x, d, k: (x.amin(d, k), x.amax(d, k)), [dtype, dtype],
          nonempty=True)


@pytest.mark.parametrize("dtype", [*cases.REAL, torch.bool])
@pytest.mark.parametrize("op,reference", [("MaxDim", torch.max), ("MinDim", torch.min)])
def test_max_min_dim(op, reference, dtype):
    for name, x in inputs(dtype):
        if x.numel() == 0:
            continue
        for dim in range(-1, max(1, x.dim())):
            value, index = cases.empty(reduced_shape(x, [dim], False), dtype), cases.empty(reduced_shape(x, [dim], False), torch.int64)
            aclnn.call(op, x, dim, False, value, index)
            e = reference(x, dim)
            cases.compare(value, e.values)
            assert torch.equal(index, e.indices), (op, dtype, name, dim)
            for arg, op_arg in [("MaxDim", "ArgMax"), ("MinDim", "ArgMin")]:
                if op == arg:
                    alone = cases.empty(reduced_shape(x, [dim], True), torch.int64)
                    aclnn.call(op_arg, x, dim, True, alone)
                    assert torch.equal(alone, reference(x, dim, keepdim=True).indices), (op_arg, dtype, name, dim)


@pytest.mark.parametrize("dtype", cases.ALL)
@pytest.mark.parametrize("op,reference", [("All", torch.all), ("Any", torch.any)])
def test_all_any(op, reference, dtype):
    check(op, dtype, lambda x, d, k, out: aclnn.call(op, x, d, k, out),
          lambda x, d, k: reference(x, tuple(d), k) if d else reference(x), [torch.bool], low=-0.7, high=0.7)


@pytest.mark.parametrize("dtype", cases.ALL)
def test_prod(dtype):
    to = dtype if dtype.is_floating_point or dtype.is_complex else torch.int64
    for name, x in inputs(dtype, 0.9, 1.1):
        if x.numel() > (1000 if dtype.is_complex else 100000):
            continue
        out = cases.empty((), to)
        aclnn.call("Prod", x, to, out)
        cases.compare(out, cases.wide(x).prod(), rtol=2e-3 if to == torch.float16 else None)
        for dim in range(-1, max(1, x.dim())):
            out = cases.empty(reduced_shape(x, [dim], True), to)
            aclnn.call("ProdDim", x, dim, True, to, out)
            cases.compare(out, cases.wide(x).prod(dim, keepdim=True))


def real(dtype):
    return torch.empty(0, dtype=dtype).abs().dtype


@pytest.mark.parametrize("dtype", [*cases.FLOATS, *cases.COMPLEX])
@pytest.mark.parametrize("correction", [0, 1, 2])
@pytest.mark.filterwarnings("ignore:.*degrees of freedom")
def test_variance(dtype, correction):
    check("VarMean", dtype, lambda x, d, k, v, m: aclnn.call("VarMean", x, d, correction, k, v, m),
          lambda x, d, k: torch.var_mean(x, d, correction=correction, keepdim=k), [real(dtype), dtype])
    check("Std", dtype, lambda x, d, k, out: aclnn.call("Std", x, d, correction, k, out),
          lambda x, d, k: torch.std(x, d, correction=correction, keepdim=k), [real(dtype)])
    check("VarCorrection", dtype, lambda x, d, k, out: aclnn.call("VarCorrection", x, d, correction, k, out),
          lambda x, d, k: torch.var(x, d, correction=correction, keepdim=k), [real(dtype)])


@pytest.mark.parametrize("dtype", [*cases.FLOATS, *cases.COMPLEX])
@pytest.mark.filterwarnings("ignore:.*degrees of freedom")
def test_deviation_and_mean(dtype):
    for correction in (0, 1):
        check("StdMeanCorrection", dtype, lambda x, d, k, s, m: aclnn.call("StdMeanCorrection", x, d, correction, k, s, m),
              lambda x, d, k: torch.std_mean(x, d, correction=correction, keepdim=k), [real(dtype), dtype])


@pytest.mark.parametrize("dtype", [*cases.FLOATS, *cases.INTS, torch.bool])
def test_log_of_sum(dtype):
    to = dtype if dtype.is_floating_point else torch.float32
    check("ReduceLogSum", dtype, lambda x, d, k, out: aclnn.call("ReduceLogSum", x, d, k, False, out),
          lambda x, d, k: x.double().sum(d, keepdim=k).log(), [to], low=0.1 if dtype.is_floating_point else 1, high=3)


@pytest.mark.parametrize("dtype", cases.FLOATS)
def test_no_dimensions_may_mean_none(dtype):
    for layout in cases.LAYOUTS:
        x = cases.tensor(SHAPE, dtype, layout, 0.1, 3)
        for op, expected in (("MaxV2", cases.wide(x)), ("MeanV2", cases.wide(x)), ("ReduceLogSum", cases.wide(x).log())):
            out = cases.empty(SHAPE, dtype, layout)
            aclnn.call(op, x, [], False, True, out)
            cases.compare(out, expected)


def test_variance_far_from_zero():
    x = torch.randn(300000, generator=torch.Generator().manual_seed(1)) + 1e4
    out = cases.empty((), torch.float32)
    aclnn.call("VarCorrection", x, [], 1, False, out)
    cases.compare(out, x.double().var())


@pytest.mark.parametrize("dtype", [*cases.FLOATS, *cases.COMPLEX])
@pytest.mark.parametrize("p", [0, 1, 2, 3, 0.5, float("inf"), -float("inf"), -1.0])
def test_vector_norm(dtype, p):
    check("LinalgVectorNorm", dtype, lambda x, d, k, out: aclnn.call("LinalgVectorNorm", x, float(p), d, k, real(dtype), out),
          lambda x, d, k: torch.linalg.vector_norm(x, p, d, k), [real(dtype)], nonempty=p < 0 or p == float("inf"))


@pytest.mark.parametrize("dtype", [*cases.FLOATS, *cases.COMPLEX])
@pytest.mark.parametrize("p", [1, 2, 1.5, float("inf")])
def test_renorm(dtype, p):
    for layout in ["contiguous", "transposed", "strided", "offset"]:
        x = cases.tensor(SHAPE, dtype, layout)
        for dim in range(-3, 3):
            out = cases.empty(SHAPE, dtype, layout)
            aclnn.call("Renorm", x, float(p), dim, 5.0, out)
            cases.compare(out, torch.renorm(cases.wide(x), p, dim, 5.0))


@pytest.mark.parametrize("dtype", [*cases.REAL, torch.bool])
def test_log_sum_exp(dtype):
    check("LogSumExp", dtype, lambda x, d, k, out: aclnn.call("LogSumExp", x, d, k, out),
          lambda x, d, k: torch.logsumexp(x.double(), d, k), [dtype if dtype.is_floating_point else torch.float32], low=-40, high=40)


@pytest.mark.parametrize("dtype", cases.COMPLEX)
def test_log_sum_exp_complex(dtype):
    check("LogSumExp", dtype, lambda x, d, k, out: aclnn.call("LogSumExp", x, d, k, out), torch.logsumexp, [dtype], low=-3, high=3)
    x = torch.tensor([complex("-inf"), complex(1, 2), complex("-inf")], dtype=dtype)
    for part in (x, x[:1], x[:0]):
        out = torch.empty((), dtype=dtype)
        aclnn.call("LogSumExp", part, [0], False, out)
        cases.compare(out, torch.logsumexp(part.to(torch.complex128), 0))


@pytest.mark.parametrize("dtype", cases.ALL)
def test_trace(dtype):
    to = dtype if dtype.is_floating_point or dtype.is_complex else torch.int64
    for shape in [(5, 5), (3, 8), (8, 3), (0, 4)]:
        for layout in ["contiguous", "transposed", "strided"]:
            x = cases.lay(cases.values(shape, dtype), layout)
            out = cases.empty((), to)
            aclnn.call("Trace", x, out)
            cases.compare(out, cases.wide(x).diagonal().sum())


def test_bad_arguments():
    x = torch.randn(3, 4)
    for arguments, word in [(([0, 0], False, torch.float32, torch.empty(4)), "twice"), (([5], False, torch.float32, torch.empty(4)), "dims is 5"),
                            (([0], True, torch.float32, torch.empty(4)), "expected [1,4]")]:
        with pytest.raises(aclnn.Failed, match=word.replace("[", r"\[")) as e:
            aclnn.call("ReduceSum", x, *arguments)
        assert e.value.code == 161002
    with pytest.raises(aclnn.Failed, match="at least one value"):
        aclnn.call("Amax", torch.empty(0, 4), [0], False, torch.empty(4))


@pytest.mark.parametrize("dtype", [*cases.REAL, *cases.COMPLEX])
@pytest.mark.parametrize("op,join", [("Sum", torch.add), ("MaxN", torch.maximum), ("MinN", torch.minimum)])
def test_list_fold(op, join, dtype):
    if dtype.is_complex and op != "Sum":
        return
    for layout in cases.LAYOUTS:
        for count in (1, 2, 5):
            xs = [cases.tensor(SHAPE, dtype, layout, seed=i) for i in range(count)]
            e = cases.wide(xs[0])
            for x in xs[1:]:
                e = join(e, cases.wide(x))
            out = cases.empty(SHAPE, dtype, layout)
            aclnn.call(op, xs, out)
            cases.compare(out, e)


def test_sum_of_everything_as_one_element():
    x, out = torch.randn(3, 4), torch.empty(1)
    aclnn.call("ReduceSum", x, [0, 1], False, torch.float32, out)  # as llama.cpp calls it
    torch.testing.assert_close(out[0].double(), x.double().sum(), rtol=1e-6, atol=1e-6)
    with pytest.raises(aclnn.Failed, match=r"out has shape \[2\]"):
        aclnn.call("ReduceSum", x, [0, 1], False, torch.float32, torch.empty(2))
