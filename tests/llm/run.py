#!/usr/bin/env python3
"""Language models on npu (unmodified torch_npu) beside torch's CPU device: `make llm` calls this under `anycann run`.

    python tests/llm/run.py [--only REGEX] [--quick] [--write] [--out FOLDER]

transformers' generate() token for token (generate.py), and two decoders written plainly and with torch_npu's fused operators
(agreement.py). Prints a table, writes OUT/llm.json, and with --write the table of docs/llm.md. Exit 1 if anything disagrees.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BEGIN, END = "<!-- llm: written by tests/llm/run.py -->", "<!-- /llm -->"


def table(rows):
    lines = ["| model | what | agrees | error | cpu ms | npu ms | cpu : npu |", "|---|---|---|---|---|---|---|"]
    for r in rows:
        error = f"{r['error']:.1e}" if "error" in r else "every token" if r["agrees"] else ""
        lines.append(f"| {r['model']} | {r['what']} | {'yes' if r['agrees'] else 'NO'} | {error} | {1e3 * r['cpu']:.1f} | {1e3 * r['npu']:.1f} | {r['cpu'] / r['npu']:.2f} |")
    return "\n".join(lines)


def write(rows, versions):
    page = ROOT / "docs/llm.md"
    text = page.read_text()
    note = f"{datetime.date.today()}, {os.cpu_count()} cores, {versions}"
    page.write_text(text[: text.index(BEGIN)] + f"{BEGIN}\n{note}\n\n{table(rows)}\n" + text[text.index(END):])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="models of generate() whose name this regular expression finds")
    parser.add_argument("--quick", action="store_true", help="generate() for Llama and DeepSeek-V3 alone")
    parser.add_argument("--write", action="store_true", help="rewrite the table of docs/llm.md")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build/llm")
    arguments = parser.parse_args()
    import torch
    import torch_npu
    import transformers

    import agreement
    import generate

    torch.manual_seed(0)
    names = [n for n in generate.CONFIGS if re.search("^(Llama|DeepSeek-V3)$" if arguments.quick else arguments.only, n)]
    rows = agreement.run() + generate.run(names)
    print(table(rows))
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "llm.json").write_text(json.dumps(rows, indent=1))
    if arguments.write:
        write(rows, f"torch {torch.__version__}, torch_npu {torch_npu.__version__}, transformers {transformers.__version__}")
    bad = [r for r in rows if not r["agrees"]]
    slow = [r for r in rows if r["npu"] > 3 * r["cpu"]]
    print(f"llm: {len(rows)} comparisons, {len(bad)} disagree, {len(slow)} are more than 3 times slower than the CPU device")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
