"""Bad arguments, generated from the table for every implemented operator: each is answered with a code and a sentence that
names the operator and the argument; nothing crashes. Cases run in child processes: a crash names the operator it was in.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "conformance"))
import aclnn  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
OPERATORS = [op for op in aclnn.prototypes() if aclnn.implemented(op)]
BATCH = 40


def batches():
    return [OPERATORS[i:i + BATCH] for i in range(0, len(OPERATORS), BATCH)]


def run(mode: str, operators: list[str]) -> None:
    p = subprocess.run([sys.executable, HERE / "bad_arguments.py", mode, *operators], capture_output=True, text=True, timeout=300)
    lines = p.stdout.splitlines()
    reached = lines[-1] if lines else "nothing"
    assert p.returncode == 0, f"exit {p.returncode}, last: {reached}\n{p.stderr[-2000:]}"
    failures = json.loads(reached)
    assert not failures, "\n".join(failures[:20])


def test_there_are_operators():
    assert len(OPERATORS) > 100


@pytest.mark.parametrize("operators", batches(), ids=lambda b: f"{b[0]}..{b[-1]}")
def test_bad_handles(operators):
    run("handles", operators)


@pytest.mark.parametrize("operators", batches(), ids=lambda b: f"{b[0]}..{b[-1]}")
def test_random_arguments(operators):
    run("random", operators)
