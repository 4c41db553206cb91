"""Copies, pads, sequences and windows against torch: exact for moves, float64 oracle where sums happen."""

import pytest
import torch
import torch.nn.functional as F

import aclnn
import cases

LAYOUTS = ["contiguous", "transposed", "strided", "offset", "expanded", "empty"]


def check(op, *arguments, expected, layout="contiguous", dtype=None, where=-1):
    """Runs aclnn<op> with an output of expected's shape put at argument `where`, in this layout."""
    out = cases.lay(torch.full(expected.shape, 77, dtype=torch.float64).to(dtype or expected.dtype),
                    cases.OUTPUT_LAYOUTS.get(layout, layout))
    arguments = list(arguments)
    arguments.insert(len(arguments) if where == -1 else where, out)
    aclnn.call(op, *arguments)
    cases.compare(out, expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", cases.ALL)
def test_cat_and_stack(dtype, layout):
    xs = [cases.tensor((3, 4 + i, 5), dtype, layout, seed=i) for i in range(3)]
    check("Cat", xs, 1, expected=torch.cat(xs, 1), layout=layout)
    check("Cat", [xs[0]] * 4, -1, expected=torch.cat([xs[0]] * 4, -1), layout=layout)
    check("Cat", [xs[0], xs[0][:1]], 0, expected=torch.cat([xs[0], xs[0][:1]], 0), layout=layout)
    for dim in (0, 1, -1):
        check("Stack", [xs[0], xs[0] * 2 if dtype != torch.bool else ~xs[0]], dim,
              expected=torch.stack([xs[0], xs[0] * 2 if dtype != torch.bool else ~xs[0]], dim), layout=layout)


def test_cat_of_other_types_and_legacy_empty():
    xs = [torch.arange(6).view(2, 3), torch.rand(2, 3, dtype=torch.float64), torch.empty(0), torch.empty(2, 0)]
    check("Cat", xs, 1, expected=torch.cat(xs, 1))
    check("Cat", [torch.empty(0), torch.empty(0)], 0, expected=torch.empty(0))
    many = [torch.rand(7, 1 + i % 3) for i in range(60)]
    check("Cat", many, 1, expected=torch.cat(many, 1))
    large = [torch.rand(300, 257), torch.rand(300, 1), torch.rand(300, 500)]
    check("Cat", large, 1, expected=torch.cat(large, 1))


def test_cat_refuses_shapes_that_do_not_fit():
    with pytest.raises(aclnn.Failed, match=r"tensors\[1\] has shape \[2,4\], expected \[3,4\] except in dimension 1"):
        aclnn.call("Cat", [torch.rand(3, 4), torch.rand(2, 4)], 1, torch.rand(3, 8))
    with pytest.raises(aclnn.Failed, match="out has shape"):
        aclnn.call("Cat", [torch.rand(3, 4)], 1, torch.rand(3, 8))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", cases.ALL)
def test_split_and_chunk_cat(dtype, layout):
    x = cases.tensor((3, 9, 5), dtype, layout)
    outs = [cases.lay(torch.zeros(x.shape[0], n, 5, dtype=dtype), cases.OUTPUT_LAYOUTS.get(layout, layout)) for n in (2, 0, 4, 3)]
    aclnn.call("SplitWithSize", x, [2, 0, 4, 3], 1, outs)
    for out, part in zip(outs, torch.split(x, [2, 0, 4, 3], 1)):
        assert torch.equal(out, part)
    if layout in ("contiguous", "strided"):
        xs = [cases.tensor((5, 3), dtype, layout), cases.tensor((7, 2, 2), dtype, layout)]
        check("ChunkCat", xs, 0, 4, expected=torch._chunk_cat(xs, 0, 4))
        ys = [cases.tensor((2, 5, 3), dtype, layout), cases.tensor((2, 3), dtype, layout)]
        check("ChunkCat", ys, 1, 2, expected=torch._chunk_cat(ys, 1, 2))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", cases.ALL)
def test_rearrangements(dtype, layout):
    x = cases.tensor((4, 6, 5), dtype, layout)
    check("Permute", x, [2, 0, 1], expected=x.permute(2, 0, 1), layout=layout)
    check("Permute", x, [-1, 1, 0], expected=x.permute(-1, 1, 0), layout=layout)
    check("Flip", x, [0, 2], expected=x.flip(0, 2), layout=layout)
    check("Flip", x, [], expected=x, layout=layout)
    check("Roll", x, [2, -1], [0, 2], expected=x.roll((2, -1), (0, 2)), layout=layout)
    check("Roll", x, [7], [], expected=x.roll(7), layout=layout)
    check("Repeat", x, [2, 1, 3], expected=x.repeat(2, 1, 3), layout=layout)
    check("Repeat", x, [2, 1, 3, 2, 2], expected=x.repeat(2, 1, 3, 2, 2), layout=layout)
    check("ChannelShuffle", x, 3, expected=x.reshape(x.shape[0], 3, 2, 5).transpose(1, 2).reshape(x.shape), layout=layout)
    check("Slice", x, 1, 1, 6, 2, expected=x[:, 1:6:2], layout=layout)
    check("Slice", x, 2, -3, 100, 1, expected=x[:, :, -3:], layout=layout)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", cases.ALL)
def test_slices_of_several_axes(dtype, layout):
    x = cases.tensor((4, 6, 5), dtype, layout)
    check("SliceV2", x, [1, -4], [6, 5], [1, 2], [2, 1], expected=x[:, 1:6:2, 1:5], layout=layout)
    check("SliceV2", x, [0, 1, 0], [4, 6, 9], [0, 1, 2], [1, 5, 2], expected=x[:, 1:6:5, ::2], layout=layout)
    if layout not in ("expanded", "empty"):
        y, values = cases.lay(x.clone(), layout), cases.tensor((4, 3, 4), dtype, seed=1)
        aclnn.call("StridedSliceAssignV2", y, values, [1, -4], [6, 5], [2, 1], [1, 2])
        expected = x.clone()
        expected[:, 1:6:2, 1:5] = values
        assert torch.equal(y, expected)
    for axis in (0, 1, 2, 3, -1, -2):
        rows = torch.Size(x.shape[:axis]).numel()
        columns = torch.Size(x.shape[axis:]).numel() if axis < 3 else 1
        check("Flatten", x, axis, expected=x.reshape(rows, columns), layout=layout)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", cases.ALL)
def test_diagonals(dtype, layout):
    x, v = cases.tensor((5, 7), dtype, layout), cases.tensor((6,), dtype, layout)
    for diagonal in (0, 2, -3, 9):
        if x.shape[0]:
            check("Diag", x, diagonal, expected=x.diagonal(diagonal) if -5 < diagonal < 7 else x[:0, 0], layout=layout)
        check("Diag", v, diagonal, expected=torch.diag(v, diagonal), layout=layout)
        check("DiagFlat", x, diagonal, expected=torch.diagflat(x, diagonal), layout=layout)


def test_slices_and_diagonals_say_what_is_wrong():
    x = torch.rand(4, 6)
    with pytest.raises(aclnn.Failed, match=r"steps\[1\] is 0"):
        aclnn.call("SliceV2", x, [0, 0], [4, 6], [0, 1], [1, 0], torch.rand(4, 6))
    with pytest.raises(aclnn.Failed, match="different sizes"):
        aclnn.call("SliceV2", x, [0, 0], [4], [0, 1], [1, 1], torch.rand(4, 6))
    with pytest.raises(aclnn.Failed, match="dimension 1 twice"):
        aclnn.call("SliceV2", x, [0, 0], [6, 6], [1, -1], [1, 1], torch.rand(4, 6))
    with pytest.raises(aclnn.Failed, match="axis is 3, expected a value in"):
        aclnn.call("Flatten", x, 3, torch.rand(24, 1))
    with pytest.raises(aclnn.Failed, match="out has shape"):
        aclnn.call("Diag", x, 0, torch.rand(5))
    with pytest.raises(aclnn.Failed, match="padding 5 of dimension 2 is larger than its size 4"):
        aclnn.call("CircularPad2d", torch.rand(1, 3, 4), [5, 0, 0, 0], torch.rand(1, 3, 9))


def test_repeat_of_many_dimensions():
    x = torch.rand(2, 3, 2, 2, 2)
    check("Repeat", x, [2, 2, 3, 2, 2], expected=x.repeat(2, 2, 3, 2, 2))
    s = torch.tensor(3.5)
    check("Repeat", s, [4], expected=s.repeat(4))
    check("Repeat", x, [1, 0, 1, 1, 1], expected=x.repeat(1, 0, 1, 1, 1))


@pytest.mark.parametrize("layout", LAYOUTS[:4])
@pytest.mark.parametrize("dtype", cases.ALL)
def test_strided_slice(dtype, layout):
    x = cases.tensor((4, 6, 5), dtype, layout)
    # x[1:4:2, ..., 2]
    check("StridedSlice", x, [1, 0, 2], [4, 0, 3], [2, 1, 1], 0, 0, 2, 0, 4, expected=x[1:4:2, ..., 2])
    # x[:, newaxis, 4:1:-1]
    check("StridedSlice", x, [0, 0, 4], [0, 0, 1], [1, 1, -1], 1, 1, 0, 2, 0, expected=x[:, None].flip(2)[:, :, 1:4])
    # x[::-1]
    check("StridedSlice", x, [0], [0], [-1], 1, 1, 0, 0, 0, expected=x.flip(0))
    check("StridedSlice", x, [-2], [-1], [1], 0, 0, 0, 0, 1, expected=x[-2])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", cases.ALL)
def test_repeat_interleave(dtype, layout):
    x = cases.tensor((3, 4, 5), dtype, layout)
    repeats = torch.tensor([2, 0, 3, 1])
    check("RepeatInterleaveWithDim", x, repeats, 1, 6, expected=x.repeat_interleave(repeats, 1), layout=layout)
    check("RepeatInterleaveIntWithDim", x, 3, -1, x.shape[0] * 60, expected=x.repeat_interleave(3, -1), layout=layout)
    check("RepeatInterleaveInt", x, 2, x.numel() * 2, expected=x.repeat_interleave(2), layout=layout)
    all_repeats = torch.arange(x.numel()) % 3
    check("RepeatInterleave", x, all_repeats, int(all_repeats.sum()), expected=x.repeat_interleave(all_repeats), layout=layout)
    check("RepeatInterleaveTensor", repeats, 6, expected=torch.repeat_interleave(repeats))
    with pytest.raises(aclnn.Failed, match="repeats add up to"):
        aclnn.call("RepeatInterleaveWithDim", torch.rand(4), repeats, 0, 7, torch.rand(7))


@pytest.mark.parametrize("dtype", cases.FLOATS)
def test_repeat_interleave_gradient(dtype):
    repeats = torch.tensor([2, 0, 3, 1])
    grad = cases.tensor((3, 6, 5), dtype)
    x = torch.zeros(3, 4, 5, dtype=torch.float64, requires_grad=True)
    x.repeat_interleave(repeats, 1).backward(cases.wide(grad))
    check("RepeatInterleaveGrad", grad, repeats, 1, expected=x.grad, dtype=dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", cases.ALL)
def test_constant_pad(dtype, layout):
    x = cases.tensor((3, 4, 5), dtype, layout)
    value = True if dtype == torch.bool else 3
    for pad in ([1, 2], [0, 1, 2, 0], [-1, 2, 1, -2, 1, 1], [-2, -1], [0, 0, 3, 3]):
        check("ConstantPadNd", x, pad, value, expected=F.pad(x, pad, value=value), layout=layout)


@pytest.mark.parametrize("mode, dims", [(m, d) for m in ("reflect", "replicate", "circular") for d in (1, 2, 3)
                                        if (m, d) != ("circular", 1)])
@pytest.mark.parametrize("dtype", [*cases.FLOATS, *cases.COMPLEX, torch.int8, torch.int32, torch.int64, torch.bool])
def test_edge_pads_and_gradients(dims, mode, dtype):
    name = {"reflect": "ReflectionPad", "replicate": "ReplicationPad", "circular": "CircularPad"}[mode]
    pad = [2, 1, 1, 3, 0, 2][:2 * dims]
    for shape in ((2, 3, 4, 5, 6)[: 1 + dims], (2, 3, 4, 5, 6)[: 2 + dims]):
        shape = (*shape[:-dims], *(4, 5, 6)[:dims])
        for layout in ("contiguous", "strided"):
            x = cases.tensor(shape, dtype, layout)
            if not (dtype.is_floating_point or dtype.is_complex):
                check(f"{name}{dims}d", x, pad, expected=F.pad(x.double(), pad, mode=mode).to(dtype), layout=layout)
                continue
            wide = cases.wide(x).requires_grad_()
            y = F.pad(wide, pad, mode=mode)
            check(f"{name}{dims}d", x, pad, expected=y.detach(), dtype=dtype, layout=layout)
            grad = cases.tensor(y.shape, dtype, layout, seed=1)
            y.backward(cases.wide(grad))
            check(f"{name}{dims}dBackward", grad, x, pad, expected=wide.grad, dtype=dtype, layout=layout)


@pytest.mark.parametrize("dtype", [*cases.REAL, torch.complex64])
def test_sequences(dtype):
    integral = not (dtype.is_floating_point or dtype.is_complex)
    check("Arange", 2, 30, 3, expected=torch.arange(2, 30, 3, dtype=dtype) if dtype != torch.complex64
          else torch.arange(2, 30, 3).to(dtype))
    check("Arange", 30, -9 if dtype != torch.uint8 else 2, -2,
          expected=torch.arange(30, -9 if dtype != torch.uint8 else 2, -2).to(dtype))
    if dtype.is_complex:
        check("Linspace", 1 + 2j, -3j, 7, expected=torch.linspace(1 + 2j, -3j, 7, dtype=torch.complex128), dtype=dtype)
        check("LogSpace", 1 + 2j, -3j, 7, 2.0, expected=torch.logspace(1 + 2j, -3j, 7, 2.0, dtype=torch.complex128), dtype=dtype)
        return
    check("Range", 2, 29, 3, expected=torch.arange(2, 30, 3, dtype=dtype))
    check("Linspace", 3, 90, 13, expected=torch.linspace(3, 90, 13, dtype=dtype if integral else torch.float64), dtype=dtype)
    check("Linspace", 3, 90, 1, expected=torch.linspace(3, 90, 1, dtype=torch.float64), dtype=dtype)
    if integral:  # every value is rounded once: 21 * 3 / 49 is below 9 / 7 in float32
        check("Linspace", 4, 7, 50, expected=torch.linspace(4, 7, 50, dtype=dtype))
        check("Linspace", 7, 0, 50, expected=torch.linspace(7, 0, 50, dtype=dtype))
    if not integral:
        check("Arange", 0.0, 1.0, 0.1, expected=torch.arange(0.0, 1.0, 0.1, dtype=torch.float64), dtype=dtype)
        check("LogSpace", 0.0, 3.0, 7, 2.0, expected=torch.logspace(0, 3, 7, 2.0, dtype=torch.float64), dtype=dtype)
    check("Arange", 0, 0, 1, expected=torch.arange(0, dtype=dtype))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", cases.ALL)
def test_triangles(dtype, layout):
    for shape in ((3, 5, 7), (6, 4)):
        x = cases.tensor(shape, dtype, layout)
        for diagonal in (0, -2, 3, 100, -100):
            check("Tril", x, diagonal, expected=x.tril(diagonal), layout=layout)
            check("Triu", x, diagonal, expected=x.triu(diagonal), layout=layout)
        if layout != "expanded":
            y = x.clone()
            aclnn.call("InplaceTriu", y, 1)
            assert torch.equal(y, x.triu(1))
            y = cases.lay(x.clone(), layout)
            aclnn.call("InplaceTril", y, -1)
            assert torch.equal(y, x.tril(-1))


@pytest.mark.parametrize("dtype", cases.ALL)
def test_eye_and_diagonal(dtype):
    for layout in ("contiguous", "transposed", "strided"):
        check("Eye", 5, 7, expected=torch.eye(5, 7, dtype=dtype), layout=layout)
    for shape in ((5, 7), (17, 3), (4, 4, 4)):
        for wrap in (False, True):
            x = cases.tensor(shape, dtype)
            expected = x.clone().fill_diagonal_(1, wrap)
            aclnn.call("InplaceFillDiagonal", x, 1, wrap)
            assert torch.equal(x, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_complex(dtype):
    for layout in ("contiguous", "transposed", "strided"):
        real, imag = cases.tensor((3, 5), dtype, layout), cases.tensor((3, 5), dtype, layout, seed=1)
        check("Complex", real, imag, expected=torch.complex(real, imag), layout=layout)


@pytest.mark.parametrize("dtype", [*cases.FLOATS, *cases.COMPLEX])
def test_windows(dtype):
    for kernel, dilation, padding, stride in (((2, 3), (1, 1), (0, 0), (1, 1)), ((3, 3), (2, 1), (2, 1), (2, 3))):
        for layout in ("contiguous", "strided"):
            x = cases.tensor((2, 3, 9, 8), dtype, layout)
            wide = cases.wide(x).requires_grad_()
            y = F.unfold(wide, kernel, dilation, padding, stride)
            check("Im2col", x, kernel, dilation, padding, stride, expected=y.detach(), dtype=dtype, layout=layout)
            grad = cases.tensor(y.shape, dtype, layout, seed=1)
            y.backward(cases.wide(grad))
            check("Im2colBackward", grad, [9, 8], kernel, dilation, padding, stride, expected=wide.grad, dtype=dtype, layout=layout)
    check("UnfoldGrad", torch.ones(1), [], 0, 1, 1, expected=torch.ones(()))
    for size, step in ((3, 1), (2, 4), (1, 1)):
        x = torch.zeros(4, 9, 3, dtype=torch.complex128 if dtype.is_complex else torch.float64, requires_grad=True)
        y = x.unfold(1, size, step)
        grad = cases.tensor(y.shape, dtype, seed=2)
        y.backward(cases.wide(grad))
        check("UnfoldGrad", grad, [4, 9, 3], 1, size, step, expected=x.grad, dtype=dtype)


def test_arange_with_dimensions_in_front():
    out = torch.empty(1, 1, 1, 10)
    aclnn.call("Arange", aclnn.Scalar(0.0, torch.float32), aclnn.Scalar(10.0, torch.float32), aclnn.Scalar(1.0, torch.float32), out)
    assert torch.equal(out.flatten(), torch.arange(10.0))
    with pytest.raises(aclnn.Failed, match=r"out has shape \[2,5\]"):
        aclnn.call("Arange", 0.0, 10.0, 1.0, torch.empty(2, 5))
