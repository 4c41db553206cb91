#!/usr/bin/env bash
# Measures the operators' errors with tests/conformance on every instruction set that this machine runs, and rewrites
# docs/accuracy.tsv and docs/coverage.md: make accuracy. Review the difference.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p build/test
files=()
for level in $(/lib64/ld-linux-x86-64.so.2 --help | sed -n 's/^ *x86-64-\(v[234]\) (supported.*/\1/p'); do
  files+=("build/test/ulp-$level.json")
  build/toolkit/bin/anycann run --isa "$level" .venv/bin/python -m pytest -q -n "$(nproc)" tests/conformance --ulp "${files[-1]}"
done
.venv/bin/python tools/docs/coverage.py build/toolkit --ulp "${files[@]}"
