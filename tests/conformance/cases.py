"""The cases that every operator is tried with: element types x layouts, and the comparison with the float64 oracle.

    import cases
    @pytest.mark.parametrize("dtype", cases.FLOATS)
    @pytest.mark.parametrize("layout", cases.LAYOUTS)
    def test_exp(dtype, layout):
        x = cases.tensor((3, 5, 7), dtype, layout)
        out = cases.empty((3, 5, 7), dtype, layout)
        aclnn.call("Exp", x, out)
        cases.compare(out, torch.exp(cases.wide(x)))

or, for elementwise operators, one line: cases.elementwise("Exp", torch.exp, dtypes=cases.FLOATS).
"""

from __future__ import annotations

import zlib

import torch

import accuracy
import aclnn

FLOATS = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
SIGNED = [torch.int8, torch.int16, torch.int32, torch.int64]
INTS = [torch.uint8, *SIGNED]
COMPLEX = [torch.complex64, torch.complex128]
REAL = [*FLOATS, *INTS]
ALL = [*REAL, torch.bool, *COMPLEX]

# contiguous; dimensions reversed in memory; every second element of a larger tensor, from an offset; a slice with an
# offset; one dimension broadcast (stride 0; inputs only); no elements; no dimensions.
LAYOUTS = ["contiguous", "transposed", "strided", "offset", "expanded", "empty", "scalar"]
OUTPUT_LAYOUTS = {"expanded": "contiguous"}

# torch.testing.assert_close's defaults, which are what the clients' own tests allow.
TOLERANCE = {
    torch.float32: (1.3e-6, 1e-5), torch.float16: (1e-3, 1e-5), torch.bfloat16: (1.6e-2, 1e-5), torch.float64: (1e-7, 1e-7),
    torch.complex64: (1.3e-6, 1e-5), torch.complex128: (1e-7, 1e-7), torch.complex32: (1e-3, 1e-5),
}


def shape_of(shape, layout: str) -> tuple[int, ...]:
    """The shape that a case of this layout has."""
    if layout == "empty":
        return (0, *shape[1:]) if shape else (0,)
    return () if layout == "scalar" else tuple(shape)


def values(shape, dtype, low=-3.0, high=3.0, seed=0) -> torch.Tensor:
    """Random contiguous values in [low, high); integers from the same range, clipped to what the type holds."""
    g = torch.Generator().manual_seed(seed)
    if dtype == torch.bool:
        return torch.rand(shape, generator=g) < 0.5
    if dtype.is_complex:
        real = torch.rand((*shape, 2), generator=g, dtype=torch.float64) * (high - low) + low
        return torch.view_as_complex(real).to(dtype)
    v = torch.rand(shape, generator=g, dtype=torch.float64) * (high - low) + low
    if dtype.is_floating_point:
        return v.to(dtype)
    info = torch.iinfo(dtype)
    return v.round().clamp(info.min, info.max).to(dtype)


def lay(v: torch.Tensor, layout: str) -> torch.Tensor:
    """The same values in another layout of memory."""
    if layout == "transposed" and v.dim() > 1:
        return v.permute(*reversed(range(v.dim()))).contiguous().permute(*reversed(range(v.dim())))
    if layout == "strided" and v.dim() > 0:
        big = torch.zeros([2 * s + 1 for s in v.shape], dtype=v.dtype)
        view = big[tuple(slice(1, 1 + 2 * s, 2) for s in v.shape)]
        return view.copy_(v)
    if layout == "offset":
        big = torch.zeros(v.numel() + 7, dtype=v.dtype)
        return big[5:5 + v.numel()].view(v.shape).copy_(v)
    if layout == "expanded" and v.dim() > 0:
        return v[:1].expand(v.shape)
    return v.contiguous()


def tensor(shape, dtype, layout="contiguous", low=-3.0, high=3.0, seed=0) -> torch.Tensor:
    return lay(values(shape_of(shape, layout), dtype, low, high, seed), layout)


def empty(shape, dtype, layout="contiguous") -> torch.Tensor:
    """An output: filled with a value that a missing write would leave to be seen."""
    v = torch.full(shape_of(shape, layout), 77, dtype=torch.float64).to(dtype)
    return lay(v, OUTPUT_LAYOUTS.get(layout, layout))


def wide(t: torch.Tensor) -> torch.Tensor:
    """The oracle's type: float64, complex128, or the integer type itself."""
    if t.dtype.is_complex:
        return t.to(torch.complex128)
    return t.to(torch.float64) if t.dtype.is_floating_point else t


def compare(actual: torch.Tensor, expected: torch.Tensor, rtol=None, atol=None, cancels=True) -> None:
    """`expected` is the oracle's; it is rounded once to the actual type. `cancels`: see accuracy.py."""
    r, a = TOLERANCE.get(actual.dtype, (0, 0))
    torch.testing.assert_close(actual, expected.to(actual.dtype), rtol=r if rtol is None else rtol, atol=a if atol is None else atol,
                               equal_nan=True)
    accuracy.record(aclnn.writers(actual), actual, expected, cancels)


def seed_of(*parts) -> int:
    return zlib.crc32(repr(parts).encode())


def elementwise(op: str, reference, dtypes, inputs=1, extra=(), out_dtype=None, low=-3.0, high=3.0, shape=(3, 5, 7), before=(),
                cancels=False):
    """Runs an elementwise operator aclnn<op>(before..., inputs..., extra..., out) over types x layouts, and with NaN and Inf.

    out_dtype: None (as the first input) or a function of the input type.
    """
    failures = []
    for dtype in dtypes:
        for layout in LAYOUTS:
            xs = [tensor(shape, dtype, layout, low, high, seed_of(op, i)) for i in range(inputs)]
            failures += _one(op, reference, xs, before, extra, out_dtype, layout, cancels)
        special = [tensor(shape, dtype, "contiguous", low, high, seed_of(op, i)) for i in range(inputs)]
        if dtype.is_floating_point:
            special[0].view(-1)[:4] = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0]).to(dtype)
            failures += _one(op, reference, special, before, extra, out_dtype, "contiguous", cancels)
        if inputs > 1:  # broadcasting
            special[1] = special[1][:1, :, :1].clone()
            failures += _one(op, reference, special, before, extra, out_dtype, "contiguous", cancels)
    assert not failures, "\n".join(failures[:10])


def _one(op, reference, xs, before, extra, out_dtype, layout, cancels):
    dtype = xs[0].dtype
    out = empty(xs[0].shape, out_dtype(dtype) if out_dtype else dtype)
    out = lay(out, OUTPUT_LAYOUTS.get(layout, layout))
    try:
        aclnn.call(op, *before, *xs, *extra, out)
        compare(out, reference(*(wide(x) for x in xs)), cancels=cancels)
    except (AssertionError, aclnn.Failed) as e:
        return [f"aclnn{op} {dtype} {layout} {[tuple(x.shape) for x in xs]}: {e}"]
    return []
