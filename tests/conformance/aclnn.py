"""Calls aclnn operators through the C interface, from Python, on torch CPU tensors.

A torch CPU tensor is ordinary memory, and so is AnyCANN's device memory: a tensor handle over `tensor.data_ptr()` with the
tensor's own shape, strides and offset is a legal device tensor. The signatures come from abi/aclnn.tsv.

    import aclnn
    aclnn.call("Add", self, other, 1.0, out)          # tensors, numbers (become aclScalar), lists, None, strings
    aclnn.call("Sum", x, aclnn.ints([0, 1]), ...)     # sequences become the array type of the parameter

Raises aclnn.Failed(code, message) when a phase fails. After phase two the stream is synchronised.
"""

from __future__ import annotations

import csv
import ctypes
import functools
import os
import pathlib
import weakref

import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]

DTYPES = {
    torch.float32: 0, torch.float16: 1, torch.int8: 2, torch.int32: 3, torch.uint8: 4, torch.int16: 6, torch.uint16: 7,
    torch.uint32: 8, torch.int64: 9, torch.uint64: 10, torch.float64: 11, torch.bool: 12, torch.complex64: 16,
    torch.complex128: 17, torch.bfloat16: 27, torch.complex32: 33,
}
FORMATS = {3: 47, 4: 0, 5: 30}  # NCL, NCHW, NCDHW by rank, as torch_npu labels them; otherwise ND


class Failed(RuntimeError):
    def __init__(self, name: str, code: int, message: str):
        super().__init__(f"{name} returned {code}: {message}")
        self.code, self.message = code, message


class Scalar:
    """A number with an explicit type, for calls where the default (int64, double, bool, complex128) won't do."""

    def __init__(self, value, dtype):
        self.value, self.dtype = value, dtype


def folder() -> pathlib.Path:
    """The toolkit's lib64: of `anycann run`, of ANYCANN_LIB64, or of the development build."""
    if "ANYCANN_LIB64" in os.environ:
        return pathlib.Path(os.environ["ANYCANN_LIB64"])
    return pathlib.Path(os.environ.get("ASCEND_HOME_PATH", ROOT / "build/dev/toolkit")) / "lib64"


@functools.cache
def libraries():
    directory = folder()
    loaded = {name: ctypes.CDLL(str(directory / f"lib{name}.so"), mode=ctypes.RTLD_GLOBAL)
              for name in ("ascendcl", "nnopbase", "opapi")}
    code = loaded["ascendcl"].aclrtSetDevice(0)  # the default stream belongs to the calling thread's device
    if code != 0:
        raise Failed("aclrtSetDevice", code, "")
    return loaded


@functools.cache
def prototypes() -> dict[str, list[tuple[str, str, str]]]:
    """op -> [(C type, name, in/out/inout)]"""
    table = {}
    with open(ROOT / "abi/aclnn.tsv", newline="") as f:
        for row in csv.DictReader(f, delimiter="\t"):
            parameters = []
            for p in filter(None, (x.strip() for x in row["params"].split(";"))):
                declaration, direction = p.rsplit(" [", 1)
                ctype, name = declaration.rsplit(" ", 1)
                parameters.append((ctype.removeprefix("const ").strip(), name, direction.rstrip("]")))
            table[row["op"].removeprefix("aclnn")] = parameters
    return table


def _function(lib: str, name: str, restype):
    f = getattr(libraries()[lib], name)
    f.restype = restype
    return f


def last_error() -> str | None:
    message = _function("ascendcl", "aclGetRecentErrMsg", ctypes.c_char_p)()
    return message.decode() if message else None


def _array(ctype, values):
    return (ctype * max(1, len(values)))(*values)


