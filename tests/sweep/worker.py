"""One process of the sweep: reads "ENTRY FIRST_TRIAL" from standard input, one a line, and answers each with a line of JSON.

It runs the trials of an entry (suites.py) on the CPU device and on `npu`, and compares. torch_npu warns once per operator
and process when it runs something on the CPU, so the worker records the names that were dispatched while each entry ran, and
the names that ever warned; the parent puts them together. The warnings go to standard error, past Python's filters: the
worker reads its own standard error, which must be a file.
"""

from __future__ import annotations

import json
import os
import re
import sys
import traceback
import warnings

ANSWERS = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)  # whatever libraries print to standard output must not mix with the answers

import torch  # noqa: E402
import torch_npu  # noqa: E402, F401
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from comparison import compare, confirms, same, tensors  # noqa: E402
from suites import SUITES  # noqa: E402

FALLBACK = re.compile(r"fall back to (run on the )?CPU|fall back to run on the CPU|running on CPU", re.IGNORECASE)

caught: list[str] = []  # what this process wrote to standard error
WRITTEN = open("/proc/self/fd/2", "rb")
WRITTEN.seek(0, os.SEEK_END)


def new_warnings():
    text = WRITTEN.read().decode(errors="replace")
    if not text:
        return []
    caught.append(text)
    return [text] if FALLBACK.search(text) else []


class Names(TorchDispatchMode):
    """Records the operators that are dispatched, and those that warned of running on the CPU."""

    def __init__(self):
        super().__init__()
        self.dispatched: set[str] = set()
        self.warned: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func.name()) if hasattr(func, "name") else str(func)
        self.dispatched.add(name)
        new_warnings()
        result = func(*args, **(kwargs or {}))
        if new_warnings():
            self.warned.add(name)
        return result


def differs_by_seed(trial, expected):
    """Whether another run on the CPU, with another seed, gives something else."""
    seeded = torch.manual_seed
    with torch.random.fork_rng():
        seeded(18)
        torch.manual_seed = lambda _seed: seeded(99)
        try:
            other = trial.again()
        finally:
            torch.manual_seed = seeded
    return not all(map(same, tensors(expected), tensors(other)))


def attempt(run):
    """(result, None) or (None, exception)"""
    torch.manual_seed(17)
    try:
        result = run()
        torch.npu.synchronize()
        return result, None
    except Exception as e:  # noqa: BLE001
        return None, e


def run_trial(trial, names, answer):
    """None, or (status, detail)."""
    expected, refusal = attempt(trial.cpu)
    if trial.must_raise:
        if refusal is None:
            return None  # nothing to compare with
        answer["samples"] += 1
        with names:
            actual, error = attempt(trial.npu)
        if error is None:
            return "wrong", f"no error, but {type(refusal).__name__} on the CPU: {refusal}"
        return None if str(error).strip() else ("wrong", f"{type(error).__name__} without a message")
    if refusal is not None:  # what the CPU refuses says nothing about the device
        answer["refused"] += 1
        return None
    if not answer["random"] and not trial.metadata_only:
        answer["random"] = differs_by_seed(trial, expected)
    answer["samples"] += 1
    with names:
        actual, error = attempt(trial.npu)
    if error is not None:
        return "error", f"{type(error).__name__}: {error}"
    metadata_only = trial.metadata_only or answer["random"]
    expected, actual = trial.final(expected), trial.final(actual)
    difference = compare(expected, actual, metadata_only, trial.inputs)
    if difference and trial.wide and not metadata_only:
        exact, refusal = attempt(trial.wide)
        if refusal is None and confirms(trial.final(exact), expected, actual, trial.inputs):
            return None
    return difference and ("wrong", difference)


def queue_works():
    """torch_npu's queue is not usable any more after some errors, and says nothing of it."""
    try:
        return torch.ones(2).npu().add(1).cpu().tolist() == [2, 2]
    except Exception:  # noqa: BLE001
        return False


def sweep_entry(trials, first):
    """Trials from number `first` on; "next" in the answer: where a new process has to go on."""
    names = Names()
    answer = {"status": "native", "samples": 0, "refused": 0, "random": False, "detail": ""}
    for number, trial in enumerate(trials):
        if number < first:
            continue
        failure = run_trial(trial, names, answer)
        if failure:
            answer.update(status=failure[0], detail=failure[1], sample=trial.shown, usable=queue_works())
            break
        if trial.must_raise and not queue_works():
            answer["next"] = number + 1
            break
    answer["dispatched"], answer["warned"] = sorted(names.dispatched), sorted(names.warned)
    new_warnings()
    answer["warnings"] = sorted({line for text in caught for line in text.splitlines() if FALLBACK.search(line)})
    return answer


def main():
    suite, dtype, count = sys.argv[1], getattr(torch, sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    torch.npu.set_compile_mode(jit_compile=suite.startswith("legacy"))  # then operators go by name (aclop) instead of aclnn
    torch.ones(1).npu().add(1)
    print("ready", file=ANSWERS)
    for line in sys.stdin:
        try:
            index, first = map(int, line.split())
            answer = sweep_entry(SUITES[suite][1](index, dtype, count), first)
        except Exception:  # noqa: BLE001
            answer = {"status": "error", "detail": "the worker failed: " + traceback.format_exc()[-800:], "dispatched": [], "warned": [],
                      "warnings": [], "samples": 0, "refused": 0, "random": False}
        print(json.dumps(answer), file=ANSWERS)


if __name__ == "__main__":
    main()
