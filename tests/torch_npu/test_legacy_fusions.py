"""Legacy fusions and detection operators of torch_npu (aclop) against formulas of PyTorch and torchvision on the CPU in float64.

The other legacy operators: test_legacy.py.
"""

import itertools
import math

import numpy
import pytest
import torch
import torch_npu
import torchvision
from torch.nn import functional as F

from test_legacy import NPU, near, rand, randn

HALF = dict(rtol=4e-3, atol=4e-3)  # results are stored as float16


def heads(rows, batch, count):
    """[batch * length, count * size] as [batch, count, length, size]."""
    return rows.reshape(batch, rows.shape[0] // batch, count, -1).transpose(1, 2)


def rows(x):
    return x.transpose(1, 2).reshape(x.shape[0] * x.shape[2], -1)


# Attention in parts


def test_attention_layernorm_qkv():
    x, gamma, beta = randn(12, 32, dtype=torch.float16), rand(32).half(), rand(32, seed=1).half()
    kernels = [0.2 * randn(32, 32, seed=i, dtype=torch.float16) for i in range(3)]
    biases = [randn(32, seed=5 + i, dtype=torch.float16) for i in range(3)]
    norm, *projected, mean, variance = torch_npu.npu_fused_attention_layernorm_qkv_fwd(
        x.npu(), *(k.npu() for k in kernels), gamma.npu(), beta.npu(), *(b.npu() for b in biases), seq_len=6, num_heads=4)
    expected = F.layer_norm(x.double(), (32,), gamma.double(), beta.double())
    near(norm, expected, **HALF)
    for mine, kernel, bias in zip(projected, kernels, biases, strict=True):
        near(mine, heads(norm.cpu().double() @ kernel.double() + bias.double(), 2, 4), **HALF)
    near(mean, x.double().mean(1), **HALF)
    near(variance, x.double().var(1, correction=0), **HALF)


def test_attention_qkv_gradients():
    grads = [randn(10, 16, seed=i, dtype=torch.float16) for i in range(3)]
    kernels = [randn(16, 16, seed=5 + i, dtype=torch.float16) for i in range(3)]
    x, norm_grad = randn(10, 16, seed=8, dtype=torch.float16), randn(10, 16, seed=9, dtype=torch.float16)
    dx, *rest = torch_npu.npu_fused_attention_qkv_grad(*(g.npu() for g in grads), *(k.npu() for k in kernels), x.npu(), norm_grad.npu())
    near(dx, norm_grad.double() + sum(g.double() @ k.double().T for g, k in zip(grads, kernels)), rtol=4e-3, atol=3e-2)
    for dw, g in zip(rest[:3], grads):
        near(dw, x.double().T @ g.double(), rtol=4e-3, atol=2e-2)
    for db, g in zip(rest[3:], grads):
        near(db, g.double().sum(0), rtol=4e-3, atol=1e-2)


@pytest.mark.parametrize("keep", [1.0, 0.6])
def test_attention_score(keep):
    q, k, v = (randn(2, 3, 8, 16, seed=i, dtype=torch.float16) for i in range(3))
    mask, scale = randn(2, 1, 8, 8, seed=3, dtype=torch.float16), 0.25
    score, softmax, dropped = torch_npu.npu_fused_attention_score_fwd(q.npu(), k.npu(), v.npu(), mask.npu(), scale, keep)
    given = [x.double().requires_grad_() for x in (q, k, v)]
    p = torch.softmax(given[0] @ given[1].transpose(-1, -2) * scale + mask.double(), -1)
    near(softmax, p.detach(), **HALF)
    kept = dropped.cpu().reshape(p.shape) != 0
    assert kept.all() if keep == 1 else abs(kept.double().mean() - keep) < 0.1
    expected = rows((p * kept / keep) @ given[2])
    near(score, expected.detach(), **HALF)
    grad = randn(*score.shape, seed=7, dtype=torch.float16)
    expected.backward(grad.double())
    for backward in (torch_npu.npu_fused_attention_score_grad, torch_npu.npu_fused_attention_score_backward):
        gradients = backward(grad.npu(), softmax, q.npu(), k.npu(), v.npu(), dropped, scale, keep)
        for mine, theirs in zip(gradients, given, strict=True):
            near(mine.cpu() if mine.dim() == 4 else heads(mine.cpu(), 2, 3), theirs.grad, rtol=6e-3, atol=8e-3)


@pytest.mark.parametrize("dropout,biased,wide", [(0.0, True, True), (0.5, True, False), (0.25, False, True)])
def test_multi_head_attention(dropout, biased, wide):
    batch, count, size, target, source = 2, 16, 16, 16, 32
    width = count * size
    halves = lambda *shape, seed, by=1.0: (by * randn(*shape, seed=seed)).half()
    inputs = [halves(batch * n, width, seed=i) for i, n in enumerate((target, source, source))]
    weights = [halves(width, width, seed=4 + i, by=1 / 16) for i in range(4)]
    biases = [halves(width, seed=9 + i) if biased else None for i in range(4)]
    mask = halves(batch, count, target, source, seed=20)
    npu = [None if t is None else t.npu().requires_grad_() for t in (*inputs, *weights, *biases)]
    result = torch_npu.npu_multi_head_attention(*npu[:6], mask.npu(), npu[6], *npu[7:], None, count, size, source, target, dropout, wide)
    y, bits, q_res, _, _, scores, attention, context = result

    cpu = [None if t is None else t.double().requires_grad_() for t in (*inputs, *weights, *biases)]
    q, k, v = (heads(F.linear(cpu[i], cpu[3 + i], cpu[7 + i]), batch, count) for i in range(3))
    q = q / math.sqrt(size)
    p = torch.softmax(q @ k.transpose(-1, -2) + mask.double(), -1)
    kept = torch.from_numpy(numpy.unpackbits(bits.cpu().numpy(), bitorder="little")[:p.numel()].copy()).reshape(p.shape)
    assert kept.all() if dropout == 0 else abs(kept.double().mean() - (1 - dropout)) < 0.03
    expected = F.linear(rows((p * kept / (1 - dropout)) @ v), cpu[6], cpu[10])
    assert scores.dtype == (torch.float32 if wide else torch.float16)
    near(q_res, q.detach(), **HALF)
    near(scores, p.detach(), **HALF)
    near(attention, (p * kept / (1 - dropout)).detach(), **HALF)
    near(y, expected.detach(), rtol=1e-2, atol=1e-2)
    assert context.shape == (batch * target, width)

    if biased:  # without biases torch_npu's own backward fails: it makes their gradients like tensors that aren't there
        grad = halves(*y.shape, seed=30, by=0.1)
        y.backward(grad.npu())
        expected.backward(grad.double())
        for mine, theirs in zip(npu, cpu, strict=True):
            # A key's bias moves all scores of a query alike, so its gradient is what rounding leaves of 0.
            near(mine.grad.reshape(theirs.shape), theirs.grad, rtol=2e-2, atol=1e-3 + 2e-2 * float(theirs.grad.abs().max()))


def mla_reference(x, w_dq, w_uq_qr, w_uk, w_dkv_kr, gamma_q, gamma_k, sin, cos, epsilon, smooth=None, dequant=None):
    """Query, its rotary part, and each token's rows of the two caches: float64 within a step, bfloat16 between the
    query's steps, as the operator is defined. (With 8-bit levels a rounding more or less moves a level.)"""
    between = lambda v: v.bfloat16().double()

    def norm(v, gamma):
        return v / torch.sqrt((v * v).mean(-1, keepdim=True) + epsilon) * gamma.double()

    def turn(v):  # neighbouring numbers are the pairs
        pairs = v.unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(-2)
        half = v.shape[-1] // 2
        c, s = cos.double(), sin.double()
        if v.dim() == 3:
            c, s = c.unsqueeze(1), s.unsqueeze(1)
        return pairs * c + torch.cat((-pairs[..., half:], pairs[..., :half]), -1) * s

    n, d, low = w_uk.shape
    compressed = norm(between(x.double() @ w_dq.double()), gamma_q)
    if dequant is not None:
        smoothed = compressed * (1 if smooth is None else smooth.double())
        scale = smoothed.abs().amax(-1, keepdim=True) / 127
        both = (smoothed / scale).round() @ w_uq_qr.double() * scale * dequant.double()
    else:
        both = between(between(compressed) @ w_uq_qr.double())
    both = both.unflatten(-1, (n, -1))
    key = x.double() @ w_dkv_kr.double()
    query = torch.einsum("tnd,ndh->tnh", between(both[..., :d]), w_uk.double())
    return query, turn(both[..., d:]), norm(key[:, :low], gamma_k), turn(key[:, low:])


@pytest.mark.parametrize("quantised,mode", [(False, "PA_BSND"), (False, "PA_NZ"), (True, "PA_BSND"), (True, "PA_NZ")])
def test_mla_prolog(quantised, mode):
    b, s, hidden, low_q, n, d, low_k, rotary, blocks, block = 3, 2, 48, 32, 4, 16, 64, 32, 3, 16
    bf = lambda *shape, seed, by=1.0: (by * randn(*shape, seed=seed)).bfloat16()
    x = bf(b, s, hidden, seed=0)
    w_dq, w_uk, w_dkv_kr = bf(hidden, low_q, seed=1, by=0.2), bf(n, d, low_k, seed=2, by=0.2), bf(hidden, low_k + rotary, seed=3, by=0.2)
    w_uq_qr = bf(low_q, n * (d + rotary), seed=4, by=0.2)
    extra, dequant, smooth = {}, None, None
    if quantised:
        w_uq_qr = torch.randint(-127, 128, w_uq_qr.shape, generator=torch.Generator().manual_seed(0), dtype=torch.int8)
        dequant, smooth = 0.002 + 0.001 * rand(1, w_uq_qr.shape[1]), 0.5 + rand(1, low_q, seed=1)
        extra = dict(dequant_scale_w_uq_qr=dequant.npu(), smooth_scales_cq=smooth.npu(), quant_scale_ckv=20 + rand(1, low_k, seed=2).npu(),
                     quant_scale_ckr=10 + rand(1, rotary, seed=3).npu())
    gamma_q, gamma_k, sin, cos = bf(low_q, seed=5), bf(low_k, seed=6), bf(b, s, rotary, seed=7), bf(b, s, rotary, seed=8)
    index = torch.tensor([[5, 40], [0, 17], [-1, 31]])
    made = torch.int8 if quantised else torch.bfloat16
    caches = [torch.zeros(blocks, block, 1, width, dtype=made, device=NPU) for width in (low_k, rotary)]
    query, query_rope, *outs = torch_npu.npu_mla_prolog(
        *(t.npu() for t in (x, w_dq, w_uq_qr, w_uk, w_dkv_kr, gamma_q, gamma_k, sin, cos, index)), *caches, **extra, cache_mode=mode)
    flat = lambda t: t.reshape(b * s, -1)
    expected = mla_reference(flat(x), w_dq, w_uq_qr, w_uk, w_dkv_kr, gamma_q, gamma_k, flat(sin), flat(cos), 1e-5, smooth, dequant)
    near(query.flatten(0, 1), expected[0], rtol=1e-2, atol=2e-2)
    near(query_rope.flatten(0, 1), expected[1], rtol=1e-2, atol=2e-2)
    stripe = 32 if quantised else 16
    for cache, out, values, name in zip(caches, outs, expected[2:], ("quant_scale_ckv", "quant_scale_ckr"), strict=True):
        assert torch.equal(cache.cpu(), out.cpu())
        width = values.shape[1]
        stored = out.cpu().reshape(blocks, block * width)
        if mode == "PA_NZ":
            stored = stored.reshape(blocks, width // stripe, block, stripe).transpose(1, 2)
        stored = stored.reshape(blocks * block, width).double()
        written = {}
        for token, slot in enumerate(index.flatten().tolist()):
            if slot >= 0:
                written[slot] = values[token]
        for slot in range(blocks * block):
            wanted = written.get(slot, torch.zeros(width))
            if quantised and slot in written:
                near(stored[slot], (wanted * extra[name].cpu().double()[0]).round().clamp(-128, 127), 0, 1)
            else:
                near(stored[slot], wanted, 1e-2, 1e-2)


# Convolutions


@pytest.mark.parametrize("groups,kernel,stride,pad,dilation", [(1, 3, 1, 1, 1), (2, 3, 2, 2, 2), (2, 2, 1, 0, 1)])
def test_deformable_conv2d(groups, kernel, stride, pad, dilation):
    n, channels, size, taps = 2, 4, 9, kernel * kernel
    out = (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
    x, weight = randn(n, channels, size, size), randn(6, channels, kernel, kernel, seed=1)
    offset = 2 * randn(n, 3 * groups * taps, out, out, seed=2)
    npu = [t.npu().requires_grad_() for t in (x, weight, offset)]
    y, samples = torch_npu.npu_deformable_conv2d(npu[0], npu[1], npu[2], None, kernel_size=[kernel] * 2, stride=[1, 1, stride, stride],
                                                 padding=[pad] * 4, dilation=[1, 1, dilation, dilation], deformable_groups=groups)
    cpu = [t.double().requires_grad_() for t in (x, weight, offset)]
    columns, lines, mask = cpu[2].reshape(n, 3, groups * taps, out, out).unbind(1)
    moves = torch.stack((lines, columns), 2).reshape(n, -1, out, out)
    expected = torchvision.ops.deform_conv2d(cpu[0], moves, cpu[1], stride=stride, padding=pad, dilation=dilation, mask=mask)
    near(y.detach(), expected.detach(), 1e-3, 1e-3)
    assert samples.shape == (n, channels, out * kernel, out * kernel)
    grad = randn(*y.shape, seed=3)
    y.backward(grad.npu())
    expected.backward(grad.double())
    for mine, theirs in zip(npu, cpu, strict=True):
        near(mine.grad, theirs.grad, 1e-3, 1e-3)


@pytest.mark.parametrize("groups,biased", [(1, True), (2, False)])
def test_quant_conv2d(groups, biased):
    generator = torch.Generator().manual_seed(0)
    numbers = lambda *shape: torch.randint(-128, 128, shape, generator=generator, dtype=torch.int8)
    x, weight = numbers(2, 4, 7, 6), numbers(6, 4 // groups, 3, 2)
    scale = 0.001 + 0.01 * rand(6)
    bias = torch.randint(-10000, 10000, (6,), generator=generator, dtype=torch.int32) if biased else None
    bits = torch.from_numpy(scale.numpy().view(numpy.uint32).astype(numpy.int64))
    y = torch_npu.npu_quant_conv2d(x.npu(), weight.npu(), bits.npu(), [2, 1], [1, 1], [1, 2], groups, 0, "rint", 5,
                                   None if bias is None else bias.npu())
    sums = F.conv2d(x.double(), weight.double(), None if bias is None else bias.double(), (2, 1), (1, 1), (1, 2), groups)
    near(y, sums * scale.double().reshape(1, -1, 1, 1), 1e-3, 1e-3)


# Detection


def pooled(x, rois, scale, group, channels, gradient=None):
    """R-FCN's pooling by its definition; with a gradient of the result, the gradient of x."""
    images, _, height, width = x.shape
    batch, _, count = rois.shape
    out, back = torch.zeros(batch * count, channels, group, group, dtype=torch.float64), torch.zeros_like(x, dtype=torch.float64)
    for k, (image, x1, y1, x2, y2) in enumerate(rois.transpose(1, 2).reshape(-1, 5).tolist()):
        left, top = round(x1) * scale, round(y1) * scale
        w, h = max((round(x2) + 1) * scale - left, 0.1) / group, max((round(y2) + 1) * scale - top, 0.1) / group
        for c, i, j in itertools.product(range(channels), range(group), range(group)):
            r0, r1 = (min(max(v, 0), height) for v in (math.floor(top + i * h), math.ceil(top + (i + 1) * h)))
            c0, c1 = (min(max(v, 0), width) for v in (math.floor(left + j * w), math.ceil(left + (j + 1) * w)))
            if r1 > r0 and c1 > c0:
                channel, area = (c * group + i) * group + j, (r1 - r0) * (c1 - c0)
                out[k, c, i, j] = x[int(image), channel, r0:r1, c0:c1].double().mean()
                if gradient is not None:
                    back[int(image), channel, r0:r1, c0:c1] += gradient[k, c, i, j].double() / area
    return out if gradient is None else back


def test_ps_roi_pooling():
    x = randn(2, 2 * 9, 12, 10, dtype=torch.float16)
    rois = torch.tensor([[[0, 2, 3, 14, 15], [0, 0, 0, 19, 23], [0, 5.6, 7.2, 5.9, 7.3]],
                         [[1, -3, -2, 9, 8], [1, 30, 30, 50, 50], [1, 4, 6, 60, 70]]], dtype=torch.float16).transpose(1, 2).contiguous()
    y = torch_npu.npu_ps_roi_pooling(x.npu(), rois.npu(), 0.5, 3, 2)
    near(y, pooled(x, rois, 0.5, 3, 2), **HALF)
    grad = randn(*y.shape, seed=1, dtype=torch.float16)
    back = torch_npu.npu_ps_roi_pooling_backward(grad.npu(), rois.npu(), 0.5, 3, 2, [12, 10])
    near(back, pooled(x, rois, 0.5, 3, 2, grad), **HALF)


def test_ps_roi_pooling_of_a_missing_image():
    rois = torch.tensor([[[0], [1], [1], [3], [3]], [[6], [1], [1], [3], [3]]], dtype=torch.float32)
    with pytest.raises(RuntimeError, match="image 6"):
        torch_npu.npu_ps_roi_pooling(randn(2, 4, 8, 8).npu(), rois.npu(), 1.0, 2, 1)
        torch.npu.synchronize()


@pytest.mark.parametrize("shared,transposed", [(True, False), (False, False), (False, True)])
def test_batch_nms(shared, transposed):
    images, n, classes, per_class, total = 2, 20, 3, 4, 9
    corner = 6 * rand(images, n, 1 if shared else classes, 2)
    boxes = torch.cat((corner, corner + 1 + 3 * rand(*corner.shape, seed=1)), -1)
    scores = rand(images, n, classes, seed=2)
    given = boxes.permute(0, 2, 3, 1).contiguous() if transposed else boxes
    result = [t.cpu() for t in torch_npu.npu_batch_nms(given.npu(), scores.npu(), 0.3, 0.4, per_class, total, transpose_box=transposed)]
    for i in range(images):
        found = []
        for label in range(classes):
            mine, s = boxes[i, :, 0 if shared else label], scores[i, :, label]
            strong = torch.nonzero(s > 0.3).flatten()
            kept = strong[torchvision.ops.nms(mine[strong], s[strong], 0.4)][:per_class]
            found += [(float(s[k]), label, mine[k]) for k in kept]
        found.sort(key=lambda f: -f[0])
        found = found[:total]
        assert int(result[3][i]) == len(found)
        for k in range(total):
            score, label, box = found[k] if k < len(found) else (0.0, 0, torch.zeros(4))
            assert (float(result[1][i, k]), float(result[2][i, k])) == (score, label)
            assert torch.equal(result[0][i, k], box)


@pytest.mark.parametrize("per_image,fraction", [(20, 0.25), (20, 1.0), (1000, 0.5), (0, 0.5)])
def test_sub_sample(per_image, fraction):
    labels = torch.randint(-1, 3, (400,), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    y = torch_npu.npu_sub_sample(labels.npu(), per_image, fraction).cpu()
    kept = y != -1
    assert torch.equal(y[kept], labels[kept])
    objects = min(int(per_image * fraction), int((labels > 0).sum()))
    assert int((y > 0).sum()) == objects
    assert int((y == 0).sum()) == min(per_image - objects, int((labels == 0).sum()))
    if per_image == 20:  # another call chooses others
        assert not torch.equal(torch_npu.npu_sub_sample(labels.npu(), per_image, fraction).cpu(), y)


# Quantisation, optimisers, faults


@pytest.mark.parametrize("with_offset", [False, True])
@pytest.mark.parametrize("shift", [0.0, 3.0, -3.0])
def test_ifmr(with_offset, shift):
    x = randn(2, 3, 5, 7) + shift
    bins, part = 64, 0.99
    low, high = x.min(), x.max()
    counts = torch.histc(x, bins, low.item(), high.item()).cumsum(0).int()
    scale, offset = torch_npu.npu_ifmr(x.npu(), low.reshape(1).npu(), high.reshape(1).npu(), counts.npu(), part, part, 0.7, 1.3, 0.05, with_offset)
    below = lambda q: int((counts.double() / x.numel() < q).sum()) / bins * (high - low).double() + low.double()
    most, least = below(part), below(1 - part)
    best = (math.inf, None, None)
    for factor in numpy.linspace(0.7, 1.3, 13):
        if with_offset:
            s = (max(most, 0) * factor - min(least, 0)) / 255
            o = -(torch.round(min(least, torch.tensor(0.0).double()) / s) + 128)
        else:
            s, o = max(abs(most), abs(least)) * factor / 127, torch.tensor(0.0)
        level = (torch.round(x.double() / s) + o).clamp(-128, 127)
        best = min(best, (float((((level - o) * s - x.double()) ** 2).sum()), float(s), float(o)))
    near(scale.reshape(()), torch.tensor(best[1]), 1e-4, 0)
    assert float(offset) == best[2]


@pytest.mark.parametrize("limit,mbart", [(-1.0, False), (0.5, False), (0.5, True)])
def test_bert_apply_adam(limit, mbart):
    p, m, v, grad = randn(40), randn(40, seed=1), rand(40, seed=2), randn(40, seed=3)
    lr, beta1, beta2, epsilon, decay, norm, step = 0.01, 0.9, 0.99, 1e-6, 0.1, 2.0, 0.02
    outs = tuple(t.clone().npu() for t in (p, m, v))
    torch_npu.npu_bert_apply_adam(lr, beta1, beta2, epsilon, grad.npu(), limit, norm, decay, step if mbart else None, int(mbart), out=outs)
    g = grad.double() * (limit / norm if limit > 0 else 1)
    m2, v2 = beta1 * m.double() + (1 - beta1) * g, beta2 * v.double() + (1 - beta2) * g * g
    update = m2 / (v2.sqrt() + epsilon)
    p2 = p.double() - (step * update + lr * decay * p.double() if mbart else lr * (update + decay * p.double()))
    for mine, theirs in zip(outs, (p2, m2, v2), strict=True):
        near(mine, theirs, 1e-5, 1e-6)


def silent_check(norms, steps):
    """The state after a gradient's norms, one a step."""
    state = [torch.tensor(v, device=NPU) for v in (0.0, 1e10, -1e10)]
    results = []
    for norm in norms:
        grad = torch.ones(3, device=NPU)
        result = torch_npu._npu_silent_check(grad, torch.tensor(norm, device=NPU), *state, torch.tensor(steps, dtype=torch.int32, device=NPU),
                                             7, 1e6, 1e5, 1e4, 5e3)
        results.append(int(result))
        assert torch.equal(grad.cpu(), torch.ones(3))
    return [float(s) for s in state], results


def test_silent_check():
    assert silent_check([2.0, 1.0, 3.0, 2.5], 7) == ([2.5, 1.0, 3.0], [0, 0, 0, 0])
    assert silent_check([2.0, 1e8], 0)[1] == [0, 0]  # not watched before the seventh step
    assert silent_check([2.0, 2.001, 20.0], 7)[1] == [0, 0, 1]  # a jump of 18,000 times the range
    assert silent_check([2.0, 3.0, 2e4], 7)[1] == [0, 0, 1]
    with pytest.raises(RuntimeError, match="2e\\+06|2000000"):
        silent_check([2.0, 2e6], 7)
