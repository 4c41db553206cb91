"""Functions of torch_npu that only the legacy operators (aclop) serve, against formulas of PyTorch on the CPU in float64.

Also PyTorch's own functions with jit compile, which sends them through the legacy operators, and private formats.
tests/sweep/sweep.py --legacy runs all of PyTorch's operator database that way.
"""

import copy
import math
import multiprocessing

import pytest
import torch
import torch_npu
from torch.nn import functional as F

NPU = torch.device("npu:0")


def randn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def near(actual, expected, rtol=1e-4, atol=1e-5):
    assert actual.shape == expected.shape
    torch.testing.assert_close(actual.cpu().double(), expected.double(), rtol=rtol, atol=atol)


def gradients(function, reference, *inputs, rtol=1e-4, atol=1e-5):
    """Results and gradients: of `function` on the device, of `reference` in float64."""
    answers = []
    for f, place in ((function, lambda x: x.to(NPU)), (reference, lambda x: x.double())):
        given = [place(x.detach()).requires_grad_() for x in inputs]
        out = f(*given)
        weight = torch.linspace(-1, 2, out.numel()).reshape(out.shape).to(out)
        out.backward(weight)
        answers.append([out.detach(), *(x.grad for x in given)])
    for mine, theirs in zip(*answers, strict=True):
        near(mine, theirs, rtol, atol)


@pytest.fixture
def jit_compile():
    torch.npu.set_compile_mode(jit_compile=True)
    yield
    torch.npu.set_compile_mode(jit_compile=False)


# Activations and elements


def test_silu():
    gradients(torch_npu.npu_silu, F.silu, randn(4, 9))


def test_mish():
    gradients(torch_npu.npu_mish, F.mish, randn(4, 9))


def test_fast_gelu():
    x = randn(5, 7)
    near(torch_npu.fast_gelu(x.npu()), x.double() * torch.sigmoid(1.702 * x.double()))


def test_dtype_cast():
    x = randn(3, 4)
    near(torch_npu.npu_dtype_cast(x.npu(), torch.float16), x.half(), 0, 0)


def test_masked_fill_range():
    x = randn(4, 32)
    start = torch.tensor([[0, 5, 2, 30], [8, 9, 10, 11]], dtype=torch.int32)
    end = torch.tensor([[3, 6, 2, 32], [9, 12, 11, 20]], dtype=torch.int32)
    value = torch.tensor([1.0, -2.0])
    expected = x.clone()
    for loop in range(2):
        for row in range(4):
            expected[row, start[loop, row]:end[loop, row]] = value[loop]
    near(torch_npu.npu_masked_fill_range(x.npu(), start.npu(), end.npu(), value.npu(), 1), expected, 0, 0)


# Shapes


def test_slice():
    x = randn(4, 5, 6)
    near(torch_npu.npu_slice(x.npu(), [1, 0, 2], [2, 5, 3]), x[1:3, :, 2:5], 0, 0)


def test_transpose():
    x = randn(2, 3, 5)
    near(torch_npu.npu_transpose(x.npu(), (2, 0, 1)), x.permute(2, 0, 1), 0, 0)


def test_broadcast():
    x = randn(3, 1)
    near(torch_npu.npu_broadcast(x.npu(), (2, 3, 4)), x.expand(2, 3, 4), 0, 0)


def test_pad():
    x = randn(2, 3)
    near(torch_npu.npu_pad(x.npu(), [1, 2, 0, 3]), F.pad(x, (0, 3, 1, 2)), 0, 0)


@pytest.mark.parametrize("first", [True, False])
def test_confusion_transpose(first):
    x = randn(2, 3, 4, 6)
    if first:
        expected = x.permute(0, 2, 1, 3).reshape(2, 4, 18)
        shape = (2, 4, 18)
    else:
        expected = x.reshape(2, 12, 3, 2).permute(0, 2, 1, 3)
        shape = (2, 12, 3, 2)
    near(torch_npu.npu_confusion_transpose(x.npu(), (0, 2, 1, 3), shape, first), expected, 0, 0)


def test_stride_copy():
    x = randn(4, 6)
    near(torch_npu.npu_stride_copy(x.npu(), (3, 2), (6, 2), 1), x.as_strided((3, 2), (6, 2), 1), 0, 0)


