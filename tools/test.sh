#!/usr/bin/env bash
# Every test, as `make test` runs it after the toolkit and the Python environment are there. Stages run one after
# another; all of them run even if one fails. Logs: build/test/. A stage by name: tools/test.sh conformance
set -uo pipefail
cd "$(dirname "$0")/.."

jobs=$(nproc)
python=.venv/bin/python
anycann=build/toolkit/bin/anycann
logs=build/test
mkdir -p "$logs"
passed=0 failed=0 failures=()

# stage NAME COMMAND...: runs it, keeps its output, tells the last lines and the time.
stage() {
  local name=$1 start=$SECONDS
  shift
  [ -n "${only:-}" ] && [ "$only" != "$name" ] && return
  printf '== %s\n' "$name"
  if "$@" > "$logs/$name.log" 2>&1; then
    passed=$((passed + 1))
    tail -n 2 "$logs/$name.log"
  else
    failed=$((failed + 1))
    failures+=("$name")
    tail -n 40 "$logs/$name.log"
    printf -- '-- %s FAILED (all of it: %s)\n' "$name" "$logs/$name.log"
  fi
  printf '   %s: %d s\n' "$name" $((SECONDS - start))
}

# The unit tests of a build, sanitizers' reports included: any report ends the program with an error.
unit() {
  local preset=$1
  cmake --preset "$preset" > /dev/null && cmake --build "build/$preset" -j "$jobs" --target unit_tests &&
    ctest --test-dir "build/$preset" --output-on-failure --timeout 600
}

# Random arguments for every operator under AddressSanitizer and UBSan.
fuzz() { cmake --preset asan > /dev/null && cmake --build build/asan -j "$jobs" --target fuzz && build/asan/tests/fuzz --cases 2500000; }

# Allocations that fail, one after another.
allocation() { cmake --build build/release -j "$jobs" --target unit_tests && ctest --test-dir build/release --output-on-failure -R faults_; }

symbols() { "$python" abi/generate.py symbols build/toolkit/lib64 --check; }

pytests() { "$anycann" run "$python" -m pytest -q --maxfail=20 -n "$jobs" "$@"; }

# With new memory full of large numbers and NaN, so that what reads more than it wrote fails; the lowest level too, whose loops
# are laid out otherwise.
conformance() { ANYCANN_POISON=1 MALLOC_PERTURB_=1 "$anycann" run --isa "$1" "$python" -m pytest -q --maxfail=20 -n "$jobs" tests/conformance; }
best_level() { /lib64/ld-linux-x86-64.so.2 --help | sed -n 's/^ *x86-64-\(v[234]\) (supported.*/\1/p' | head -1; }

only=${1:-}

stage includes "$python" tools/check/includes.py
stage pages "$python" tools/check/pages.py
stage units ctest --test-dir build/release --output-on-failure --timeout 600 -E faults_
stage symbols symbols
stage coverage "$python" tools/docs/coverage.py build/toolkit --check
stage clients pytests tests/clients
stage conformance conformance "$(best_level)"
stage conformance_v2 conformance v2
stage torch pytests tests/torch_npu
stage models pytests tests/models
stage llm "$anycann" run "$python" tests/llm/run.py --quick
stage llama "$python" tests/llama/llama.py quick --jobs "$jobs"
stage faults pytests tests/faults
stage allocation allocation
stage sweep "$anycann" run "$python" tests/sweep/sweep.py --all --quick --quiet --jobs "$jobs"
export ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1 UBSAN_OPTIONS=print_stacktrace=1
stage asan unit asan
stage fuzz fuzz
stage tsan unit tsan

[ $failed -eq 0 ] || printf 'failed: %s\n' "${failures[*]}"
printf '%d passed, %d failed\n' "$passed" "$failed"
[ $failed -eq 0 ]
