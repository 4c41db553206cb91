"""Every legacy operator type with arguments that no client should pass: an error that names the type, or a result; no crash.

Arguments are drawn per type from a fixed seed. What an operator does with good ones: tests/torch_npu/test_legacy.py.
"""

import csv
import ctypes
import random
import subprocess
import sys

import pytest

ROUNDS = 60
DTYPES = {0: 4, 1: 2, 2: 1, 3: 4, 4: 1, 9: 8, 11: 8, 12: 1, 16: 8, 27: 2, -1: 0}  # aclDataType: bytes
SHAPES = [(), (0,), (1,), (3,), (4, 4), (1, 4), (5, 5), (2, 3, 4), (2, 0, 3), (2, 3, 4, 5), (4, 4, 4, 4), (1, 2, 3, 4, 5),
          (1, 1, 1, 1, 1, 1, 1, 1)]
BAD_SHAPES = [(-1, 3), (2**62, 4), (1,) * 9]
TEXTS = [b"none", b"mean", b"sum", b"NCHW", b"iou", b"edge", b"reflect", b"", b"nonsense"]


class Client:
    """The functions of libascendcl and libacl_op_compiler that make descriptors and run operators."""

    def __init__(self, folder):
        self.acl = ctypes.CDLL(f"{folder}/libascendcl.so")
        self.compiler = ctypes.CDLL(f"{folder}/libacl_op_compiler.so")
        for name in ("aclCreateTensorDesc", "aclCreateDataBuffer", "aclopCreateAttr"):
            getattr(self.acl, name).restype = ctypes.c_void_p
        self.memory = (ctypes.c_char * (1 << 20))()
        assert self.acl.aclInit(None) == 0 and self.acl.aclrtSetDevice(0) == 0

    def tensor(self, draw, usual):
        """Mostly the call's usual type and shape, so that the operators themselves are reached."""
        dtype = usual[0] if draw.random() < 0.8 else draw.choice(list(DTYPES))
        shape = usual[1] if draw.random() < 0.7 else draw.choice(SHAPES)
        if draw.random() < 0.02:
            shape = draw.choice(BAD_SHAPES)
        descriptor = self.acl.aclCreateTensorDesc(dtype, len(shape), (ctypes.c_int64 * len(shape))(*shape), draw.choice([0, 2]))
        self.acl.aclSetTensorPlaceMent(ctypes.c_void_p(descriptor), draw.choice([0, 0, 1, 2]))
        if draw.random() < 0.03:
            self.acl.aclSetTensorFormat(ctypes.c_void_p(descriptor), draw.choice([3, 4, 29, 99]))
            dims = (ctypes.c_int64 * 5)(1, 1, 3, 4, 16)
            self.acl.aclSetTensorShape(ctypes.c_void_p(descriptor), 5, dims)
        count = 1
        for n in shape:
            count *= n
        size = min(max(count, 0) * DTYPES[dtype], 1 << 20) if draw.random() < 0.98 else draw.randrange(8)
        return descriptor, self.acl.aclCreateDataBuffer(self.memory, ctypes.c_size_t(size))

    def attributes(self, draw, names):
        attributes = ctypes.c_void_p(self.acl.aclopCreateAttr())
        for name in names:
            value = draw.choice([-(2**63), -3, -1, 0, 1, 2, 3, 1000, 2**62])
            kind = draw.randrange(6)
            if kind == 0:
                self.acl.aclopSetAttrInt(attributes, name, ctypes.c_int64(value))
            elif kind == 1:
                self.acl.aclopSetAttrFloat(attributes, name, ctypes.c_float(draw.choice([0, 1, -1, 0.5, float("nan"), float("inf")])))
            elif kind == 2:
                self.acl.aclopSetAttrString(attributes, name, draw.choice(TEXTS))
            elif kind == 3:
                n = draw.randrange(7)
                values = (ctypes.c_int64 * n)(*(draw.choice([1, 1, 2, 0, -1, value]) for _ in range(n)))
                self.acl.aclopSetAttrListInt(attributes, name, n, values)
            elif kind == 4:
                self.acl.aclopSetAttrBool(attributes, name, ctypes.c_uint8(draw.randrange(2)))
        return attributes

    def run(self, type_, names, draw):
        usual = draw.choice([0, 0, 1, 3, 9, 12, 27, 16]), draw.choice(SHAPES)
        made = [[self.tensor(draw, usual) for _ in range(draw.randrange(1, 14 if side == 0 else 7))] for side in range(2)]
        arrays = [(ctypes.c_void_p * max(len(side), 1))(*(t[part] for t in side)) for side in made for part in range(2)]
        attributes = self.attributes(draw, names)
        run = draw.choice([self.compiler.aclopCompileAndExecute, self.compiler.aclopCompileAndExecuteV2])
        code = run(type_, len(made[0]), arrays[0], arrays[1], len(made[1]), arrays[2], arrays[3], attributes, 0, 0, None, None)
        self.acl.aclrtSynchronizeDevice()
        self.acl.aclopDestroyAttr(attributes)
        for side in made:
            for descriptor, buffer in side:
                self.acl.aclDestroyTensorDesc(ctypes.c_void_p(descriptor))
                self.acl.aclDestroyDataBuffer(ctypes.c_void_p(buffer))
        return code


def types(abi):
    with open(abi / "ge_operators.tsv", newline="", encoding="utf-8") as f:
        for row in csv.DictReader(f, delimiter="\t", quoting=csv.QUOTE_NONE):
            yield row["op"], [item.split("|")[0] for item in row["attributes"].split(";") if item]


def main():
    import pathlib
    client = Client(sys.argv[1])
    part, parts = int(sys.argv[2]), int(sys.argv[3])
    for i, (type_, names) in enumerate(types(pathlib.Path(__file__).resolve().parents[2] / "abi")):
        if i % parts != part:
            continue
        draw = random.Random(i)
        print(type_, flush=True)
        for _ in range(ROUNDS):
            ctypes.memset(client.memory, draw.choice([0, 0, 1, 255]), 4096)
            client.run(type_.encode(), [n.encode() for n in names], draw)
    print("done", flush=True)


@pytest.mark.parametrize("part", range(4))
def test_no_type_crashes(toolkit, part):
    run = subprocess.run([sys.executable, __file__, str(toolkit / "lib64"), str(part), "4"], capture_output=True, text=True, timeout=600)
    lines = run.stdout.split()
    assert run.returncode == 0 and lines[-1] == "done", f"{lines[-1:]}: {run.stderr[-2000:]}"


if __name__ == "__main__":
    main()
