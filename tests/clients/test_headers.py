"""Every client header compiles alone, as C11 and as C++17, with all warnings as errors; together they agree.

Clients are compiled against these headers, some in C: each must bring what it needs, whatever is included before.
"""

import concurrent.futures
import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TORCH_NPU_HEADERS = [
    "acl/acl.h", "acl/acl_base.h", "acl/acl_mdl.h", "acl/acl_op.h", "acl/acl_op_compiler.h", "acl/acl_prof.h", "acl/acl_rt.h",
    "acl/error_codes/rt_error_codes.h", "acl/super_kernel.h", "aml/aml_fwk_detect.h", "dcmi_interface_api.h",
    "hccl/hccl.h", "hccl/hccl_types.h", "hccl/lcal_api.h", "mspti/mspti_activity.h", "mspti/mspti_callback.h",
    "mstx/ms_tools_ext.h", "profiling/prof_api.h", "profiling/prof_common.h"]
FLAGS = ["-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
LANGUAGES = {"c11": ["gcc", "-xc", "-std=c11"], "c++17": ["g++", "-xc++", "-std=c++17"]}


def compile_text(toolkit, language, text):
    command = [*LANGUAGES[language], *FLAGS, f"-I{toolkit}/include", "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True)


@pytest.fixture(scope="module")
def headers(toolkit):
    root = toolkit / "include"
    found = sorted(str(path.relative_to(root)) for path in root.rglob("*.h"))
    assert len(found) > 500, f"{root} holds only {len(found)} headers"
    return found


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_header_stands_alone(toolkit, headers, language):
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = pool.map(lambda header: compile_text(toolkit, language, f'#include "{header}"\n'), headers)
        failures = {header: run.stderr[:400] for header, run in zip(headers, runs) if run.returncode}
    assert not failures, f"{len(failures)} headers do not compile alone: {failures}"


@pytest.mark.parametrize("language", LANGUAGES)
def test_all_headers_together(toolkit, headers, language):
    run = compile_text(toolkit, language, "".join(f'#include "{header}"\n' for header in headers))
    assert run.returncode == 0, run.stderr[:2000]


def test_headers_without_the_toolkit_root(toolkit):
    """Samples compile with -I include/acl and include "acl.h"."""
    command = ["gcc", "-xc", "-std=c11", *FLAGS, f"-I{toolkit}/include/acl", "-"]
    run = subprocess.run(command, input='#include "acl.h"\nint main(void) { return ACL_SUCCESS; }\n', capture_output=True,
                         text=True)
    assert run.returncode == 0, run.stderr


def test_headers_that_clients_include(toolkit):
    """What llama.cpp's CANN backend includes compiles together; what torch_npu includes of the C interface exists."""
    text = (ROOT / "abi/link/ggml_cann.headers.txt").read_text()
    run = compile_text(toolkit, "c++17", text)
    assert run.returncode == 0, run.stderr[:2000]
    missing = [header for header in TORCH_NPU_HEADERS if not (toolkit / "include" / header).exists()]
    assert not missing, missing
