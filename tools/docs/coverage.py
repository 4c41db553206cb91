"""Writes what works into README.md and docs/coverage.md, from the built toolkit's coverage table.

    python tools/docs/coverage.py build/toolkit          rewrite both
    python tools/docs/coverage.py build/toolkit --check  exit 1 if they differ from what the toolkit has
"""

from __future__ import annotations

import argparse
import collections
import csv
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
TIERS = {"T1": "llama.cpp needs it", "T2": "PyTorch", "T3": "language models, fused", "T4": "the rest", "T5": "rare"}
BEGIN = "<!-- coverage: written by tools/docs/coverage.py from the built toolkit -->"
END = "<!-- /coverage -->"


def table(rows) -> str:
    have, total = collections.Counter(), collections.Counter()
    for r in rows:
        total[r["tier"]] += 1
        have[r["tier"]] += r["implemented"] == "yes"
    lines = ["| aclnn operators | implemented | known |", "|---|---:|---:|"]
    lines += [f"| {tier}: {TIERS[tier]} | {have[tier]} | {total[tier]} |" for tier in TIERS]
    return "\n".join(lines)


def listing(rows) -> str:
    families = collections.defaultdict(list)
    for r in rows:
        families[r["family"]].append(r)
    parts = ["# Coverage", "", "Written by tools/docs/coverage.py from the built toolkit. Names without `aclnn`.", "", table(rows), ""]
    for family in sorted(families):
        names = [r["op"].removeprefix("aclnn") for r in families[family] if r["implemented"] == "yes"]
        missing = [r["op"].removeprefix("aclnn") for r in families[family] if r["implemented"] != "yes"]
        parts += [f"## {family}: {len(names)} of {len(families[family])}", "", " ".join(names) or "none", ""]
        if missing:
            parts += ["Missing: " + " ".join(missing), ""]
    return "\n".join(parts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("toolkit")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    with open(pathlib.Path(arguments.toolkit) / "share/anycann/ops.tsv") as f:
        rows = list(csv.DictReader(f, delimiter="\t"))
    readme = (ROOT / "README.md").read_text()
    head, rest = readme.split(BEGIN)
    wanted = {"README.md": f"{head}{BEGIN}\n{table(rows)}\n{END}{rest.split(END)[1]}", "docs/coverage.md": listing(rows)}
    stale = [name for name, text in wanted.items() if not (ROOT / name).exists() or (ROOT / name).read_text() != text]
    if not arguments.check:
        for name in stale:
            (ROOT / name).write_text(wanted[name])
    print(f"coverage: {', '.join(stale) or 'nothing'} {'out of date: run tools/docs/coverage.py' if arguments.check and stale else 'changed'}")
    return 1 if arguments.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
