#!/usr/bin/env python3
"""Sweeps PyTorch's own databases over the `npu` device of unmodified torch_npu, against the CPU device.

    build/toolkit/bin/anycann run .venv/bin/python tests/sweep/sweep.py [--suite forward] [--dtype float32] [--jobs 2] [--only REGEX]
    ... tests/sweep/sweep.py --all     every suite and type

Suites: forward and backward (operators), legacy and legacy_backward (the same through the operators of the legacy interface,
which torch_npu takes with jit compile), errors (calls that the CPU refuses), modules, optimizers. Each entry is native (everything ran on the device), fallback (torch_npu ran some of it on the CPU), wrong, or error. Entries whose CPU results
depend on the seed are random: only shapes and types are compared, and they don't count in the population. What torch_npu
itself decides otherwise than PyTorch's CPU device, before anything reaches AnyCANN, stands in expected_failures.tsv with its
reason and counts as "torch_npu"; what AnyCANN does not have yet stands there too, with a reason that says so, and counts as "open". Exits with 1 for any other wrong result or error, and for a stale expectation.
"""

from __future__ import annotations

import argparse
import collections
import csv
import json
import os
import pathlib
import queue
import re
import select
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
LIST_ENTRIES = """
import sys, json, warnings
warnings.simplefilter("ignore")
import torch
from suites import SUITES
print("ENTRIES" + json.dumps(list(SUITES[sys.argv[1]][0](getattr(torch, sys.argv[2])))))
"""
# Everything that has to be right. Backward: at float32; optimisers and wrong calls: of float32 tensors mostly.
ALL = [("forward", d) for d in ("float32", "float16", "bfloat16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool",
                                "complex64")] + [(s, "float32") for s in ("backward", "legacy", "legacy_backward", "errors", "modules", "optimizers")]


HANG_LIMIT = 15  # seconds


class Worker:
    """A process that runs one entry after another; an error, a crash or a hang costs one entry, and a new process (where
    torch_npu's queue is not usable any more)."""

    def __init__(self, arguments, log):
        self.arguments, self.process = arguments, None
        self.log = open(log, "ab+") if log else tempfile.TemporaryFile("ab+")

    def start(self):
        self.process = subprocess.Popen([sys.executable, str(HERE / "worker.py"), *self.arguments], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=self.log, bufsize=0)
        if self.read(300) != b"ready\n":
            raise RuntimeError("the sweep's worker does not start: see its standard error (--log FILE)")

    def read(self, seconds):
        """One line, b"" at the end of the process, None after the time limit."""
        line, deadline = b"", time.monotonic() + seconds
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                return None
            piece = os.read(self.process.stdout.fileno(), 1 << 16)
            if not piece:
                return b""
            line += piece
        return line

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def run(self, index, seconds):
        """The answer to an entry, put together from as many processes as it takes."""
        answer = self.ask(index, 0, seconds)
        while "next" in answer:
            self.stop()
            more = self.ask(index, answer.pop("next"), seconds)
            for key in ("dispatched", "warned", "warnings"):
                more[key] = sorted({*answer[key], *more[key]})
            answer = {**more, "samples": answer["samples"] + more["samples"], "refused": answer["refused"] + more["refused"]}
        return answer

    def ask(self, index, first, seconds):
        if self.process is None:
            self.start()
        blank = {"dispatched": [], "warned": [], "warnings": [], "samples": 0, "refused": 0, "random": False, "status": "error"}
        self.process.stdin.write(f"{index} {first}\n".encode())
        line = self.read(seconds)
        if line:
            answer = json.loads(line)
            if not answer.get("usable", True):
                self.stop()
            return answer
        if line is None:
            detail = f"no answer in {seconds} s"
        else:
            detail = f"the process ended with {self.process.wait()}"
        self.stop()
        return {**blank, "detail": detail}


def list_entries(suite, dtype):
    run = subprocess.run([sys.executable, "-c", LIST_ENTRIES, suite, dtype], capture_output=True, text=True,
                         env={**os.environ, "TORCH_DEVICE_BACKEND_AUTOLOAD": "0", "PYTHONPATH": str(HERE)})
    for line in run.stdout.splitlines():
        if line.startswith("ENTRIES"):
            return json.loads(line.removeprefix("ENTRIES"))
    raise SystemExit(f"can't read PyTorch's databases:\n{run.stderr[-2000:]}")


