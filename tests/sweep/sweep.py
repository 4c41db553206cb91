#!/usr/bin/env python3
"""Sweeps PyTorch's operator database over the `npu` device of unmodified torch_npu, against the CPU device.

    LD_LIBRARY_PATH=build/dev/toolkit/lib64 .venv/bin/python tests/sweep/sweep.py [--dtype float32] [--backward] [--legacy]
        [--jobs 2] [--only REGEX] [--json FILE]

Each entry is native (everything ran on the device), fallback (torch_npu ran some of it on the CPU), wrong, or error. Entries
whose CPU results depend on the seed are random: only shapes and types are compared, and they don't count in the population.
What torch_npu itself decides otherwise than PyTorch's CPU device, before anything reaches AnyCANN, stands in
expected_failures.tsv with its reason and counts as "torch_npu". Exits with 1 for any other wrong result or error, and for a
stale expectation.
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
from torch.testing._internal.common_methods_invocations import op_db
dtype, backward = getattr(torch, sys.argv[1]), sys.argv[2] == "backward"
rows = []
for i, op in enumerate(op_db):
    types = op.supported_backward_dtypes("cpu") if backward else op.supported_dtypes("cpu")
    if dtype in types and (not backward or op.supports_autograd):
        rows.append([i, op.name + ("." + op.variant_test_name if op.variant_test_name else "")])
print("ENTRIES" + json.dumps(rows))
"""


class Worker:
    """A process that runs one entry after another; an error, a crash or a hang costs one entry, and a new process (after an
    error torch_npu's queue is not usable any more)."""

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
        if self.process is None:
            self.start()
        blank = {"dispatched": [], "warned": [], "warnings": [], "samples": 0, "refused": 0, "random": False, "status": "error"}
        self.process.stdin.write(f"{index}\n".encode())
        line = self.read(seconds)
        if line:
            answer = json.loads(line)
            if answer["status"] == "error":
                self.stop()
            return answer
        if line is None:
            detail = f"no answer in {seconds} s"
        else:
            detail = f"the process ended with {self.process.wait()}"
        self.stop()
        return {**blank, "detail": detail}


def list_entries(dtype, direction):
    run = subprocess.run([sys.executable, "-c", LIST_ENTRIES, dtype, direction], capture_output=True, text=True,
                         env={**os.environ, "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"})
    for line in run.stdout.splitlines():
        if line.startswith("ENTRIES"):
            return json.loads(line.removeprefix("ENTRIES"))
    raise SystemExit(f"can't read PyTorch's operator database:\n{run.stderr[-2000:]}")


def sweep(entries, arguments):
    """entry name -> answer of a worker"""
    todo, results = queue.Queue(), {}
    for entry in entries:
        todo.put(entry)
    direction = "backward" if arguments.backward else "forward"

    def work(number):
        worker = Worker([arguments.dtype, direction, str(arguments.samples), *(["legacy"] if arguments.legacy else [])],
                        arguments.log and f"{arguments.log}.{number}")
        while True:
            try:
                index, name = todo.get_nowait()
            except queue.Empty:
                break
            results[name] = worker.run(index, arguments.limit)
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


def read_expected(dtype, direction):
    with open(HERE / "expected_failures.tsv", newline="") as f:
        return {row["entry"]: row["reason"] for row in csv.DictReader(f, delimiter="\t")
                if row["dtype"] == dtype and row["direction"] == direction}


def judge(results, expected):
    problems = []
    for name, answer in sorted(results.items()):
        failed = answer["status"] in ("wrong", "error")
        if failed and name in expected:
            answer["status"] = "torch_npu"
        elif failed:
            problems.append(f"{answer['status']}: {name}: {answer['detail'].strip()[:600]}\n    sample: {answer.get('sample', '')}")
        if not failed and name in expected:
            problems.append(f"stale: {name} is {answer['status']} now: remove it from expected_failures.tsv ({expected[name]})")
    return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--backward", action="store_true", help="compare gradients instead of results")
    parser.add_argument("--legacy", action="store_true", help="through the legacy operators (aclop): torch_npu with jit compile")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--only", default="", help="entries whose name this regular expression finds")
    parser.add_argument("--samples", type=int, default=12, help="samples of an entry at most")
    parser.add_argument("--limit", type=float, default=90, help="seconds for one entry")
    parser.add_argument("--json", help="write everything here")
    parser.add_argument("--log", help="standard error of worker N goes to LOG.N")
    parser.add_argument("--quiet", action="store_true")
    arguments = parser.parse_args()

    direction = "backward" if arguments.backward else "forward"
    entries = [e for e in list_entries(arguments.dtype, direction) if re.search(arguments.only, e[1])]
    results = sweep(entries, arguments)
    fallbacks = classify(results)
    expected = read_expected(arguments.dtype, f"legacy {direction}" if arguments.legacy else direction)
    problems = judge(results, {k: v for k, v in expected.items() if k in results})
    population = {n: a for n, a in results.items() if not a["random"]}
    counts = collections.Counter(a["status"] for a in population.values())
    summary = {"dtype": arguments.dtype, "direction": direction, "entries": len(results), "random": len(results) - len(population),
               "population": len(population), **{s: counts[s] for s in ("native", "fallback", "wrong", "error", "torch_npu", "skipped")}}
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(
            {"summary": summary, "fallbacks": sorted(fallbacks), "entries": results}, indent=1))
    for problem in problems:
        print(problem)
    print("sweep: " + ", ".join(f"{k} {v}" for k, v in summary.items()))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
