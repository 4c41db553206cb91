"""Where llama.cpp lies and how its programs are built and run; what every part of `make llama` shares."""

from __future__ import annotations

import collections
import csv
import os
import pathlib
import pydoc_data.topics
import re
import subprocess
import sys
import tarfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TOOLKIT = pathlib.Path(os.environ.get("ANYCANN_TOOLKIT", ROOT / "build/toolkit"))
ANYCANN = TOOLKIT / "bin/anycann"
OUT = ROOT / "build/llama"
RELEASE = "0.3.36"  # of llama-cpp-python
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "anycann"
SOURCE = CACHE / f"llama_cpp_python-{RELEASE}" / "vendor/llama.cpp"
BUILD = CACHE / f"llama-{RELEASE}-build"
# The same with the backend's option USE_ACL_GRAPH: it records what a token needs once and replays it.
GRAPH_BUILD = CACHE / f"llama-{RELEASE}-graph-build"
TARGETS = ["test-backend-ops", "test-llama-archs", "llama-bench", "llama-completion", "llama-perplexity", "llama-embedding", "llama-server"]
GRAPH_TARGETS = ["test-backend-ops", "llama-bench", "llama-completion", "llama-perplexity"]
# Options of llama.cpp's programs. `none` leaves llama.cpp's own CPU backend.
DEVICES = {"npu": ["-dev", "CANN0", "-ngl", "99"], "cpu": ["-dev", "none", "-ngl", "0"], "two": ["-dev", "CANN0,CANN1", "-ngl", "99", "-sm", "layer"]}


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


def build(jobs, graphs=True):
    """Both builds, or the plain one; some minutes the first time, nothing after that. Under `anycann run` the backend's CMake finds the
    SoC by itself: it asks npu-smi."""
    fetch()
    for folder, graph, targets in ((BUILD, "OFF", TARGETS), (GRAPH_BUILD, "ON", GRAPH_TARGETS))[: 2 if graphs else 1]:
        if not (folder / "bin" / targets[-1]).exists():
            print(f"building llama.cpp's CANN backend in {folder} (USE_ACL_GRAPH={graph}): some minutes", flush=True)
        run(ANYCANN, "run", "cmake", "-G", "Ninja", "-S", SOURCE, "-B", folder, "-DGGML_CANN=ON", f"-DUSE_ACL_GRAPH={graph}",
            f"-DCANN_INSTALL_DIR={TOOLKIT}", "-DLLAMA_BUILD_TESTS=ON", "-DLLAMA_CURL=OFF", "-DCMAKE_BUILD_TYPE=Release",
            "-DCMAKE_C_COMPILER_LAUNCHER=ccache", "-DCMAKE_CXX_COMPILER_LAUNCHER=ccache", stdout=subprocess.DEVNULL)
        run("cmake", "--build", folder, "-j", jobs, "--target", *targets, stdout=subprocess.DEVNULL)


def program(name, *arguments, device=None, build=BUILD, devices=1, environment=None, **options):
    """Runs one of llama.cpp's programs under `anycann run`; raises SystemExit with its last words if it fails."""
    command = [ANYCANN, "run", *(["--devices", devices] if devices > 1 else []), build / "bin" / name, *arguments,
               *(DEVICES[device] if device else [])]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, errors="replace", env={**os.environ, **(environment or {})},
                          **options)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(str(c) for c in command)}: exit code {done.returncode}\n{(done.stdout + done.stderr)[-2000:]}")
    return done


def sort_failures(failed, only, kind=""):
    """Failures by case, (problems, how many are llama.cpp's own): expected_failures.tsv has a regular expression and a reason for those.
    A reason without a failure is a problem too, if its case begins with `kind` and `only` finds it."""
    with open(HERE / "expected_failures.tsv", newline="") as f:
        expected = list(csv.DictReader(f, delimiter="\t", quoting=csv.QUOTE_NONE))
    problems, known = [], collections.Counter()
    for case, line in sorted(failed.items()):
        reason = next((row for row in expected if re.search(row["case"], case)), None)
        if reason is None:
            problems.append(f"failed: {case}: {line}")
        else:
            known[reason["case"]] += 1
    for row in expected:
        name = row["case"].lstrip("^")
        mine = name.startswith("arch ") == (kind == "arch ")
        if mine and not known[row["case"]] and re.search(only, name.removeprefix("arch ").split("\\(")[0].rstrip("$")):
            problems.append(f"stale: nothing fails that matches {row['case']} ({row['reason']})")
    return problems, sum(known.values())


def model(shape, kind, exact=False):
    """The file of random weights, made when it isn't there; exact: the same numbers as float32."""
    path = OUT / f"{shape}-{kind}{'-exact' if exact else ''}.gguf"
    if not path.exists():
        OUT.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        run(sys.executable, HERE / "make_gguf.py", unfinished, "--shape", shape, "--type", kind, *(["--exact"] if exact else []))
        unfinished.rename(path)
    return path


def topics():
    """Real English that every Python has: name -> text of a page of its reference."""
    return {name: text for name, text in pydoc_data.topics.topics.items() if len(text) > 400}
