"""Includes point one way: libs -> {graph, ascendc, comm} -> {ops, runtime} -> base (docs/architecture.md).

Exits 1 and names each include that points back and each source that no rule covers.
"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
# room -> rooms that it may include (itself always)
ALLOWED = {
    "base": set(),
    "runtime": {"base"},
    "ops": {"base", "runtime"},
    "graph": {"base", "runtime", "ops"},
    "ascendc": {"base", "runtime", "ops"},
    "comm": {"base", "runtime", "ops"},
    "libs": {"base", "runtime", "ops", "graph", "ascendc", "comm"},
    "tools": {"base"},
    "bench": set(),
    "examples": set(),
    "tests": {"base", "runtime", "ops", "graph", "ascendc", "comm"},
}
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)


def main() -> int:
    listed = subprocess.run(["git", "ls-files", "*.cc", "*.h"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    wrong = []
    for name in listed.split():
        room = name.split("/")[0]
        if room not in ALLOWED:
            wrong.append(f"{name}: no rule covers the room {room}")
            continue
        for target in INCLUDE.findall((ROOT / name).read_text()):
            other = target.split("/")[0]
            if other in ALLOWED and other != room and (ROOT / target).exists() and other not in ALLOWED[room]:
                wrong.append(f"{name} includes {target}: {room} must not depend on {other}")
    print("\n".join(wrong) or f"includes: {len(listed.split())} files, all point one way")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
