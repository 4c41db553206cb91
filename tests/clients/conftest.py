"""Where the toolkit under test is, and the contract's tables, for the tests of this folder."""

import os
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "abi"))


def toolkit_under_test():
    """ANYCANN_LIB64 (as tests/conformance uses it), else the release toolkit, else the developer's build."""
    if "ANYCANN_LIB64" in os.environ:
        return pathlib.Path(os.environ["ANYCANN_LIB64"]).resolve().parent
    for place in (ROOT / "build/toolkit", ROOT / "build/dev/toolkit"):
        if (place / "lib64/libanycann.so").exists():
            return place
    raise FileNotFoundError("no toolkit: build one with `make toolkit` or `make dev`, or set ANYCANN_LIB64")


@pytest.fixture(scope="session")
def toolkit():
    return toolkit_under_test()