def test_stride_add():
    a, b = randn(2, 32, 3, 3), randn(2, 48, 3, 3, seed=1)
    out = torch_npu.npu_stride_add(a.npu(), b.npu(), 1, 2, 1).cpu()
    near(out[:, :16], a[:, 16:32].double() + b[:, 32:48].double())


# Reductions and order


@pytest.mark.parametrize("name", ["npu_max", "npu_min"])
def test_extremum_of_dimension(name):
    x = randn(4, 6)
    values, indices = getattr(torch_npu, name)(x.npu(), 1)
    expected = (torch.max if name == "npu_max" else torch.min)(x, 1)
    near(values, expected.values, 0, 0)
    assert torch.equal(indices.cpu().long(), expected.indices)


def test_sort_v2():
    x = randn(3, 17)
    near(torch_npu.npu_sort_v2(x.npu(), 1, True), x.sort(1, True).values, 0, 0)


def test_scatter():
    x, indices, updates = randn(4, 3), torch.tensor([2, 0, 1], dtype=torch.int32), randn(3, seed=1)
    near(torch_npu.npu_scatter(x.npu(), indices.npu(), updates.npu(), 0), x.scatter(0, indices[None].long(), updates[None]), 0, 0)


def test_one_hot():
    x = torch.tensor([5, 3, 2, 1], dtype=torch.int32)
    near(torch_npu.npu_one_hot(x.npu(), depth=6), F.one_hot(x.long(), 6), 0, 0)


# Products and convolutions


def test_bmm():
    a, b = randn(2, 3, 4), randn(2, 4, 5, seed=1)
    near(torch_npu.npu_bmmV2(a.npu(), b.npu(), []), a.double() @ b.double())


