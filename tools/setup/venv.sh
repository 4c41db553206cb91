#!/usr/bin/env bash
# Makes .venv with the unmodified client wheels and what tests, benches and the demo use. About 6 GB.
set -euo pipefail
cd "$(dirname "$0")/../.."

python=${PYTHON3:-python3.11}
command -v "$python" > /dev/null || python=python3
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' ||
  { echo "Python 3.11 is needed (the torch-npu wheel for it); set PYTHON3=/path/to/python3.11" >&2; exit 1; }
[ -x .venv/bin/python ] || "$python" -m venv .venv
echo "installing the client wheels into .venv (torch is large: some minutes)"
.venv/bin/python -m pip install --quiet --disable-pip-version-check -r tools/setup/requirements.txt
touch .venv/.complete
