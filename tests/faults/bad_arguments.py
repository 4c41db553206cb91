"""The cases of test_bad_arguments.py, in a process of their own. Prints the operator that it is at, then the failures as JSON."""

from __future__ import annotations

import ctypes
import json
import os
import pathlib
import random
import sys

os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "conformance"))
import torch  # noqa: E402

import aclnn  # noqa: E402

NULL, INVALID = 161001, 161002
RANDOM_CASES = 60  # per operator

_keep = []  # memory of tensors must outlive the calls


def nullable(op: str) -> set[str]:
    names = set()
    with open(aclnn.ROOT / "abi/nullable.tsv") as f:
        for line in f:
            fields = line.rstrip("\n").split("\t")
            if len(fields) > 1 and fields[0] in (f"aclnn{op}", op):
                names.add(fields[1])
    return names


def make(ctype: str, tensor):
    """A live argument of this type."""
    values = {
        "aclTensor*": tensor, "aclScalar*": 1.0, "aclTensorList*": [tensor], "aclScalarList*": [1.0], "aclIntArray*": [1],
        "aclFloatArray*": [1.0], "aclBoolArray*": [True], "char*": "BSND",
    }
    return aclnn.pack(ctype, values.get(ctype, 0 if ctype in aclnn.PLAIN else torch.float32 if ctype == "aclDataType" else 0))[0]


def phase_one(op: str, arguments):
    name = op if op.startswith("acl") else f"aclnn{op}"
    size, executor = ctypes.c_uint64(), ctypes.c_void_p()
    f = aclnn._function("opapi", f"{name}GetWorkspaceSize", ctypes.c_int32)
    code = f(*arguments, ctypes.byref(size), ctypes.byref(executor))
    return code, executor


def check(failures, op, parameter, what, code, expected):
    message = aclnn.last_error() or ""
    if code not in expected:
        failures.append(f"aclnn{op}: {parameter} {what}: code {code}, expected one of {expected} ({message})")
    elif parameter not in message or op.removeprefix("Inplace") not in message:
        failures.append(f"aclnn{op}: {parameter} {what}: the message does not name operator and argument: {message}")


def bad_handles(op: str, failures: list[str]) -> None:
    t = torch.zeros(2, 3)
    parameters, may_be_null = aclnn.prototypes()[op], nullable(op)
    live = [make(p[0], t) for p in parameters]
    foreign = {"aclTensor*": "aclScalar*"}
    buffer = ctypes.create_string_buffer(4096)
    for i, (ctype, name, _) in enumerate(parameters):
        if ctype not in aclnn.HANDLES:
            continue
        for what, value, expected in (
            ("null", ctypes.c_void_p(None), (NULL,)),
            ("freed", None, (INVALID,)),
            ("of another kind", make(foreign.get(ctype, "aclTensor*"), t), (INVALID,)),
            ("a random address", ctypes.c_void_p(0x1238), (INVALID,)),
            ("a client's buffer", ctypes.c_void_p(ctypes.addressof(buffer)), (INVALID,)),
        ):
            if what == "null" and ("Optional" in name or name in may_be_null):
                continue
            if what == "freed" and ctype != "aclTensor*":
                continue
            if what == "freed":  # destroyed just now: the next handle that is made may get its place
                value = ctypes.c_void_p(aclnn.tensor(t))
                aclnn._function("nnopbase", "aclDestroyTensor", ctypes.c_int32)(value)
            arguments = list(live)
            arguments[i] = value
            code, _ = phase_one(op, arguments)
            check(failures, op, name, what, code, expected)
    name = op if op.startswith("acl") else f"aclnn{op}"
    f = aclnn._function("opapi", f"{name}GetWorkspaceSize", ctypes.c_int32)
    check(failures, op, "workspaceSize", "null", f(*live, None, ctypes.byref(ctypes.c_void_p())), (NULL,))
    check(failures, op, "executor", "null", f(*live, ctypes.byref(ctypes.c_uint64()), None), (NULL,))


def random_tensor(r: random.Random):
    dtype = r.choice(list(aclnn.DTYPES))
    shape = [r.choice((0, 1, 1, 2, 3, 4, 5, 8)) for _ in range(r.choice((0, 1, 2, 2, 3, 4, 4, 5, 8)))]
    t = torch.zeros([max(1, s) * 2 for s in shape], dtype=dtype)
    if dtype.is_floating_point or dtype.is_complex:
        t.fill_(0.5)
    elif dtype != torch.bool:
        t.fill_(1)
    return t[tuple(slice(0, s) for s in shape)] if r.random() < 0.5 else torch.zeros(shape, dtype=dtype)


def random_value(r: random.Random, ctype: str, same):
    t = same if r.random() < 0.6 else random_tensor(r)
    number = r.choice((0, 1, 1, 2, 3, -1, -2, 7, 1 << 31, -(1 << 40), 0.5, -1.5, True))
    integer = r.choice((0, 1, 1, 2, 3, -1, -2, 8, 100, 1 << 31, -(1 << 40), (1 << 63) - 1, -(1 << 63)))
    ints = [r.choice((0, 1, 1, 2, 3, -1, -2, 1 << 40)) for _ in range(r.choice((0, 1, 2, 2, 3, 4, 9)))]
    if ctype == "aclTensor*":
        _keep.append(t)
        return t
    if ctype == "aclTensorList*":
        ts = [same if r.random() < 0.7 else random_tensor(r) for _ in range(r.choice((0, 1, 2, 3)))]
        _keep.extend(ts)
        return ts
    if ctype in aclnn.PLAIN:
        if ctype in ("float", "double"):
            return float(number)
        if ctype == "bool":
            return bool(number)
        bits = 8 * ctypes.sizeof(aclnn.PLAIN[ctype])
        return max(-(1 << (bits - 1)), min((1 << (bits - 1)) - 1, integer))
    return {
        "aclScalar*": number, "aclScalarList*": [number] * r.choice((0, 1, 3)), "aclIntArray*": ints,
        "aclFloatArray*": [float(i % 7) for i in ints], "aclBoolArray*": [bool(i & 1) for i in ints],
        "char*": r.choice(("", "BSND", "none", "mean", "x" * 300)),
    }.get(ctype, r.choice(list(aclnn.DTYPES)) if ctype == "aclDataType" else integer & 0x7F)


def random_arguments(op: str, failures: list[str]) -> None:
    """Phase one must answer; where it accepts, the run must end, with or without an error, and write nothing outside."""
    r = random.Random(op)
    for case in range(RANDOM_CASES):
        same = random_tensor(r)
        _keep.append(same)
        values = [random_value(r, p[0], same) for p in aclnn.prototypes()[op]]
        try:
            aclnn.call(op, *values)
        except aclnn.Failed as e:
            if not e.message:
                failures.append(f"aclnn{op}, random case {case}: code {e.code} without a message")
        _keep.clear()


def main() -> int:
    mode, operators = sys.argv[1], sys.argv[2:]
    aclnn.last_error()
    failures: list[str] = []
    for op in operators:
        print(f"at aclnn{op}", flush=True)
        (bad_handles if mode == "handles" else random_arguments)(op, failures)
    print(json.dumps(failures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
