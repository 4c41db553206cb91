"""The doors that are written by hand beside libascendcl: options, collectives' settings, records, bounded strings."""

import ctypes

import pytest


@pytest.fixture(scope="module")
def load(toolkit):
    return lambda name: ctypes.CDLL(str(toolkit / f"lib64/lib{name}.so"))


@pytest.fixture(scope="module")
def last_error(toolkit):
    take = ctypes.CDLL("libanycann.so")._ZN7anycann13TakeLastErrorEv
    take.restype = ctypes.c_char_p
    return lambda: (take() or b"").decode()


def test_compile_options_are_kept(load, last_error):
    lib = load("acl_op_compiler")
    lib.aclGetCompileoptSize.restype = ctypes.c_size_t
    jit = 10  # ACL_OP_JIT_COMPILE
    value = ctypes.create_string_buffer(lib.aclGetCompileoptSize(jit))
    assert lib.aclGetCompileopt(jit, value, ctypes.c_size_t(len(value))) == 0
    assert value.value == b"disable"
    assert lib.aclSetCompileopt(0, b"must_keep_origin_dtype") == 0
    assert lib.aclGetCompileoptSize(0) == len("must_keep_origin_dtype") + 1
    assert lib.aclGetCompileopt(0, value, ctypes.c_size_t(3)) == 100000
    assert "length is 3, the value needs 23" in last_error()
    assert lib.aclSetCompileopt(99, b"x") == 100000 and "opt is 99" in last_error()
    assert lib.aclSetCompileopt(0, None) == 100000 and "value" in last_error()


def test_system_parameters_are_kept(load, last_error):
    lib = load("acl_op_compiler")
    value = ctypes.c_int64(-1)
    assert lib.aclrtSetSysParamOpt(0, ctypes.c_int64(3)) == 0
    assert lib.aclrtGetSysParamOpt(0, ctypes.byref(value)) == 0 and value.value == 3
    assert lib.aclrtGetSysParamOpt(2, ctypes.byref(value)) == 0 and value.value == 0
    assert lib.aclrtGetSysParamOpt(7, ctypes.byref(value)) == 100000 and "opt is 7" in last_error()
    assert lib.aclrtGetSysParamOpt(0, None) == 100000


def test_legacy_operator_types_are_refused_by_name(load, last_error):
    lib = load("acl_op_compiler")
    code = lib.aclopCompileAndExecute(b"MatMulV3", 0, None, None, 0, None, None, None, 0, 0, None, None)
    assert code == 100024, "ACL_ERROR_OP_NOT_FOUND"
    assert "operator type MatMulV3" in last_error()
    assert lib.aclopCompileAndExecute(None, 0, None, None, 0, None, None, None, 0, 0, None, None) == 100000


def test_collective_settings(load):
    lib = load("hccl")
    value = ctypes.c_int32()
    assert lib.HcclSetConfig(0, ctypes.c_int32(2)) == 0
    assert lib.HcclGetConfig(0, ctypes.byref(value)) == 0 and value.value == 2
    assert lib.HcclSetConfig(5, ctypes.c_int32(2)) == 1 and lib.HcclGetConfig(0, None) == 2


def test_record_interface(load):
    lib = load("profapi")
    lib.MsprofSysCycleTime.restype = lib.MsprofGetHashId.restype = ctypes.c_uint64
    first = lib.MsprofSysCycleTime()
    assert lib.MsprofSysCycleTime() >= first > 0
    assert lib.MsprofGetHashId(b"aclnnAdd", ctypes.c_size_t(8)) == lib.MsprofGetHashId(b"aclnnAddX", ctypes.c_size_t(8))
    assert lib.MsprofGetHashId(b"aclnnAdd", ctypes.c_size_t(8)) != lib.MsprofGetHashId(b"aclnnSub", ctypes.c_size_t(8))


@pytest.mark.parametrize(("room", "count", "text", "result", "left"), [
    (8, 7, b"seven77", 7, b"seven77"),     # fills the room exactly
    (8, 3, b"abcdef", -1, b"abc"),         # cut where the caller asked
    (4, 9, b"abcdef", -1, b""),            # would not fit: nothing is left
    (8, 8, b"", 0, b""),
])
def test_bounded_format(load, room, count, text, result, left):
    buffer = ctypes.create_string_buffer(b"~" * 31, 32)
    written = load("c_sec").snprintf_s(buffer, ctypes.c_size_t(room), ctypes.c_size_t(count), b"%s", text)
    assert (written, buffer.value) == (result, left)
    assert buffer.raw[room:31] == b"~" * (31 - room), "wrote past the room"


def test_bounded_copy(load):
    lib, buffer = load("c_sec"), ctypes.create_string_buffer(8)
    assert lib.strcpy_s(buffer, ctypes.c_size_t(8), b"seven77") == 0 and buffer.value == b"seven77"
    assert lib.strcpy_s(buffer, ctypes.c_size_t(8), b"eight888") != 0 and buffer.value == b""
    assert lib.strcpy_s(None, ctypes.c_size_t(8), b"x") != 0 and lib.strcpy_s(buffer, ctypes.c_size_t(8), None) != 0
