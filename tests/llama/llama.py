#!/usr/bin/env python3
"""llama.cpp's CANN backend, unmodified, on AnyCANN: `make llama` calls this.

    python tests/llama/llama.py build      fetch the source distribution of llama-cpp-python from PyPI and build its llama.cpp
    python tests/llama/llama.py ops        llama.cpp's own test-backend-ops: every case that the backend accepts, against its CPU backend
    python tests/llama/llama.py perf       test-backend-ops' timing mode for one operator (--only MUL_MAT)
    python tests/llama/llama.py archs      llama.cpp's own test-llama-archs: small models of every architecture, logits against its CPU backend
    python tests/llama/llama.py models     Llama, Qwen3-MoE and DeepSeek shapes x F16, Q8_0, Q4_0 x the backend's settings: KL divergence, perplexity, text
    python tests/llama/llama.py server     llama-server with continuous batching: requests together against the same alone
    python tests/llama/llama.py sentences  a real sentence-transformer: embeddings against transformers', the nearest page for some questions
    python tests/llama/llama.py bench      llama-bench on npu and on llama.cpp's CPU backend: the same files, the same threads
    python tests/llama/llama.py quick      what `make test` runs: some operators and architectures, one model, the server

The builds lie in ~/.cache/anycann (or $XDG_CACHE_HOME/anycann) and are made against build/toolkit's headers and libraries
($ANYCANN_TOOLKIT names another); a toolkit that is built again is used without building llama.cpp again. What fails because of
llama.cpp itself stands in expected_failures.tsv with its reason; any other failure, and a stale reason, make the exit code 1.
"""

from __future__ import annotations

import argparse
import os
import sys

import common
import models
import operators
import sentences
import server

QUICK_OPERATORS = "^(MUL_MAT|SOFT_MAX|FLASH_ATTN_EXT|GET_ROWS|RMS_NORM|GLU|CPY)$"
QUICK_SETTINGS = {name: models.SETTINGS[name] for name in ("default (VMM pool, NZ weights)", "two devices")}
QUICK_ARCHITECTURES = "^(llama|qwen3moe|deepseek2)$"


def quick(arguments):
    return max(operators.ops(QUICK_OPERATORS, arguments.jobs), models.architectures(QUICK_ARCHITECTURES, arguments.jobs), models.compare("^llama-q4_0", QUICK_SETTINGS),
               server.check())


def main():
    steps = {
        "build": lambda a: 0,
        "ops": lambda a: operators.ops(a.only, a.jobs),
        "perf": lambda a: operators.perf(a.only or "MUL_MAT"),
        "archs": lambda a: models.architectures(a.only, a.jobs),
        "models": lambda a: models.compare(a.only, models.SETTINGS),
        "server": lambda a: server.check(),
        "sentences": lambda a: sentences.check(),
        "bench": lambda a: models.bench(a.shape, a.jobs),
        "quick": quick,
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", choices=steps)
    parser.add_argument("--shape", choices=["llama", "tinyllama"], default="tinyllama", help="of the model that `bench` runs")
    parser.add_argument("--only", default="", help="operators, architectures or models whose name this regular expression finds")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    if not common.ANYCANN.exists():
        raise SystemExit(f"{common.ANYCANN} is not there: make toolkit")
    common.build(arguments.jobs, graphs=arguments.what != ["quick"])
    return max(steps[what](arguments) for what in arguments.what)


if __name__ == "__main__":
    sys.exit(main())
