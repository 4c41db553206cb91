"""llama.cpp's own test-backend-ops on CANN0: every case that the backend accepts, against its CPU backend; and its `perf` mode."""

from __future__ import annotations

import collections
import concurrent.futures
import csv
import dataclasses
import re
import subprocess
import sys

from common import ANYCANN, BUILD, program, run, sort_failures

# Cases that run in processes of their own, by this part of their parameters. The backend keeps sines and cosines from one case to
# the next, and neither makes them again when only a scale changes nor grows their memory when only the number of rotated dimensions
# grows; and it ends the process at types that it can't concatenate.
APART = {"ROPE": r"^.*$", "RMS_NORM_MUL_ROPE": r"^.*$", "CONCAT": r"^type=\w+"}
CASE = re.compile(r"^(?:\[[^\]]*\] [^(]*(?:\([^)]*\))?\s+)?\s*(?P<op>[A-Z0-9_]+)\((?P<params>.*)\): (?P<verdict>OK|FAIL|not supported.*)$")


@dataclasses.dataclass
class Group:
    """Cases that one process runs."""
    op: str
    part: str = ""
    pattern: str = ""  # of the parameters: finds those with `part`
    cases: int = 0
    accepted: bool = False
    output: str = ""
    code: int = 0

    def run(self):
        only = ["-p", self.pattern] if self.pattern else []
        done = subprocess.run([ANYCANN, "run", BUILD / "bin/test-backend-ops", "test", "-b", "CANN0", "-o", self.op, *only],
                              capture_output=True, text=True, errors="replace")
        self.output, self.code = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout) + done.stderr, done.returncode
        return self


def groups(only):
    """From what the program lists: a group for each operator, or for each part of it that has to run apart."""
    listed = run(ANYCANN, "run", BUILD / "bin/test-backend-ops", "support", "-b", "CANN0", "--output", "csv", capture_output=True, text=True)
    found = {}
    rows = csv.reader(line for line in listed.stdout.splitlines() if line.startswith('"CANN0"'))
    for _, op, params, _, supported, *_ in rows:
        if not re.search(only, op):
            continue
        part = re.search(APART[op], params).group() if op in APART else ""
        pattern = "^" + re.sub(r"([\[\].*+?()])", r"\\\1", part) + ("$" if part == params else "\\b") if part else ""
        group = found.setdefault((op, part), Group(op, part, pattern))
        group.cases += 1
        group.accepted |= supported == "1"
    return [g for g in found.values() if g.accepted]


def ops(only, jobs):
    todo = groups(only)
    print(f"{len({g.op for g in todo})} operators, {sum(g.cases for g in todo)} cases, accepted or not, {len(todo)} processes", flush=True)
    passed, failed = collections.Counter(), {}
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for done, group in enumerate(pool.map(Group.run, todo), 1):
            seen = 0
            for line in group.output.splitlines():
                case = CASE.match(line.strip())
                if case:
                    seen += 1
                    if case["verdict"] == "OK":
                        passed[group.op] += 1
                    elif case["verdict"] == "FAIL":
                        failed[f"{case['op']}({case['params']})"] = line.strip()
            if seen < group.cases:
                failed[f"{group.op}({group.part}: the process ended)"] = (
                    f"{group.op}({group.part}): {seen} of {group.cases} cases ran, exit code {group.code}:\n{group.output[-1500:]}")
            if sys.stdout.isatty():
                print(f"\r{done}/{len(todo)} {group.op}: {passed[group.op]} passed, {len(failed)} failures so far\x1b[K",
                      end="" if done < len(todo) else "\n", flush=True)
    problems, known = sort_failures(failed, only)
    for problem in problems:
        print(problem)
    print(f"llama.cpp's operators: {sum(passed.values())} cases passed, {known} failed by llama.cpp itself, {len(problems)} problems")
    return 1 if problems else 0


def perf(only):
    """test-backend-ops' own timing of the cases of one operator on CANN0, as it prints it."""
    done = program("test-backend-ops", "perf", "-b", "CANN0", "-o", only)
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", done.stdout).splitlines() if "us/run" in line]
    print("\n".join(lines))
    return 0 if lines else 1
