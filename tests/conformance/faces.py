"""The other faces of an operator that is called must give its bits: aclnnInplaceX for aclnnX, and versions that differ in
their parameters only.

Watches every call (aclnn.observers), so each test of X over types, layouts and special values is one of its faces too, and
what compares X with the oracle compares all of them.
"""

from __future__ import annotations

import functools

import torch

import aclnn


def same(*arguments):
    return arguments


def seeded(place: int):
    """The version whose seed and offset, given at `place`, lie in tensors; its own offset is added."""
    return lambda *a: (*a[:place], torch.tensor([a[place]]), torch.tensor([a[place + 1] - 7]), 7, *a[place + 2:])


NEUTRAL = dict(pseType=1, seed=0, offset=0, outDtype=0, softmaxOutLayout="", softmaxInLayout="")


def later(op: str, *versions: int):
    """Versions with more parameters, here absent or neutral; all others are found by their names."""
    def arguments(name, *values):
        given = dict(zip((p[1] for p in aclnn.prototypes()[op]), values))
        return tuple(given.get(p[1], NEUTRAL.get(p[1])) for p in aclnn.prototypes()[name])
    return {f"{op}V{v}": functools.partial(arguments, f"{op}V{v}") for v in versions}


# op -> {another name: its arguments from op's, or None where it can't say the same}. Outputs are passed as copies.
VERSIONS = {
    "LayerNorm": {"FastLayerNorm": same, "LayerNormWithImplMode": lambda *a: (*a, 0)},
    "AddRmsNorm": {"AddRmsNormBias": lambda x1, x2, gamma, *a: (x1, x2, gamma, None, *a)},
    "GroupNormSilu": {"GroupNormSiluV2": lambda x, g, b, n, eps, *outs: (x, g, b, n, eps, True, *outs),
                      "GroupNormSwish": lambda x, g, b, n, eps, *outs: (x, g, b, n, "NCHW", eps, True, 1.0, *outs)},
    "MseLoss": {"MseLossOut": same},
    "TopkV2": {"Topk": lambda x, k, dim, largest, ordered, _, *outs: (x, k, dim, largest, ordered, *outs)},
    "Amax": {"MaxV2": lambda x, dims, keep, out: (x, dims, keep, False, out),
             "Max": lambda x, dims, keep, out: (x, out) if out.dim() == 0 else None},
    "Amin": {"Min": lambda x, dims, keep, out: (x, out) if out.dim() == 0 else None},
    "Aminmax": {"AminmaxDim": lambda x, dims, keep, *outs: (x, dims[0], keep, *outs) if len(dims) == 1 else None,
                "AminmaxAll": lambda x, dims, keep, *outs: (x, *outs) if outs[0].dim() == 0 else None},
    "Mean": {"MeanV2": lambda x, dims, keep, dtype, out: (x, dims, keep, False, out) if dtype == out.dtype else None},
    "VarCorrection": {"Var": lambda x, dims, c, keep, out: (x, dims, c == 1, keep, out) if c in (0, 1) else None},
    "LinalgVectorNorm": {"Norm": lambda x, p, dims, keep, dtype, out: (x, p, dims, keep, out) if dtype == out.dtype else None},
    "GeGluV3": {"GeGlu": lambda x, dim, form, left, *outs: None if left else (x, dim, form, *outs)},
    "GeGluV3Backward": {"GeGluBackward": lambda g, x, gelu, dim, form, left, out: None if left else (g, x, gelu, dim, form, out)},
    "ForeachAddcmulScalarList": {"ForeachAddcmulList": same},
    "ForeachAddcdivScalarList": {"ForeachAddcdivList": same},
    "InplaceUniform": {"InplaceUniformTensor": seeded(3)},
    "InplaceNormal": {"InplaceNormalTensor": seeded(3)},
    "InplaceRandom": {"InplaceRandomTensor": seeded(3)},
    "InplaceRandomWithoutFromTo": {"InplaceRandomWithoutFromToTensor": seeded(1)},
    "DropoutV3": {"DropoutV3Tensor": seeded(3), "Dropout": lambda x, shape, p, *rest: (x, p, True, *rest)},
    "DropoutV3Grad": {"DropoutBackward": same},
    "DropoutGenMaskV2": {"DropoutGenMask": lambda shape, p, seed, offset, dtype, out: (shape, p, seed, offset, out)},
    "InplaceBernoulli": {"Bernoulli": lambda t, *a: (t, *a, t)},
    "InplaceBernoulliTensor": {"BernoulliTensor": lambda t, *a: (t, *a, t)},
    "FlashAttentionScore": later("FlashAttentionScore", 2, 3, 4),
    "FlashAttentionScoreGrad": later("FlashAttentionScoreGrad", 2, 3, 4),
    "FlashAttentionVarLenScore": later("FlashAttentionVarLenScore", 2, 4),
    "FlashAttentionUnpaddingScoreGrad": later("FlashAttentionUnpaddingScoreGrad", 2, 4),
}


