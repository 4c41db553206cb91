"""The worst error of each operator and output type, in units in the last place of that type, against the float64 oracle.

|result - exact| / ulp(exact), where ulp(x) is the distance between numbers of the result's type around x, at least that of
its smallest normal number; complex numbers by modulus. NaN and infinities don't count: tests compare those exactly.

Where terms cancel, a result says nothing about their size. So results other than those of elementwise operators count in the
ULP of the root mean square of their tensor, or of 1/8 (tests have operands of size 1), if they are smaller than those.
"""

from __future__ import annotations

import csv
import pathlib

import torch

worst: dict[tuple[str, str], float] = {}  # (operator without aclnn, type) -> ULP, of this process


def error(actual: torch.Tensor, exact: torch.Tensor, cancels: bool) -> float:
    """The largest error of `actual` in its type's ULP; `exact` is float64 or complex128 and of the same shape."""
    info = torch.finfo(actual.dtype)
    wide, size = actual.to(exact.dtype), exact.abs()
    # Beyond the type's range the right answer is infinite.
    finite = wide.isfinite() & exact.isfinite() & (size <= info.max)
    distance, size = (wide - exact).abs()[finite], size[finite]
    if distance.numel() == 0:
        return 0.0
    least = info.tiny
    if cancels:
        largest = max(size.max().item(), info.tiny)
        least = max(0.125, largest * (size / largest).square().mean().sqrt().item())
    _, exponent = torch.frexp(size.clamp(min=least))
    return torch.ldexp(distance / info.eps, 1 - exponent).max().item()


def record(operators: list[str], actual: torch.Tensor, exact: torch.Tensor, cancels: bool = True) -> None:
    """Notes the error of a result of these operators. Expectations in other types than float64 are no oracle of rounding."""
    if not operators or exact.dtype not in (torch.float64, torch.complex128) or not (actual.is_floating_point() or actual.is_complex()):
        return
    ulp = error(actual.detach(), exact.detach(), cancels)
    for op in operators:
        key = op, str(actual.dtype).removeprefix("torch.")
        worst[key] = max(worst.get(key, 0.0), ulp)


def bounds(path: pathlib.Path) -> dict[tuple[str, str], float]:
    """The committed table of the errors allowed, with some room for what rounding to two digits hides."""
    if not path.exists():
        return {}
    with open(path, newline="") as f:
        rows = [(row.pop("op"), row) for row in csv.DictReader(f, delimiter="\t")]
    return {(op, dtype): 1.05 * float(ulp) for op, row in rows for dtype, ulp in row.items() if ulp}
