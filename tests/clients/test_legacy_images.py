"""Legacy operators on images that no function of the torch_npu wheel reaches, by their C interface: CropAndResizeV2, ImgToTensor and
DecodeJpeg, against torch, torchvision and Pillow."""

import ctypes
import io

import numpy
import pytest
import torch
from PIL import Image

STRING = 13
DTYPES = {numpy.dtype(name): code for name, code in {"float32": 0, "float16": 1, "int8": 2, "int32": 3, "uint8": 4, "int16": 6}.items()}


class Client:
    def __init__(self, folder):
        self.acl = ctypes.CDLL(str(folder / "libascendcl.so"))
        self.compiler = ctypes.CDLL(str(folder / "libacl_op_compiler.so"))
        for name in ("aclCreateTensorDesc", "aclCreateDataBuffer", "aclopCreateAttr"):
            getattr(self.acl, name).restype = ctypes.c_void_p
        self.acl.aclGetRecentErrMsg.restype = ctypes.c_char_p
        assert self.acl.aclInit(None) in (0, 100002) and self.acl.aclrtSetDevice(0) == 0

    def run(self, kind, inputs, outputs, **attributes):
        """Runs the operator on numpy arrays, or bytes for a string; outputs are written in place. Raises what AnyCANN says."""
        attr, sides, keep = ctypes.c_void_p(self.acl.aclopCreateAttr()), [], []
        for name, value in attributes.items():
            key = name.encode()
            if isinstance(value, bool):
                self.acl.aclopSetAttrBool(attr, key, ctypes.c_uint8(value))
            elif isinstance(value, int):
                self.acl.aclopSetAttrInt(attr, key, ctypes.c_int64(value))
            elif isinstance(value, float):
                self.acl.aclopSetAttrFloat(attr, key, ctypes.c_float(value))
            else:
                self.acl.aclopSetAttrString(attr, key, value.encode())
        for tensors in (inputs, outputs):
            made = []
            for t in tensors:
                string = isinstance(t, bytes)
                array = numpy.frombuffer(t, numpy.uint8) if string else t
                keep.append(array)
                dims = (ctypes.c_int64 * array.ndim)(*array.shape)
                made.append((self.acl.aclCreateTensorDesc(STRING if string else DTYPES[array.dtype], array.ndim, dims, 2),
                             self.acl.aclCreateDataBuffer(ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes))))
            sides.append([(ctypes.c_void_p * len(made))(*part) for part in zip(*made)])
        code = self.compiler.aclopCompileAndExecute(kind.encode(), len(inputs), *sides[0], len(outputs), *sides[1], attr, 0, 0, None, None)
        code = code or self.acl.aclrtSynchronizeDevice()
        if code != 0:
            raise RuntimeError((self.acl.aclGetRecentErrMsg() or b"").decode())


@pytest.fixture(scope="module")
def client(toolkit):
    return Client(toolkit / "lib64")


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("method", ["bilinear", "nearest"])
def test_crop_and_resize(client, last, method):
    x = torch.randn(2, 3, 9, 7, generator=torch.Generator().manual_seed(0))
    boxes = numpy.array([[0, 0, 1, 1], [0.2, 0.1, 0.7, 0.9], [0.9, 0.8, 0.1, 0.3], [-0.4, 0.5, 0.6, 1.3]], numpy.float32)
    index, size = numpy.array([0, 1, 1, 0], numpy.int32), numpy.array([5, 4], numpy.int32)
    y = numpy.empty((4, 5, 4, 3) if last else (4, 3, 5, 4), numpy.float32)
    given = x.permute(0, 2, 3, 1).contiguous() if last else x
    client.run("CropAndResizeV2", [given.numpy(), boxes, index, size], [y], extrapolation_value=-7.0, method=method)
    y = torch.from_numpy(y).permute(0, 3, 1, 2) if last else torch.from_numpy(y)
    for k, (y1, x1, y2, x2) in enumerate(boxes.tolist()):
        lines, columns = torch.linspace(y1, y2, 5).double() * 2 - 1, torch.linspace(x1, x2, 4).double() * 2 - 1
        grid = torch.stack((columns.expand(5, 4), lines.unsqueeze(1).expand(5, 4)), -1).unsqueeze(0)
        wanted = torch.nn.functional.grid_sample(x[index[k]:index[k] + 1].double(), grid, method, "border", align_corners=True)[0]
        inside = (grid.abs() <= 1 + 1e-6).all(-1)[0]
        wanted[:, ~inside] = -7
        if method == "bilinear":
            torch.testing.assert_close(y[k].double(), wanted, rtol=1e-5, atol=1e-5)
        else:  # halfway between two pixels either will do
            places = torch.stack((lines.unsqueeze(1).expand(5, 4) * 4 + 4, columns.expand(5, 4) * 3 + 3), -1)
            clear = ((places % 1 - 0.5).abs() > 1e-4).all(-1) | ~inside
            torch.testing.assert_close(y[k].double()[:, clear], wanted[:, clear], rtol=1e-6, atol=1e-6)


