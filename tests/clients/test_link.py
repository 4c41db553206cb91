"""The names that real clients bind are there, in the right library, and the client libraries themselves load.

Proves: every symbol of abi/link/*.txt that a client binds at load, and every required name of its dlsym list, is exported
by the shared object that the list names; each real client library in .venv loads with RTLD_NOW against ours; what each
library exports is exactly its reviewed list abi/NAME.symbols; none of our libraries exports anything else.
"""

import os
import pathlib
import subprocess
import sys

import pytest

import doors
import symbols

ROOT = pathlib.Path(__file__).resolve().parents[2]
ALL = doors.Doors()
SITE = next((ROOT / ".venv").glob("lib/python3*/site-packages"), pathlib.Path("/nonexistent"))
TORCHAIR = "torch_npu/dynamo/torchair/core"

# Objects of client wheels that link against ours, in an order in which each finds its companions.
CLIENTS = {
    "torch_npu": ["torch_npu/lib/libtorch_npu.so", "torch_npu/lib/libnpu_profiler.so", "torch_npu/lib/libtensorpipe.so",
                  "torch_npu/_C.cpython-311-x86_64-linux-gnu.so", "torch_npu/lib/libop_plugin_atb.so"],
    "torch_npu.torchair": [f"{TORCHAIR}/_torchair.so", f"{TORCHAIR}/_npu_graph_executor.so", f"{TORCHAIR}/_npu_utils.so",
                           f"{TORCHAIR}/_abi_compat_ge_apis.so"],
}


@pytest.fixture(scope="module")
def exports(toolkit):
    return {name: set(symbols.exported(toolkit / f"lib64/lib{name}.so")) for name in ALL.libraries}


@pytest.mark.parametrize("library", ALL.libraries)
def test_required_names_are_exported(exports, library):
    missing = {r.name for r in ALL.required if r.library == library} - exports[library]
    assert not missing, f"lib{library}.so lacks {len(missing)} names that clients require: {sorted(missing)[:20]}"


@pytest.mark.parametrize("library", ALL.libraries)
def test_exports_are_the_reviewed_list(exports, library):
    listed = set(symbols.listed(library))
    added, gone = sorted(exports[library] - listed), sorted(listed - exports[library])
    assert not added and not gone, (f"lib{library}.so differs from abi/{library}.symbols: {len(added)} more {added[:10]}, "
                                    f"{len(gone)} fewer {gone[:10]}; `make symbols` rewrites the lists for review")


def test_every_link_list_resolves_through_its_needed_libraries(toolkit):
    """As the dynamic linker does: a name must be in the closure of the libraries that the client NEEDs."""
    for client in doors.LINK_LISTS:
        names = {row[1] for row in doors.rows_of(client)}
        needed = set()
        for line in (ROOT / f"abi/link/{client}.txt").read_text().splitlines():
            if line.startswith("#NEEDED"):
                needed |= {word for word in line.split("\t")[2].split() if word.endswith(".so")}
        resolved = {name for library in closure(toolkit / "lib64", needed) for name in symbols.exported(library)}
        assert not names - resolved, f"{client}: {sorted(names - resolved)} not in the closure of {sorted(needed)}"


def closure(directory, names):
    seen, todo = set(), list(names)
    while todo:
        path = directory / todo.pop()
        if path in seen or not path.exists():
            continue
        seen.add(path)
        dynamic = subprocess.run(["readelf", "-d", path], check=True, capture_output=True, text=True).stdout
        todo += [line.split("[")[1].rstrip("]") for line in dynamic.splitlines() if "(NEEDED)" in line]
    return seen


@pytest.mark.parametrize("client", CLIENTS)
def test_client_objects_load(toolkit, client):
    paths = [SITE / path for path in CLIENTS[client]]
    if not any(path.exists() for path in paths):
        pytest.skip(f"no wheel of {client} in .venv")
    # torch first: the objects' other undefined names bind to its libraries and to Python.
    code = ("import ctypes, os, sys\n"
            "if 'torch' in sys.argv[1]:\n"
            "    import torch, torch_npu\n"
            "for path in sys.argv[2:]:\n"
            "    ctypes.CDLL(path, mode=os.RTLD_NOW | os.RTLD_GLOBAL)\n"
            "print('loaded')\n")
    environment = dict(os.environ, LD_LIBRARY_PATH=f"{toolkit}/lib64")
    run = subprocess.run([sys.executable, "-c", code, client, *map(str, paths)], env=environment, capture_output=True,
                         text=True, timeout=300)
    assert run.returncode == 0 and run.stdout.endswith("loaded\n"), run.stderr[-2000:]


def test_onnxruntime_provider_resolves(toolkit):
    """By ldd, which relocates without running constructors: the provider's need onnxruntime around them."""
    provider = SITE / "onnxruntime/capi/libonnxruntime_providers_cann.so"
    if not provider.exists():
        pytest.skip("no onnxruntime-cann in .venv")
    environment = dict(os.environ, LD_LIBRARY_PATH=f"{toolkit}/lib64:{provider.parent}")
    run = subprocess.run(["ldd", "-r", provider], env=environment, capture_output=True, text=True)
    lines = [line for line in (run.stdout + run.stderr).splitlines() if "undefined symbol" in line or "not found" in line]
    assert all("Provider_GetHost" in line for line in lines), lines  # that one is onnxruntime's own, bound at run time


def test_unimplemented_names_say_so(toolkit):
    """A required name without an implementation answers an error and a sentence with its name, never success."""
    code = ("import ctypes, os\n"
            f"d = '{toolkit}/lib64/'\n"
            "hccl, cl = ctypes.CDLL(d + 'libhccl.so'), ctypes.CDLL(d + 'libascendcl.so')\n"
            "engine = ctypes.CDLL('libanycann.so')\n"
            "take = engine._ZN7anycann13TakeLastErrorEv\n"
            "take.restype = ctypes.c_char_p\n"
            "assert hccl.HcclCommResume(None) == 5, 'HCCL_E_NOT_SUPPORT'\n"
            "message = take()\n"
            "assert b'HcclCommResume is not implemented in AnyCANN' in message, message\n"
            "assert take() is None\n")
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
