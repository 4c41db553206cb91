"""What a run as a whole says, over all of pytest-xdist's processes: which operators it called, and how exact they were.

A run of the whole folder fails when an implemented operator was never called without an error. Every run fails when an
error in ULP is above the committed bound (docs/accuracy.tsv).
"""

import json
import math
import os
import pathlib
import sys

import pytest

os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")  # the C interface alone: torch is the oracle here
sys.path.insert(0, os.path.dirname(__file__))

import torch  # noqa: E402

import accuracy  # noqa: E402
import aclnn  # noqa: E402
import faces  # noqa: E402

FOLDER = pathlib.Path(__file__).parent
ROOT = FOLDER.parents[1]
BOUNDS = ROOT / "docs/accuracy.tsv"

aclnn.observers.append(faces.watch)
if "PYTEST_XDIST_WORKER" in os.environ:  # the oracle's threads would only fight those of the other processes
    torch.set_num_threads(1)


def pytest_addoption(parser):
    parser.addoption("--ulp", metavar="FILE",
                     help="write the operators' worst errors to this file (JSON), not build/test/ulp.json, and check no bounds")


@pytest.fixture(autouse=True)
def alone():
    """A test has the same values whichever ran before in this process."""
    torch.manual_seed(0)
    aclnn.forget()


class Run:
    """What was called and measured, here and in the other processes of the run."""

    def __init__(self):
        self.called, self.worst, self.files, self.deselected = set(), {}, set(), 0

    def add(self, called, worst, files, deselected):
        self.called |= set(called)
        self.files |= set(files)
        self.deselected += deselected
        for op, dtype, error in worst:
            self.worst[op, dtype] = max(error, self.worst.get((op, dtype), 0.0))

    def whole(self) -> bool:
        return self.deselected == 0 and self.files == {p.name for p in FOLDER.glob("test_*.py")}


run = Run()


def pytest_deselected(items):
    run.deselected += len(items)


def pytest_collection_finish(session):
    # A file of which one test is asked for by its name isn't the whole file.
    if not any("::" in a for a in session.config.args):
        run.files |= {item.path.name for item in session.items if item.path.parent == FOLDER}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    if "conformance" in getattr(node, "workeroutput", {}):
        run.add(**node.workeroutput["conformance"])


def above_bounds():
    table, bounds = BOUNDS.relative_to(ROOT), accuracy.bounds(BOUNDS)
    for (op, dtype), error in sorted(run.worst.items()):
        if error > bounds.get((op, dtype), -1 if run.whole() else math.inf):
            yield f"aclnn{op} errs by {error:.3g} ULP in {dtype}; {table} allows {bounds.get((op, dtype), 'nothing')} (make accuracy)"
    if run.whole():
        for op, dtype in sorted(bounds.keys() - run.worst.keys()):
            yield f"aclnn{op} has a bound for {dtype} in {table}, but nothing measured it (make accuracy)"


def uncalled():
    if run.whole():
        for op in sorted(aclnn.implemented_operators() - run.called):
            yield f"aclnn{op} is implemented, but no test called it without an error"


problems: list[str] = []


def pytest_sessionfinish(session, exitstatus):
    mine = {"called": sorted(aclnn.called), "worst": [[*key, error] for key, error in accuracy.worst.items()],
            "files": sorted(run.files), "deselected": run.deselected}
    if hasattr(session.config, "workeroutput"):  # one of several processes: the first one judges
        session.config.workeroutput["conformance"] = mine
        return
    run.add(**mine | {"deselected": 0})
    if session.config.option.ulp or run.whole():
        file = pathlib.Path(session.config.option.ulp or ROOT / "build/test/ulp.json")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps([[*key, error] for key, error in sorted(run.worst.items())], indent=0))
    if exitstatus == pytest.ExitCode.OK:
        problems.extend([*uncalled(), *([] if session.config.option.ulp else above_bounds())])
        if problems:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter):
    for line in problems:
        terminalreporter.write_line(line, red=True)
