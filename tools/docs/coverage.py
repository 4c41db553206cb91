"""Writes what works, and how exactly, into README.md and docs/coverage.md, from the built toolkit's coverage table and
docs/accuracy.tsv.

    python tools/docs/coverage.py build/toolkit                  rewrite both
    python tools/docs/coverage.py build/toolkit --check          exit 1 if they differ from what the toolkit has
    python tools/docs/coverage.py build/toolkit --ulp FILE...    rewrite docs/accuracy.tsv first, from what runs of
                                                                 tests/conformance measured (pytest --ulp)
"""

from __future__ import annotations

import argparse
import collections
import csv
import json
import math
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
TIERS = {"T1": "llama.cpp needs it", "T2": "PyTorch", "T3": "language models, fused", "T4": "the rest", "T5": "rare"}
BEGIN = "<!-- coverage: written by tools/docs/coverage.py from the built toolkit -->"
END = "<!-- /coverage -->"
TYPES = ["float32", "float16", "bfloat16", "float64", "complex64", "complex128"]
INTRODUCTION = """Written by tools/docs/coverage.py from the built toolkit and docs/accuracy.tsv. Names without `aclnn`.

The numbers are the worst errors that tests/conformance allows, in units in the last place of the result's type (ULP): the
distance from the same operator of PyTorch on the CPU in float64, over its types, layouts and shapes; 0.5 is correct rounding.
float64 stands beside an oracle of its own precision, whose errors count too. Where terms may cancel (everything but
elementwise operators), results count in the ULP of the root mean square of their tensor, or of 1/8, if they are smaller.

Exact: moves or compares values, has integer results, or draws random numbers (tested by their distribution). In place: gives
the bits of the operator of that name. Both are tested like the others."""


def bounds(measured: dict[str, float]) -> dict[str, float]:
    """What an operator is allowed in each type: half as much again as measured, as another instruction set rounds otherwise;
    four times as much where PyTorch's own float64, which differs from one processor to the next, is no more exact."""
    rounds = any(error for dtype, error in measured.items() if dtype not in ("float64", "complex128"))
    result = {}
    for dtype, error in measured.items():
        if dtype in ("float64", "complex128"):
            error = max(4 * error, 2.0 if rounds else 0.0)
        elif error > 0.51:
            error *= 1.5
        else:  # rounded once, from a wider type
            error = 0.5 if error else 0.0
        power = 2.0 ** math.floor(math.log2(error)) if error else 0.0
        result[dtype] = next(power * f for f in (1, 1.5, 2) if error <= power * f)
    return result


def write_accuracy(files) -> None:
    measured = collections.defaultdict(lambda: collections.defaultdict(float))
    for name in files:
        for op, dtype, error in json.loads(pathlib.Path(name).read_text()):
            measured[op][dtype] = max(error, measured[op][dtype])
    with open(ROOT / "docs/accuracy.tsv", "w") as f:
        f.write("\t".join(["op", *TYPES]) + "\n")
        for op in sorted(measured):
            allowed = bounds(measured[op])
            f.write("\t".join([op, *(f"{allowed[t]:g}" if t in allowed else "" for t in TYPES)]) + "\n")


def read_accuracy():
    """op -> {type: ULP}"""
    with open(ROOT / "docs/accuracy.tsv", newline="") as f:
        return {row.pop("op"): {t: float(ulp) for t, ulp in row.items() if ulp} for row in csv.DictReader(f, delimiter="\t")}


def table(rows) -> str:
    have, total = collections.Counter(), collections.Counter()
    for r in rows:
        total[r["tier"]] += 1
        have[r["tier"]] += r["implemented"] == "yes"
    lines = ["| aclnn operators | implemented | known |", "|---|---:|---:|"]
    lines += [f"| {tier}: {TIERS[tier]} | {have[tier]} | {total[tier]} |" for tier in TIERS]
    return "\n".join(lines)


def errors(names, accuracy) -> list[str]:
    """A table of the operators that round, and a list of the others."""
    rounding = [n for n in names if any(accuracy.get(n, {}).values())]
    types = [t for t in TYPES if t != "complex128" and any(t in accuracy[n] for n in rounding)]
    lines = []
    if rounding:
        lines += [f"| | {' | '.join(types)} |", f"|---|{'---:|' * len(types)}"]
        lines += [f"| {n} | {' | '.join(f'{accuracy[n][t]:g}' if t in accuracy[n] else '' for t in types)} |" for n in rounding] + [""]
    in_place = [n for n in names if n.startswith("Inplace") and n not in rounding and n.removeprefix("Inplace") in names]
    exact = [n for n in names if n not in rounding and n not in in_place]
    lines += ["Exact: " + " ".join(exact), ""] if exact else []
    return lines + (["In place: " + " ".join(n.removeprefix("Inplace") for n in in_place), ""] if in_place else [])


def listing(rows, accuracy) -> str:
    families = collections.defaultdict(list)
    for r in rows:
        families[r["family"]].append(r)
    parts = ["# Coverage", "", INTRODUCTION, "", table(rows), ""]
    for family in sorted(families):
        names = [r["op"].removeprefix("aclnn") for r in families[family] if r["implemented"] == "yes"]
        missing = [r["op"].removeprefix("aclnn") for r in families[family] if r["implemented"] != "yes"]
        parts += [f"## {family}: {len(names)} of {len(families[family])}", "", *errors(names, accuracy)]
        if missing:
            parts += ["Missing: " + " ".join(missing), ""]
    return "\n".join(parts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("toolkit")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--ulp", nargs="+", metavar="FILE")
    arguments = parser.parse_args()
    if arguments.ulp:
        write_accuracy(arguments.ulp)
    with open(pathlib.Path(arguments.toolkit) / "share/anycann/ops.tsv") as f:
        rows = list(csv.DictReader(f, delimiter="\t"))
    readme = (ROOT / "README.md").read_text()
    head, rest = readme.split(BEGIN)
    wanted = {"README.md": f"{head}{BEGIN}\n{table(rows)}\n{END}{rest.split(END)[1]}", "docs/coverage.md": listing(rows, read_accuracy())}
    stale = [name for name, text in wanted.items() if not (ROOT / name).exists() or (ROOT / name).read_text() != text]
    if not arguments.check:
        for name in stale:
            (ROOT / name).write_text(wanted[name])
    print(f"coverage: {', '.join(stale) or 'nothing'} {'out of date: run tools/docs/coverage.py' if arguments.check and stale else 'changed'}")
    return 1 if arguments.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