@pytest.mark.parametrize("groups", [1, 2])
def test_conv2d(groups):
    x, w, b = randn(2, 4, 9, 8), randn(6, 4 // groups, 3, 3, seed=1), randn(6, seed=2)
    near(torch_npu.npu_conv2d(x.npu(), w.npu(), b.npu(), (2, 1), (1, 2), (1, 1), groups),
         F.conv2d(x.double(), w.double(), b.double(), (2, 1), (1, 2), (1, 1), groups))


def test_conv3d():
    x, w, b = randn(1, 2, 5, 6, 7), randn(3, 2, 3, 3, 3, seed=1), randn(3, seed=2)
    near(torch_npu.npu_conv3d(x.npu(), w.npu(), b.npu(), (1, 2, 1), (1, 0, 1), (1, 1, 1), 1),
         F.conv3d(x.double(), w.double(), b.double(), (1, 2, 1), (1, 0, 1)))


def test_conv_transpose2d():
    x, w, b = randn(2, 4, 5, 6), randn(4, 3, 3, 3, seed=1), randn(3, seed=2)
    near(torch_npu.npu_conv_transpose2d(x.npu(), w.npu(), b.npu(), (1, 1), (1, 0), (2, 2), (1, 1), 1),
         F.conv_transpose2d(x.double(), w.double(), b.double(), (2, 2), (1, 1), (1, 0)))


# Losses, normalisations, dropout


def test_softmax_cross_entropy_with_logits():
    labels = F.softmax(randn(5, 7, seed=1).double(), 1)
    gradients(lambda x: torch_npu.npu_softmax_cross_entropy_with_logits(x, labels.float().npu()),
              lambda x: -(labels * F.log_softmax(x, 1)).sum(1), randn(5, 7))


def test_layer_norm_eval():
    x, w, b = randn(3, 4, 6), randn(6, seed=1), randn(6, seed=2)
    near(torch_npu.npu_layer_norm_eval(x.npu(), (6,), w.npu(), b.npu(), 1e-5),
         F.layer_norm(x.double(), (6,), w.double(), b.double(), 1e-5))


def test_deep_norm():
    x, gx, beta, gamma = randn(3, 4, 8), randn(3, 4, 8, seed=1), randn(8, seed=2), randn(8, seed=3)
    _, _, y = torch_npu.npu_deep_norm(x.npu(), gx.npu(), beta.npu(), gamma.npu(), 0.3, 1e-6)
    near(y, F.layer_norm(0.3 * x.double() + gx.double(), (8,), gamma.double(), beta.double(), 1e-6))


def test_dropout_with_byte_mask():
    x = torch.ones(4000)
    y, mask = torch_npu._npu_dropout_with_byte_mask(x.npu(), 0.3) if hasattr(torch_npu, "_npu_dropout_with_byte_mask") else \
        torch.ops.npu._dropout_with_byte_mask(x.npu(), 0.3)
    y, mask = y.cpu(), mask.cpu()
    assert torch.equal(y != 0, mask != 0)
    assert torch.allclose(y[y != 0], torch.tensor(1 / 0.7))
    assert abs((y != 0).float().mean().item() - 0.7) < 0.05


def test_float_status():
    status = torch_npu.npu_alloc_float_status(torch.ones(1).npu())
    assert status.shape == (8,) and not torch_npu.npu_get_float_status(status).cpu().any()


def test_random_choice_with_mask():
    x = rand(8, 9) > 0.6
    places, mask = (t.cpu() for t in torch_npu.npu_random_choice_with_mask(x.npu(), 50, 3, 0))
    count = int(x.sum())
    assert mask.sum() == min(count, 50) and mask[:count].all()
    chosen = places[mask]
    assert len({tuple(p.tolist()) for p in chosen}) == len(chosen) and all(x[tuple(p.tolist())] for p in chosen)


# Boxes


def boxes(n, seed, centre=False):
    """[4, n]: corners, or centre and size."""
    xy, size = rand(2, n, seed=seed) * 10, rand(2, n, seed=seed + 50) * 6 + 0.5
    return torch.cat([xy + size / 2, size] if centre else [xy, xy + size])


def corners(b, centre):
    return (b[0] - b[2] / 2, b[1] - b[3] / 2, b[0] + b[2] / 2, b[1] + b[3] / 2) if centre else tuple(b)


def overlap(a, b, kind, centre):
    """The definitions of the GIoU, DIoU and CIoU papers, pairwise; CIoU's weight is a constant."""
    ax1, ay1, ax2, ay2 = corners(a, centre)
    bx1, by1, bx2, by2 = corners(b, centre)
    inner = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp(0) * (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp(0)
    union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - inner
    iou = inner / union
    w, h = torch.maximum(ax2, bx2) - torch.minimum(ax1, bx1), torch.maximum(ay2, by2) - torch.minimum(ay1, by1)
    if kind == "giou":
        return iou - (w * h - union) / (w * h)
    distance = ((ax1 + ax2 - bx1 - bx2) / 2) ** 2 + ((ay1 + ay2 - by1 - by2) / 2) ** 2
    diou = iou - distance / (w ** 2 + h ** 2)
    if kind == "diou":
        return diou
    v = 4 / math.pi ** 2 * (torch.atan((bx2 - bx1) / (by2 - by1)) - torch.atan((ax2 - ax1) / (ay2 - ay1))) ** 2
    with torch.no_grad():
        weight = v / (1 - iou + v)
    return diou - weight * v


def npu_overlap(kind, a, b, centre, cross):
    out = getattr(torch_npu, "npu_" + kind)(a, b, trans=centre, is_cross=cross, mode=0)
    return out.t() if kind == "giou" else out  # torch_npu transposes giou's result


@pytest.mark.parametrize("kind", ["giou", "diou", "ciou"])
@pytest.mark.parametrize("centre", [False, True])
@pytest.mark.parametrize("cross", [False, True])
def test_overlaps(kind, centre, cross):
    if kind == "giou" and (cross or not centre):
        pytest.skip("torch_npu refuses it")
    a, b = boxes(6, 1, centre), boxes(6, 2, centre)
    x, y = a.double(), b.double()
    expected = overlap(x[:, None, :], y[:, :, None], kind, centre) if cross else overlap(x, y, kind, centre)[None]
    near(npu_overlap(kind, a.npu(), b.npu(), centre, cross), expected)


@pytest.mark.parametrize("kind", ["giou", "diou", "ciou"])
def test_gradients_of_overlaps(kind):
    gradients(lambda a, b: npu_overlap(kind, a, b, True, False), lambda a, b: overlap(a, b, kind, True)[None], boxes(9, 3, True),
              boxes(9, 4, True), rtol=1e-3, atol=1e-4)


def test_iou():
    a, b = (boxes(5, 5) * 4).t().contiguous(), (boxes(4, 6) * 4).t().contiguous()
    x, y = a.double()[None], b.double()[:, None]
    inner = (torch.minimum(x[..., 2], y[..., 2]) - torch.maximum(x[..., 0], y[..., 0])).clamp(0) * \
        (torch.minimum(x[..., 3], y[..., 3]) - torch.maximum(x[..., 1], y[..., 1])).clamp(0)
    area = lambda v: (v[..., 2] - v[..., 0]) * (v[..., 3] - v[..., 1])  # noqa: E731
    # Computed in float16, with 0.01 added to every side.
    near(torch_npu.npu_ptiou(a.npu(), b.npu()), inner / (area(x) + area(y) - inner), rtol=2e-2, atol=1e-2)


def test_bounding_boxes():
    # The examples of torch_npu's documentation.
    rois, deltas = torch.tensor([[1.0, 2, 3, 4], [3, 4, 5, 6]]), torch.tensor([[5.0, 6, 7, 8], [7, 8, 9, 6]])
    out = torch_npu.npu_bounding_box_decode(rois.npu(), deltas.npu(), 0, 0, 0, 0, 1, 1, 1, 1, (10, 10), 0.1)
    near(out, torch.tensor([[2.5, 6.5, 9, 9], [9, 9, 9, 9]]))
    out = torch_npu.npu_bounding_box_encode(rois.npu(), deltas.npu(), 0, 0, 0, 0, 0.1, 0.1, 0.2, 0.2)
    near(out, torch.tensor([[13.3281, 13.3281, 0, 0], [13.3281, 6.6641, 0, -5.4922]]), rtol=1e-3, atol=1e-3)


def test_rotated_box_coding():
    weight = torch.ones(5).npu()
    anchor = torch.tensor([[[30.69], [32.6], [45.94], [59.88], [-44.53]]])
    truth = torch.tensor([[[30.44], [18.72], [33.22], [45.56], [8.5]]])
    delta = torch_npu.npu_rotated_box_encode(anchor.npu(), truth.npu(), weight)
    near(delta, torch.tensor([[[-0.4253], [-0.5166], [-1.7021], [-0.0162], [1.1328]]]), rtol=2e-3, atol=1e-3)
    near(torch_npu.npu_rotated_box_decode(anchor.npu(), delta, weight), truth, rtol=1e-3, atol=1e-3)


def shared_area(a, b, step=0.01):
    """The area that two rotated boxes (x, y, w, h, degrees) share, counted on a grid."""
    axis = torch.arange(-8, 8, step, dtype=torch.float64) + step / 2
    x, y = torch.meshgrid(axis, axis, indexing="xy")
    inside = torch.ones_like(x, dtype=torch.bool)
    for cx, cy, w, h, angle in (a.tolist(), b.tolist()):
        c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        u, v = (x - cx) * c + (y - cy) * s, -(x - cx) * s + (y - cy) * c
        inside &= (u.abs() <= w / 2) & (v.abs() <= h / 2)
    return inside.sum().item() * step * step


def test_rotated_overlaps():
    centre, size, angle = rand(1, 4, 2, seed=8) * 3 - 1.5, rand(1, 4, 2, seed=9) * 3 + 1, rand(1, 4, 1, seed=10) * 180 - 90
    a = torch.cat([centre, size, angle], 2)
    b = a.flip(1) + torch.tensor([0.3, -0.2, 0.5, 0.1, 20])
    expected = torch.tensor([[shared_area(p, q) for q in b[0].double()] for p in a[0].double()])[None]
    near(torch_npu.npu_rotated_overlaps(a.npu(), b.npu(), False), expected, rtol=1e-2, atol=5e-2)
    areas = a[0, :, 2] * a[0, :, 3], b[0, :, 2] * b[0, :, 3]
    union = areas[0][:, None] + areas[1][None] - expected[0]
    near(torch_npu.npu_rotated_iou(a.npu(), b.npu(), False, 0, True), expected / union, rtol=2e-2, atol=1e-2)


def plain_nms(b, scores, threshold, score_threshold, most):
    kept = []
    for i in scores.argsort(descending=True).tolist():
        if scores[i] <= score_threshold or len(kept) == most:
            continue
        if all(overlap_iou(b[i], b[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


def overlap_iou(a, b):
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inner = max(w, 0) * max(h, 0)
    return inner / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inner)


def test_nms():
    b, scores = boxes(40, 11).t().contiguous(), rand(40, seed=12)
    kept = plain_nms(b.double().tolist(), scores, 0.3, 0.2, 12)
    selected, valid = torch_npu.npu_nms_v4(b.npu(), scores.npu(), 12, torch.tensor(0.3).npu(), torch.tensor(0.2).npu())
    assert valid.item() == len(kept) and selected.cpu()[:len(kept)].tolist() == kept


def test_nms_with_mask():
    b, scores = boxes(16, 13).t(), rand(16, seed=14).sort(descending=True).values
    rows = torch.cat([b, scores[:, None], torch.zeros(16, 3)], 1).half()
    out, index, mask = torch_npu.npu_nms_with_mask(rows.npu(), 0.3)
    kept = plain_nms(rows[:, :4].double().tolist(), torch.linspace(1, 0.5, 16), 0.3, 0, 16)
    near(out, rows[:, :5], 0, 0)
    assert mask.cpu().nonzero().flatten().tolist() == sorted(kept) and index.cpu().tolist() == list(range(16))


def test_rotated_nms():
    centre, size = rand(12, 2, seed=15) * 4 - 2, rand(12, 2, seed=16) * 2 + 1
    dets = torch.cat([centre, size, rand(12, 1, seed=17) * 90], 1)
    scores = rand(12, seed=18)
    kept = []
    for i in scores.argsort(descending=True).tolist():
        areas = [float(d[2] * d[3]) for d in dets]
        shares = [shared_area(dets[i].double(), dets[j].double(), 0.02) for j in kept]
        if scores[i] > 0.1 and all(s / (areas[i] + areas[j] - s) <= 0.2 for s, j in zip(shares, kept)):
            kept.append(i)
    index, number = torch_npu.npu_nms_rotated(dets.npu(), scores.npu(), 0.2, 0.1)
    assert index.cpu().tolist() == kept and number.item() == len(kept)


def test_anchor_response_flags():
    truths = boxes(5, 19).t().contiguous() * 2
    flags = torch_npu.npu_anchor_response_flags(truths.npu(), [16, 16], [2, 2], 3).cpu().reshape(16, 16, 3)
    expected = torch.zeros(16, 16, 3, dtype=torch.uint8)
    for t in truths:
        expected[int((t[1] + t[3]) / 2 // 2), int((t[0] + t[2]) / 2 // 2)] = 1
    assert torch.equal(flags, expected)


def test_sign_bits():
    a = torch.tensor([5, 4, 3, 2, 0, -1, -2, 4, 3, 2, 1, 0, -1, -2], dtype=torch.float32)
    packed = torch_npu.npu_sign_bits_pack(a.npu(), 2)
    assert packed.cpu().tolist() == [[159], [15]]
    signs = torch_npu.npu_sign_bits_unpack(packed.flatten(), 2, torch.float32).cpu().flatten()
    assert signs[:14].tolist() == [1 if v >= 0 else -1 for v in a]


def test_roi_align():
    # The example of torch_npu's documentation.
    x = torch.arange(1, 37, dtype=torch.float32).reshape(1, 1, 6, 6)
    rois = torch.tensor([[0, -2.0, -2, 22, 22]])
    out = torch_npu.npu_roi_align(x.npu(), rois.npu(), 0.25, 3, 3, 2, 0)
    near(out, torch.tensor([[[[4.5, 6.5, 8.5], [16.5, 18.5, 20.5], [28.5, 30.5, 32.5]]]]))


def test_normalize_batch():
    x, lengths = randn(2, 3, 6), torch.tensor([4, 6], dtype=torch.int32)
    expected = torch.stack([(v - v[:, :n].mean(1, True)) / (v[:, :n].std(1, keepdim=True) + 1e-5)
                            for v, n in zip(x.double(), lengths.tolist())])
    near(torch_npu.npu_normalize_batch(x.npu(), lengths.npu(), 0), expected)


def test_dropout_with_add_softmax():
    a, b = randn(2, 4, 8, 16), randn(2, 4, 8, 16, seed=1)
    mask, softmax, out = torch_npu.npu_dropout_with_add_softmax(a.npu(), b.npu(), 0.5, 0.3, -1)
    expected = F.softmax(b.double() + 0.5 * a.double(), -1)
    near(softmax, expected)
    near(out, expected * mask.cpu().reshape(expected.shape) / 0.7)


# Recurrent cells


@pytest.mark.parametrize("kind", [torch.nn.LSTM, torch.nn.GRU])
def test_recurrent(jit_compile, kind):
    torch.manual_seed(0)
    net = kind(5, 6, 2)
    x, answers = randn(4, 3, 5), []
    for model, device in ((copy.deepcopy(net).to(NPU), NPU), (net.double(), "cpu")):
        given = x.to(device, next(model.parameters()).dtype).requires_grad_()
        out, _ = model(given)
        (out * torch.linspace(-1, 2, out.numel()).reshape(out.shape).to(out)).sum().backward()
        answers.append([out.detach().cpu(), given.grad.cpu(), *(p.grad.cpu() for p in model.parameters())])
    for npu, cpu in zip(*answers, strict=True):
        near(npu, cpu, 2e-3, 2e-3)  # torch_npu computes in float16


# Private formats: logical values survive, and operators read and write the blocked layout.


@pytest.fixture
def internal_formats():
    torch.npu.config.allow_internal_format = True
    yield
    torch.npu.config.allow_internal_format = False


@pytest.mark.parametrize("format,shape", [(29, (5, 20)), (29, (2, 17, 33)), (3, (2, 5, 3, 4)), (4, (6, 20, 3, 3))])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_private_formats(internal_formats, format, shape, dtype):
    x = randn(*shape, dtype=dtype)
    cast = torch_npu.npu_format_cast(x.npu(), format)
    assert torch_npu.get_npu_format(cast) == format
    near(torch_npu.npu_format_cast(cast, 2 if format == 29 else 0), x, 0, 0)
    near(cast, x, 0, 0)
    near(cast.abs(), x.abs(), 0, 0)
    near(cast + cast, 2 * x.double(), 1e-3, 1e-3)


def test_shapes_decided_by_data(jit_compile):
    x = torch.tensor([[1.0, 0, 2], [0, 3, 3]])
    near(torch.nonzero(x.npu()), torch.nonzero(x), 0, 0)
    near(torch.masked_select(x.npu(), x.npu() > 1), torch.masked_select(x, x > 1), 0, 0)
    values, counts = torch.unique_consecutive(x.npu(), return_counts=True)
    expected = torch.unique_consecutive(x, return_counts=True)
    near(values, expected[0], 0, 0)
    near(counts, expected[1], 0, 0)


def train():
    torch.npu.set_compile_mode(jit_compile=True)
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
                              torch.nn.Flatten(), torch.nn.Linear(8 * 16, 10))
    x, y = randn(4, 3, 8, 8), torch.tensor([1, 3, 0, 7])
    answers = []
    for model, device in ((copy.deepcopy(net).to(NPU), NPU), (net.double(), "cpu")):
        loss = F.cross_entropy(model(x.to(device, next(model.parameters()).dtype)), y.to(device))
        loss.backward()
        answers.append([loss.detach().cpu(), *(p.grad.cpu().clone() for p in model.parameters()), model[1].running_var.cpu().clone()])
    for npu, cpu in zip(*answers, strict=True):
        near(npu, cpu, 2e-4, 2e-5)


def test_training_step():
    """Loss and gradients of a network with convolution, batch normalisation and pooling. In a new process: torch_npu's
    backward thread keeps the compile mode in which it first ran."""
    process = multiprocessing.get_context("spawn").Process(target=train)
    process.start()
    process.join()
    assert process.exitcode == 0
