#!/usr/bin/env bash
# at_level.sh LEVEL PROGRAM...: runs a program that was compiled for an x86-64 level (v2, v3, v4 or native). Where the machine
# hasn't that level it says so and exits with 77, which ctest shows as skipped.
set -euo pipefail
level=$1
shift
if [ "$level" != native ] && ! /lib64/ld-linux-x86-64.so.2 --help | grep -q "x86-64-$level (supported"; then
  echo "SKIPPED: ${1##*/} needs x86-64-$level, which this machine does not have"
  exit 77
fi
exec "$@"
