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

The numbers are the worst errors that tests/conformance allows, in units in the last place of the result's type (ULP),
against the same operator of PyTorch on the CPU in float64: |result - exact| / ulp(exact); 0.5 is correct rounding. Where
the terms of a sum cancel, a result that is small beside the others of its tensor counts in the ULP of their root mean square.
Exact operators move or compare values, draw random numbers (tested by their distribution), or have integer results. In-place
operators give the bits of the operator that they are named after."""


def bound(error: float) -> float:
    """What is allowed where `error` was measured: a little more, as another instruction set rounds otherwise."""
    if error <= 0.5:
        return 0.5 if error else 0.0
    error *= 1.25
    power = 2.0 ** math.floor(math.log2(error))
    return next(power * f for f in (1, 1.25, 1.5, 2) if error <= power * f)


def write_accuracy(files) -> None:
    worst = collections.defaultdict(float)
    for name in files:
        for op, dtype, error in json.loads(pathlib.Path(name).read_text()):
            worst[op, dtype] = max(error, worst[op, dtype])
    with open(ROOT / "docs/accuracy.tsv", "w") as f:
        f.write("op\ttype\tulp\n")
        f.writelines(f"{op}\t{dtype}\t{bound(error):g}\n" for (op, dtype), error in sorted(worst.items()))


def read_accuracy():
    """op -> {type: ULP}"""
    result = collections.defaultdict(dict)
    with open(ROOT / "docs/accuracy.tsv", newline="") as f:
        for row in csv.DictReader(f, delimiter="\t"):
            result[row["op"]][row["type"]] = float(row["ulp"])
    return result


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
    types = [t for t in TYPES if any(t in accuracy[n] for n in rounding)]
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