def run_entries(entries, suite, dtype, samples, arguments):
    """entry name -> answer of a worker"""
    todo, results = queue.Queue(), {}
    # What is known to hang is given less time: whether it still does shows as well.
    hangs = {name for name, reason in read_expected(suite, dtype).items() if "never returns" in reason}
    for entry in entries:
        todo.put(entry)

    def work(number):
        worker = Worker([suite, dtype, str(samples)], arguments.log and f"{arguments.log}.{number}")
        while True:
            try:
                index, name = todo.get_nowait()
            except queue.Empty:
                break
            results[name] = worker.run(index, min(arguments.limit, HANG_LIMIT) if name in hangs else arguments.limit)
            if not arguments.quiet:
                status = results[name]["status"]
                print(f"{len(results)}/{len(entries)} {name} {status} {results[name]['detail'][:160].splitlines() or ''}",
                      flush=True)
        worker.stop()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(arguments.jobs)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if len(results) != len(entries):
        raise SystemExit(f"only {len(results)} of {len(entries)} entries were run")
    return results


def classify(results):
    """Native entries that dispatched an operator which ever ran on the CPU, in any process, become fallbacks."""
    fallbacks = set()
    for answer in results.values():
        fallbacks.update(answer["warned"])
        for warning in answer["warnings"]:
            fallbacks.update(re.findall(r"aten::[\w.]+", warning))
    for answer in results.values():
        cause = sorted(fallbacks.intersection(answer["dispatched"]))
        if cause:
            answer["fallback"] = cause
            if answer["status"] == "native":
                answer["status"] = "fallback"
        if answer["status"] in ("native", "fallback") and not answer["samples"]:
            answer["status"] = "skipped"  # the CPU refused every sample
    return fallbacks


def read_expected(suite, dtype):
    with open(HERE / "expected_failures.tsv", newline="") as f:
        return {row["entry"]: row["reason"] for row in csv.DictReader(f, delimiter="\t")
                if dtype in row["dtypes"].split(",") and suite in row["suite"].split(",")}


def judge(results, expected, complete):
    """What is wrong, by name. `complete`: all samples were tried, so that an expected failure which didn't show is stale."""
    problems = []
    for name, answer in sorted(results.items()):
        failed = answer["status"] in ("wrong", "error")
        if failed and name in expected:
            answer["status"] = "open" if expected[name].startswith("AnyCANN:") else "torch_npu"
        elif failed:
            problems.append(f"{answer['status']}: {name}: {answer['detail'].strip()[:600]}\n    sample: {answer.get('sample', '')}")
        if not failed and name in expected and complete:
            problems.append(f"stale: {name} is {answer['status']} now: remove it from expected_failures.tsv ({expected[name]})")
    return problems


def sweep(suite, dtype, arguments):
    """One suite at one type: what is to be told, and the number of problems."""
    entries = [e for e in list_entries(suite, dtype) if re.search(arguments.only, e[1])]
    few = arguments.quick and (suite, dtype) != ("forward", "float32")
    results = run_entries(entries, suite, dtype, 2 if few else arguments.samples, arguments)
    fallbacks = classify(results)
    problems = judge(results, {k: v for k, v in read_expected(suite, dtype).items() if k in results}, not few)
    population = {n: a for n, a in results.items() if not a["random"]}
    counts = collections.Counter(a["status"] for a in population.values())
    summary = {"suite": suite, "dtype": dtype, "entries": len(results), "random": len(results) - len(population),
               "population": len(population), **{s: counts[s] for s in ("native", "fallback", "wrong", "error", "open", "torch_npu", "skipped")}}
    if arguments.json:
        folder = pathlib.Path(arguments.json)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{suite}_{dtype}.json").write_text(json.dumps(
            {"summary": summary, "fallbacks": sorted(fallbacks), "entries": results}, indent=1))
    for problem in problems:
        print(problem)
    print("sweep: " + ", ".join(f"{k} {v}" for k, v in summary.items()), flush=True)
    return len(problems)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", default="forward", choices=["forward", "backward", "legacy", "legacy_backward", "errors", "modules", "optimizers"])
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--all", action="store_true", help="every suite, and forward at every type")
    parser.add_argument("--quick", action="store_true", help="two samples of an entry, except of forward at float32")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--only", default="", help="entries whose name this regular expression finds")
    parser.add_argument("--samples", type=int, default=12, help="samples of an entry at most")
    parser.add_argument("--limit", type=float, default=90, help="seconds for one entry")
    parser.add_argument("--json", help="write everything into this folder, a file for each suite and type")
    parser.add_argument("--log", help="standard error of worker N goes to LOG.N")
    parser.add_argument("--quiet", action="store_true")
    arguments = parser.parse_args()
    todo = ALL if arguments.all else [(arguments.suite, arguments.dtype)]
    problems = [sweep(suite, dtype, arguments) for suite, dtype in todo]
    return 1 if any(problems) else 0


if __name__ == "__main__":
    sys.exit(main())
