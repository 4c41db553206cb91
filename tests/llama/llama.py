#!/usr/bin/env python3
"""llama.cpp's CANN backend, unmodified, on AnyCANN: `make llama` calls this.

    python tests/llama/llama.py build     fetch the source distribution of llama-cpp-python from PyPI and build its llama.cpp
    python tests/llama/llama.py ops       llama.cpp's own test-backend-ops: every case that the backend accepts, against its CPU backend
    python tests/llama/llama.py bench     llama-bench on npu and on llama.cpp's CPU backend: the same files of random weights, the same threads

The build lies in ~/.cache/anycann (or $XDG_CACHE_HOME/anycann) and is made against build/toolkit's headers and libraries; a toolkit
that is built again is used without building llama.cpp again. What fails because of llama.cpp itself stands in
expected_failures.tsv with its reason; `ops` exits with 1 for any other failure, and for a stale reason.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import csv
import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
import tarfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
ANYCANN = ROOT / "build/toolkit/bin/anycann"
RELEASE = "0.3.36"  # of llama-cpp-python
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "anycann"
SOURCE = CACHE / f"llama_cpp_python-{RELEASE}" / "vendor/llama.cpp"
BUILD = CACHE / f"llama-{RELEASE}-build"
TARGETS = ["test-backend-ops", "llama-bench"]
# Cases that run in processes of their own, by this part of their parameters. The backend keeps sines and cosines from one case to
# the next, and neither makes them again when only a scale changes nor grows their memory when only the number of rotated dimensions
# grows; and it ends the process at types that it can't concatenate.
APART = {"ROPE": r"^.*$", "RMS_NORM_MUL_ROPE": r"^.*$", "CONCAT": r"^type=\w+"}
CASE = re.compile(r"^(?:\[[^\]]*\] [^(]*(?:\([^)]*\))?\s+)?\s*(?P<op>[A-Z0-9_]+)\((?P<params>.*)\): (?P<verdict>OK|FAIL|not supported.*)$")


def run(*command, **options):
    return subprocess.run([str(c) for c in command], check=True, **options)


def fetch():
    if SOURCE.exists():
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    print(f"fetching llama-cpp-python {RELEASE} into {CACHE}", flush=True)
    run(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", CACHE, f"llama-cpp-python=={RELEASE}")
    with tarfile.open(CACHE / f"llama_cpp_python-{RELEASE}.tar.gz") as archive:
        archive.extractall(CACHE, filter="data")


def build(jobs):
    fetch()
    launcher = ["-DCMAKE_C_COMPILER_LAUNCHER=ccache", "-DCMAKE_CXX_COMPILER_LAUNCHER=ccache"]
    # Under `anycann run` the backend's CMake finds the SoC by itself: it asks npu-smi.
    run(ANYCANN, "run", "cmake", "-G", "Ninja", "-S", SOURCE, "-B", BUILD, "-DGGML_CANN=ON", f"-DCANN_INSTALL_DIR={ROOT / 'build/toolkit'}",
        "-DLLAMA_BUILD_TESTS=ON", "-DLLAMA_CURL=OFF", "-DCMAKE_BUILD_TYPE=Release", *launcher, stdout=subprocess.DEVNULL)
    run("cmake", "--build", BUILD, "-j", jobs, "--target", *TARGETS)


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
    passed, failed, problems = collections.Counter(), {}, []
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
    with open(HERE / "expected_failures.tsv", newline="") as f:
        expected = list(csv.DictReader(f, delimiter="\t", quoting=csv.QUOTE_NONE))
    known = collections.Counter()
    for case, line in sorted(failed.items()):
        reason = next((row for row in expected if re.search(row["case"], case)), None)
        if reason is None:
            problems.append(f"failed: {line}")
        else:
            known[reason["case"]] += 1
    for row in expected:
        if not known[row["case"]] and re.search(only, row["case"].split("\\(")[0].lstrip("^")):
            problems.append(f"stale: nothing fails that matches {row['case']} ({row['reason']})")
    for problem in problems:
        print(problem)
    print(f"llama.cpp's operators: {sum(passed.values())} cases passed, {sum(known.values())} failed by llama.cpp itself, {len(problems)} problems")
    return 1 if problems else 0


def speeds(model, device, threads):
    """test -> tokens per second."""
    where = ["-dev", "CANN0", "-ngl", "99"] if device == "npu" else ["-dev", "none", "-ngl", "0"]
    done = run(ANYCANN, "run", BUILD / "bin/llama-bench", "-m", model, "-t", threads, "-r", "3", "-p", "128", "-n", "32", "-o", "json", *where,
               capture_output=True, text=True)
    return {f"pp{r['n_prompt']}" if r["n_prompt"] else f"tg{r['n_gen']}": r["avg_ts"] for r in json.loads(done.stdout)}


def bench(shape, threads):
    folder = ROOT / "build/llama"
    folder.mkdir(parents=True, exist_ok=True)
    print(f"llama-bench, {shape} shape, {threads} threads: tokens per second\n\n{'weights':8} {'test':6} {'npu':>9} {'cpu':>9} {'npu : cpu':>10}")
    results = []
    for kind in ("f16", "q8_0", "q4_0"):
        model = folder / f"{shape}-{kind}.gguf"
        if not model.exists():
            run(sys.executable, HERE / "make_gguf.py", model, "--shape", shape, "--type", kind)
        npu, cpu = (speeds(model, device, threads) for device in ("npu", "cpu"))
        for test in npu:
            results.append({"weights": kind, "test": test, "npu": npu[test], "cpu": cpu[test]})
            print(f"{kind:8} {test:6} {npu[test]:9.1f} {cpu[test]:9.1f} {npu[test] / cpu[test]:10.2f}", flush=True)
    (folder / "bench.json").write_text(json.dumps({"shape": shape, "threads": threads, "results": results}, indent=1))
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["build", "ops", "bench"])
    parser.add_argument("--shape", choices=["small", "tinyllama"], default="small", help="of the model that `bench` runs")
    parser.add_argument("--only", default="", help="operators whose name this regular expression finds")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    if not ANYCANN.exists():
        raise SystemExit(f"{ANYCANN} is not there: make toolkit")
    build(arguments.jobs)
    if arguments.what == "bench":
        return bench(arguments.shape, arguments.jobs)
    return ops(arguments.only, arguments.jobs) if arguments.what == "ops" else 0


if __name__ == "__main__":
    sys.exit(main())