def copy_of(t: torch.Tensor) -> torch.Tensor:
    """A tensor with the same values in memory of its own, of the same layout."""
    return torch.empty(0, dtype=t.dtype).set_(t.untyped_storage().clone(), t.storage_offset(), t.shape, t.stride())


def overlaps(t: torch.Tensor) -> bool:
    return any(stride == 0 and size > 1 for size, stride in zip(t.shape, t.stride()))


def tensors(argument) -> list[torch.Tensor]:
    return [t for t in (argument if isinstance(argument, (list, tuple)) else [argument]) if isinstance(t, torch.Tensor)]


@functools.cache
def in_place(op: str) -> tuple[str, int, int] | None:
    """The in-place operator's name, the place of its target and that of op's output; None if op has none that takes the same."""
    name = f"Inplace{op}"
    if name not in aclnn.prototypes() or not aclnn.implemented(name):
        return None
    mine, base = aclnn.prototypes()[name], aclnn.prototypes()[op]
    outputs = [i for i, p in enumerate(base) if p[2] == "out"]
    targets = [i for i, p in enumerate(mine) if p[2] == "inout"]
    if len(outputs) != 1 or len(targets) != 1 or [p[0] for p in mine] != [p[0] for i, p in enumerate(base) if i != outputs[0]]:
        return None
    return name, targets[0], outputs[0]


def in_place_run(op: str, arguments):
    face = in_place(op)
    if face is None:
        return
    name, target, output = face
    out, rest = arguments[output], [a for i, a in enumerate(arguments) if i != output]
    given = rest[target]
    if not isinstance(given, torch.Tensor) or not isinstance(out, torch.Tensor) or given.shape != out.shape or overlaps(given):
        return
    if out.dtype in (given.dtype, torch.bool):
        rest[target] = copy_of(given)
        yield name, rest, [(rest[target], out)]


def version_runs(op: str, arguments):
    for name, translate in VERSIONS.get(op, {}).items():
        pairs = []

        def copied(argument):
            copies = [copy_of(t) for t in tensors(argument)]
            pairs.extend(zip(copies, tensors(argument)))
            return copies if isinstance(argument, (list, tuple)) else copies[0] if copies else argument

        mine = translate(*(copied(a) if p[2] != "in" else a for p, a in zip(aclnn.prototypes()[op], arguments)))
        if mine is not None:
            yield name, mine, pairs


_watching = False  # the faces' own calls are not watched


def watch(op: str, arguments):
    """Runs the faces first, as the call may overwrite its arguments; the comparison follows the call."""
    global _watching
    if _watching:
        return None
    _watching, runs = True, []
    try:
        for name, mine, pairs in (*in_place_run(op, arguments), *version_runs(op, arguments)):
            try:
                aclnn.call(name, *mine)
                runs.append((name, pairs, None))
            except aclnn.Failed as e:
                runs.append((name, pairs, e))
    finally:
        _watching = False

    def compare():
        for name, pairs, failure in runs:
            if failure is not None:
                raise AssertionError(f"aclnn{op} succeeds, but {failure}")
            for actual, expected in pairs:
                if name != f"Inplace{op}":
                    aclnn.share(expected, name)
                if not torch.equal(actual, expected.to(actual.dtype)):
                    torch.testing.assert_close(actual, expected.to(actual.dtype), rtol=0, atol=0, equal_nan=True,
                                               msg=lambda m: f"aclnn{name} and aclnn{op} differ: {m}")
    return compare if runs else None
