"""For every implemented operator, each handle parameter in turn is null, freed, of another kind, or a stray address.

Run as a program by test_operator_doors.py, so that a crash names the operator it happened in: prints "op parameter" before
each call and a line that starts with FAIL for each wrong answer.
"""

import ctypes
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "abi"))

import contract  # noqa: E402
import operators  # noqa: E402

NULLPTR, INVALID = 161001, 161002
VALUES = {"double": ctypes.c_double, "float": ctypes.c_float, "bool": ctypes.c_bool, "int8_t": ctypes.c_int8}


class Doors:
    def __init__(self, lib64):
        self.base = ctypes.CDLL(f"{lib64}/libnnopbase.so", mode=ctypes.RTLD_GLOBAL)
        self.opapi = ctypes.CDLL(f"{lib64}/libopapi.so", mode=ctypes.RTLD_GLOBAL)
        self.cl = ctypes.CDLL(f"{lib64}/libascendcl.so")
        engine = ctypes.CDLL("libanycann.so")  # by soname: the engine that the doors loaded, whatever its level
        self.take_error = engine._ZN7anycann13TakeLastErrorEv
        self.take_error.restype = ctypes.c_char_p
        for name in ("Tensor", "Scalar", "IntArray", "FloatArray", "BoolArray", "TensorList", "ScalarList"):
            getattr(self.base, "aclCreate" + name).restype = ctypes.c_void_p
        self.data = (ctypes.c_float * 64)()
        self.text = ctypes.create_string_buffer(b"none")

    def make(self, kind):
        base = self.base
        if kind == "char":
            return ctypes.addressof(self.text)
        if kind == "aclTensor":
            dims = (ctypes.c_int64 * 2)(2, 3)
            return base.aclCreateTensor(dims, ctypes.c_uint64(2), 0, None, ctypes.c_int64(0), 2, dims, ctypes.c_uint64(2),
                                        self.data)
        if kind == "aclScalar":
            return base.aclCreateScalar(ctypes.byref(ctypes.c_double(1)), 11)
        if kind in ("aclIntArray", "aclFloatArray", "aclBoolArray"):
            type_ = {"aclIntArray": ctypes.c_int64, "aclFloatArray": ctypes.c_float, "aclBoolArray": ctypes.c_bool}[kind]
            return getattr(base, kind.replace("acl", "aclCreate"))((type_ * 1)(1), ctypes.c_uint64(1))
        member = self.make(kind.replace("List", ""))
        return getattr(base, kind.replace("acl", "aclCreate"))((ctypes.c_void_p * 1)(member), ctypes.c_uint64(1))

    def destroy(self, kind, handle):
        if kind != "char":
            getattr(self.base, kind.replace("acl", "aclDestroy"))(ctypes.c_void_p(handle))

    def call(self, op, handles):
        arguments = []
        for index, param in enumerate(op.params):
            if index in handles:
                arguments.append(ctypes.c_void_p(handles[index]))
            else:
                plain = param.type.replace("const ", "").replace("*", "").strip()
                arguments.append(VALUES.get(plain, ctypes.c_int64)(0))
        size, executor = ctypes.c_uint64(77), ctypes.c_void_p()
        code = getattr(self.opapi, op.name + "GetWorkspaceSize")(*arguments, ctypes.byref(size), ctypes.byref(executor))
        return code, (self.take_error() or b"").decode(errors="replace"), executor.value

    def check(self, op, nullable):
        kinds = {i: operators.plain(p.type) for i, p in enumerate(op.params) if operators.pointer(p)}
        for index, kind in kinds.items():
            param = op.params[index]
            for fault in ("null", "freed", "kind", "stray"):
                if kind == "char" and fault != "null":
                    continue
                if fault == "null" and contract.may_be_null(nullable, op, param):
                    self.check_absent(op, kinds, [index])
                    continue
                print(op.name, param.name, fault, flush=True)
                handles = {i: self.make(k) for i, k in kinds.items()}
                good = handles[index]
                if fault == "null":
                    handles[index] = None
                elif fault == "freed":
                    handles[index] = self.make(kind)
                    self.destroy(kind, handles[index])
                elif fault == "kind":
                    handles[index] = self.make("aclScalar" if kind != "aclScalar" else "aclTensor")
                else:
                    handles[index] = ctypes.addressof(self.data) + 8
                code, message, executor = self.call(op, handles)
                expected = NULLPTR if fault == "null" else INVALID
                if code != expected or param.name not in message or op.name not in message:
                    print(f"FAIL {op.name}({param.name} {fault}): {code}, expected {expected}; {message!r}", flush=True)
                if fault == "kind":
                    self.destroy("aclScalar" if kind != "aclScalar" else "aclTensor", handles[index])
                handles[index] = good
                for i, k in kinds.items():
                    self.destroy(k, handles[i])
        absent = [i for i in kinds if contract.may_be_null(nullable, op, op.params[i])]
        if len(absent) > 1:
            self.check_absent(op, kinds, absent)

    def check_absent(self, op, kinds, absent):
        """Parameters that may be null: any answer will do, an error with a sentence or an executor, but no crash."""
        print(op.name, "absent", [op.params[i].name for i in absent], flush=True)
        handles = {i: None if i in absent else self.make(k) for i, k in kinds.items()}
        code, message, executor = self.call(op, handles)
        if code != 0 and op.name not in message:
            print(f"FAIL {op.name} without {[op.params[i].name for i in absent]}: {code}; {message!r}", flush=True)
        if code == 0:
            self.base.aclDestroyAclOpExecutor(ctypes.c_void_p(executor))
        for i, k in kinds.items():
            if handles[i] is not None:
                self.destroy(k, handles[i])


def main():
    doors = Doors(sys.argv[1])
    nullable = contract.load_nullable()
    found = operators.faces(contract.load_operators(), operators.implemented_names(f"{sys.argv[1]}/libanycann.so"))
    for op in contract.load_operators():
        if op.name in found:
            doors.check(op, nullable)
    print("done", flush=True)


if __name__ == "__main__":
    main()
