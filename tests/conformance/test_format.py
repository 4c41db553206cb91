"""Private formats: the layouts of aclnnNpuFormatCast against their definition by reshape and permute."""

import ctypes

import pytest
import torch
import torch.nn.functional as F

import aclnn
import cases

NC1HWC0, FRACTAL_Z, FRACTAL_NZ, NDC1HWC0, FRACTAL_Z_3D = 3, 4, 29, 32, 33


def handle(storage, shape, format):
    """A tensor of this logical shape whose memory is `storage`, in this format."""
    array = lambda v: (ctypes.c_int64 * max(1, len(v)))(*v)
    strides = torch.empty(shape, device="meta").stride()
    create = aclnn._function("nnopbase", "aclCreateTensor", ctypes.c_void_p)
    return ctypes.c_void_p(create(array(shape), ctypes.c_uint64(len(shape)), aclnn.DTYPES[storage.dtype], array(strides),
                                  ctypes.c_int64(0), format, array(storage.shape), ctypes.c_uint64(storage.dim()),
                                  ctypes.c_void_p(storage.data_ptr())))


def pad_to(x, dim, block):
    extra = -x.shape[dim] % block
    return F.pad(x, [0, 0] * (x.dim() - 1 - dim) + [0, extra]) if extra else x


def nz(x, c0):
    x = pad_to(pad_to(x, x.dim() - 2, 16), x.dim() - 1, c0)
    *batch, m, n = x.shape
    return x.reshape(*batch, m // 16, 16, n // c0, c0).transpose(-3, -2).transpose(-4, -3).contiguous()


def five(x, c0):
    x = pad_to(x, 1, c0)
    n, c, *image = x.shape
    x = x.reshape(n, c // c0, c0, *image).movedim(2, -1)
    return (x.transpose(1, 2) if len(image) == 3 else x).contiguous()


def filters(x, c0):
    x = pad_to(pad_to(x, 0, 16), 1, c0)
    n, c, *image = x.shape
    x = x.reshape(n // 16, 16, c // c0, c0, *image)
    order = [4, 2, 5, 6] if len(image) == 3 else [2, 4, 5]
    return x.permute(*order, 0, 1, 3).reshape(-1, n // 16, 16, c0).contiguous()


CASES = [(FRACTAL_NZ, nz, (33, 40)), (FRACTAL_NZ, nz, (16, 32)), (FRACTAL_NZ, nz, (2, 3, 5, 70)), (NC1HWC0, five, (2, 20, 3, 5)),
         (NC1HWC0, five, (1, 32, 4, 4)), (FRACTAL_Z, filters, (20, 9, 3, 2)), (FRACTAL_Z, filters, (16, 32, 1, 1)),
         (NDC1HWC0, five, (2, 20, 2, 3, 4)), (FRACTAL_Z_3D, filters, (20, 9, 2, 3, 2))]


@pytest.mark.parametrize("case", range(len(CASES)))
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int8])
def test_there_and_back(case, dtype):
    format, layout, shape = CASES[case]
    for kind in ("contiguous", "strided"):
        x = cases.tensor(shape, dtype, kind)
        expected = layout(x, 32 // x.element_size())
        storage = torch.full_like(expected, 7)
        assert sizes(x, format) == (format, tuple(expected.shape))
        aclnn.call("NpuFormatCast", x, handle(storage, shape, format))
        assert torch.equal(storage, expected)
        back = cases.lay(torch.full(shape, 7.0).to(dtype), kind)
        aclnn.call("NpuFormatCast", handle(storage, shape, format), back)
        assert torch.equal(back, x)


def sizes(x, format, additional=-1):
    shape, rank, actual = ctypes.POINTER(ctypes.c_int64)(), ctypes.c_uint64(), ctypes.c_int()
    f = aclnn._function("opapi", "aclnnNpuFormatCastCalculateSizeAndFormat", ctypes.c_int32)
    code = f(ctypes.c_void_p(aclnn.tensor(x)), format, additional, ctypes.byref(shape), ctypes.byref(rank), ctypes.byref(actual))
    if code != 0:
        raise aclnn.Failed("aclnnNpuFormatCastCalculateSizeAndFormat", code, aclnn.last_error() or "")
    return actual.value, tuple(shape[i] for i in range(rank.value))


def test_block_of_another_type():
    x = torch.zeros(32, 64, dtype=torch.int32)
    assert sizes(x, FRACTAL_NZ, aclnn.DTYPES[torch.float16]) == (50, (4, 2, 16, 16))
    with pytest.raises(aclnn.Failed, match="takes 2 to 6"):
        sizes(torch.zeros(3), FRACTAL_NZ)


def test_too_small_storage_is_refused():
    x = torch.zeros(33, 40)
    storage = torch.zeros(10)
    with pytest.raises(aclnn.Failed, match=r"dstTensor has storage \[10\], expected \[5,3,16,8\]"):
        aclnn.call("NpuFormatCast", x, handle(storage, (33, 40), FRACTAL_NZ))


@pytest.mark.parametrize("dtype,shape,elements", [(torch.float16, (33, 40), 48 * 48), (torch.int8, (33, 40), 48 * 64),
                                                  (torch.bfloat16, (2, 16, 17), 2 * 16 * 32)])
def test_weight_size(dtype, shape, elements):
    size = ctypes.c_uint64()
    array = aclnn._values("IntArray", ctypes.c_int64, shape)
    f = aclnn._function("opapi", "aclnnCalculateMatmulWeightSizeV2", ctypes.c_int32)
    assert f(ctypes.c_void_p(array), aclnn.DTYPES[dtype], ctypes.byref(size)) == 0
    assert size.value == elements