def tensor(t: torch.Tensor | None):
    if t is None:
        return None
    t = t.resolve_conj().resolve_neg()
    dims, strides = _array(ctypes.c_int64, t.shape), _array(ctypes.c_int64, t.stride())
    storage = _array(ctypes.c_int64, [t.untyped_storage().nbytes() // max(1, t.element_size())])
    create = _function("nnopbase", "aclCreateTensor", ctypes.c_void_p)
    base = t.untyped_storage().data_ptr() if t.numel() else t.data_ptr()
    h = create(dims, ctypes.c_uint64(t.dim()), DTYPES[t.dtype], strides, ctypes.c_int64(t.storage_offset() if t.numel() else 0),
               FORMATS.get(t.dim(), 2), storage, ctypes.c_uint64(1), ctypes.c_void_p(base))
    if not h:
        raise Failed("aclCreateTensor", -1, last_error() or "")
    return h


def scalar(v):
    if v is None:
        return None
    dtype = None
    if isinstance(v, Scalar):
        v, dtype = v.value, v.dtype
    if dtype is None:
        dtype = (torch.bool if isinstance(v, bool) else torch.int64 if isinstance(v, int)
                 else torch.complex128 if isinstance(v, complex) else torch.float64)
    value = torch.tensor([v], dtype=dtype)
    h = _function("nnopbase", "aclCreateScalar", ctypes.c_void_p)(ctypes.c_void_p(value.data_ptr()), DTYPES[dtype])
    if not h:
        raise Failed("aclCreateScalar", -1, last_error() or "")
    return h


def _list(kind: str, element, values):
    if values is None:
        return None
    handles = [element(v) for v in values]
    return _function("nnopbase", f"aclCreate{kind}", ctypes.c_void_p)(_array(ctypes.c_void_p, handles),
                                                                     ctypes.c_uint64(len(handles)))


def _values(kind: str, ctype, values):
    if values is None:
        return None
    return _function("nnopbase", f"aclCreate{kind}", ctypes.c_void_p)(_array(ctype, values), ctypes.c_uint64(len(values)))


HANDLES = {
    "aclTensor*": ("Tensor", tensor),
    "aclScalar*": ("Scalar", scalar),
    "aclTensorList*": ("TensorList", lambda v: _list("TensorList", tensor, v)),
    "aclScalarList*": ("ScalarList", lambda v: _list("ScalarList", scalar, v)),
    "aclIntArray*": ("IntArray", lambda v: _values("IntArray", ctypes.c_int64, v)),
    "aclFloatArray*": ("FloatArray", lambda v: _values("FloatArray", ctypes.c_float, v)),
    "aclBoolArray*": ("BoolArray", lambda v: _values("BoolArray", ctypes.c_bool, v)),
}
PLAIN = {
    "int64_t": ctypes.c_int64, "int32_t": ctypes.c_int32, "int": ctypes.c_int32, "int8_t": ctypes.c_int8,
    "uint64_t": ctypes.c_uint64, "uint32_t": ctypes.c_uint32, "bool": ctypes.c_bool, "float": ctypes.c_float,
    "double": ctypes.c_double, "size_t": ctypes.c_size_t,
}


def pack(ctype: str, value):
    """(ctypes argument, handle kind or None) of one argument."""
    if isinstance(value, ctypes.c_void_p):  # a raw handle, for tests of bad ones
        return value, None
    if ctype in HANDLES:
        kind, make = HANDLES[ctype]
        h = make(value)
        return ctypes.c_void_p(h), kind if h else None
    if ctype == "char*":
        return (ctypes.c_char_p(value.encode()) if value is not None else None), None
    if ctype == "aclDataType":
        return ctypes.c_int32(DTYPES.get(value, value)), None
    if ctype in PLAIN:
        return PLAIN[ctype](value), None
    return ctypes.c_int32(value), None


called: set[str] = set()  # operators that ran without an error, in this process
observers: list = []  # each is given (op, arguments) before a call; what it returns, if anything, is called after a success
_written: dict[int, tuple] = {}  # address of memory -> the tensor through which it was written last (weakly), the operators


def writers(t: torch.Tensor) -> list[str]:
    """The operator that wrote this tensor's memory last, if it was one, and those that gave the same bits (share)."""
    base, operators = _written.get(t.untyped_storage().data_ptr(), (lambda: None, []))
    return operators if base() is not None else []


def share(t: torch.Tensor, op: str) -> None:
    """Says that this operator gave the same result as the one that wrote t."""
    writers(t).append(op)


def _note(op: str, arguments):
    called.add(op)
    for (ctype, _, direction), a in zip(prototypes()[op], arguments):
        if direction in ("out", "inout"):
            for t in a if isinstance(a, (list, tuple)) else [a]:
                if isinstance(t, torch.Tensor):
                    _written[t.untyped_storage().data_ptr()] = weakref.ref(t), [op]


def forget() -> None:
    """Which operator wrote what; memory is used again by others."""
    _written.clear()


def call(op: str, *arguments, stream=None, return_shape_of: int | None = None):
    """Both phases of aclnn<op>. `return_shape_of`: index of the argument whose view shape is read after the run."""
    parameters = prototypes()[op]
    if len(arguments) != len(parameters):
        raise TypeError(f"aclnn{op} takes {len(parameters)} arguments ({', '.join(p[1] for p in parameters)}), got {len(arguments)}")
    afterwards = [f(op, arguments) for f in observers]
    packed = [pack(p[0], a) for p, a in zip(parameters, arguments)]
    try:
        workspace_size, executor = ctypes.c_uint64(0), ctypes.c_void_p()
        name = op if op.startswith("acl") else f"aclnn{op}"
        code = _function("opapi", f"{name}GetWorkspaceSize", ctypes.c_int32)(
            *(p[0] for p in packed), ctypes.byref(workspace_size), ctypes.byref(executor))
        if code != 0:
            raise Failed(f"{name}GetWorkspaceSize", code, last_error() or "")
        workspace = ctypes.create_string_buffer(workspace_size.value) if workspace_size.value else None
        code = _function("opapi", name, ctypes.c_int32)(workspace, workspace_size, executor, ctypes.c_void_p(stream))
        if code != 0:
            raise Failed(name, code, last_error() or "")
        synchronise(stream)
        _note(op, arguments)
        for f in filter(None, afterwards):
            f()
        if return_shape_of is not None:
            return view_shape(packed[return_shape_of][0])
    finally:
        for value, kind in packed:
            if kind:
                _function("nnopbase", f"aclDestroy{kind}", ctypes.c_int32)(value)


def synchronise(stream=None):
    f = getattr(libraries()["ascendcl"], "aclrtSynchronizeStream", None)
    if f is None:
        return
    f.restype = ctypes.c_int32
    code = f(ctypes.c_void_p(stream))
    if code != 0:
        raise Failed("aclrtSynchronizeStream", code, last_error() or "")


def view_shape(handle) -> tuple[int, ...]:
    dims, count = ctypes.POINTER(ctypes.c_int64)(), ctypes.c_uint64()
    code = _function("nnopbase", "aclGetViewShape", ctypes.c_int32)(handle, ctypes.byref(dims), ctypes.byref(count))
    if code != 0:
        raise Failed("aclGetViewShape", code, last_error() or "")
    return tuple(dims[i] for i in range(count.value))


@functools.cache
def implemented_operators() -> set[str]:
    """Names without aclnn."""
    # A required name without an implementation is exported too, so the symbol alone says nothing.
    with open(folder().parent / "share/anycann/ops.tsv") as f:
        return {row["op"].removeprefix("aclnn") for row in csv.DictReader(f, delimiter="\t") if row["implemented"] == "yes"}


def implemented(op: str) -> bool:
    return op in implemented_operators()