def test_crop_and_resize_of_bytes(client):
    x = numpy.array([[[[0, 255], [100, 50]]]], numpy.uint8)
    y = numpy.empty((1, 1, 1, 3), numpy.uint8)
    client.run("CropAndResizeV2", [x, numpy.array([[0, 0, 1, 1]], numpy.float32), numpy.array([0], numpy.int32),
                                   numpy.array([1, 3], numpy.int32)], [y])
    assert y.flatten().tolist() == [50, 101, 152]  # 50, 101.25, 152.5: to the even one


def test_crop_and_resize_refuses_a_missing_image(client):
    with pytest.raises(RuntimeError, match=r"box_index is 2, expected a value in \[0,2\)"):
        client.run("CropAndResizeV2", [numpy.zeros((2, 1, 4, 4), numpy.float32), numpy.zeros((1, 4), numpy.float32), numpy.array([2], numpy.int32),
                                       numpy.array([2, 2], numpy.int32)], [numpy.empty((1, 1, 2, 2), numpy.float32)])


def test_img_to_tensor(client):
    x = numpy.arange(256, dtype=numpy.uint8).reshape(1, 1, 16, 16)
    y = numpy.empty(x.shape, numpy.float32)
    client.run("ImgToTensor", [x], [y])
    assert numpy.array_equal(y, (x.astype(numpy.float64) / 255).astype(numpy.float32))


def picture(height=37, width=50):
    """JPEG data of a colour image of smooth ramps and a fine pattern."""
    v, u = numpy.mgrid[0:height, 0:width]
    pixels = numpy.stack((u * 255 // width, v * 255 // height, (u + v) % 2 * 20 + 100), -1).astype(numpy.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=92)
    return data.getvalue()


def ge_string(data):
    return (16).to_bytes(8, "little") + len(data).to_bytes(8, "little") + data


@pytest.mark.parametrize("wrap", [bytes, ge_string])
@pytest.mark.parametrize("order,channels", [("HWC", 3), ("CHW", 3), ("HWC", 1), ("CHW", 0)])
def test_decode_jpeg(client, wrap, order, channels):
    data = picture()
    expected = numpy.asarray(Image.open(io.BytesIO(data)).convert("L" if channels == 1 else "RGB")).reshape(37, 50, -1)
    if channels == 1:  # Pillow's grey comes from the colours, libjpeg's from the brightness that the data hold
        expected = numpy.asarray(Image.open(io.BytesIO(data)).convert("YCbCr"))[:, :, :1]
    image = numpy.empty(expected.shape if order == "HWC" else expected.transpose(2, 0, 1).shape, numpy.uint8)
    client.run("DecodeJpeg", [wrap(data)], [image], channels=channels, dst_img_format=order)
    image = image if order == "HWC" else image.transpose(1, 2, 0)
    assert abs(image.astype(int) - expected).max() <= (2 if channels == 1 else 1)


def test_decode_jpeg_smaller(client):
    data = picture(64, 80)
    image = numpy.empty((16, 20, 3), numpy.uint8)
    client.run("DecodeJpeg", [data], [image], ratio=4)
    whole = numpy.asarray(Image.open(io.BytesIO(data))).astype(float).reshape(16, 4, 20, 4, 3).mean((1, 3))
    assert abs(image - whole).max() < 6


def test_decode_jpeg_refuses_bad_data(client):
    data, image = picture(), numpy.empty((37, 50, 3), numpy.uint8)
    for bad, sentence in ((b"no image at all, really", "Not a JPEG file"), (b"", "0 bytes"), (data[:-len(data) // 4], "cut off")):
        with pytest.raises(RuntimeError, match=sentence):
            client.run("DecodeJpeg", [bad], [image])
    with pytest.raises(RuntimeError, match="the data hold 37 x 50"):
        client.run("DecodeJpeg", [data], [numpy.empty((36, 50, 3), numpy.uint8)])
    client.run("DecodeJpeg", [data[:-len(data) // 4]], [image], try_recover_truncated=True, acceptable_fraction=0.2)
    whole = numpy.asarray(Image.open(io.BytesIO(data)))
    assert abs(image[:8].astype(int) - whole[:8]).max() <= 1
