"""No bad handle ends the process: the documented code, and a sentence that names the operator and the parameter."""

import pathlib
import subprocess
import sys


def test_bad_handles_of_every_operator(toolkit):
    program = pathlib.Path(__file__).with_name("operator_doors.py")
    run = subprocess.run([sys.executable, program, toolkit / "lib64"], capture_output=True, text=True, timeout=600)
    lines = run.stdout.splitlines()
    failures = [line for line in lines if line.startswith("FAIL")]
    assert run.returncode == 0 and lines[-1] == "done", f"ended in {lines[-1:]}: {run.stderr[-1000:]}"
    assert not failures, f"{len(failures)} wrong answers, first: {failures[:5]}"
    assert len(lines) > 1, "no operator is implemented"
