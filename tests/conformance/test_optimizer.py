"""Fused optimiser steps and loss scaling against PyTorch's own optimisers in float64."""

import pytest
import torch

import aclnn
import cases

SHAPES = [(3, 4), (), (0, 5), (1000,), (300, 257)]


def state(dtype, seed, low=-1.0, high=1.0):
    return [cases.values(s, dtype, low, high, seed * 10 + i) for i, s in enumerate(SHAPES)]


def clone(xs, dtype=None):
    return [x.clone().to(dtype or x.dtype) for x in xs]


def compare(actual, expected, **tolerance):
    for a, e in zip(actual, expected, strict=True):
        cases.compare(a, e, **tolerance)


def reference_adam(p, g, m, v, vmax, t, lr, b1, b2, wd, eps, maximize, decoupled):
    p, g, m, v = (x.double() for x in (p, g, m, v))
    g = -g if maximize else g
    p, g = (p * (1 - lr * wd), g) if decoupled else (p, g + wd * p)
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
    largest = v if vmax is None else torch.maximum(vmax.double(), v)
    return p - lr / (1 - b1 ** t) * m / (largest.sqrt() / (1 - b2 ** t) ** 0.5 + eps), m, v, largest


# As the operators take them: in float32.
LR, B1, B2, WD, EPS = torch.tensor([1e-2, 0.9, 0.99, 0.1, 1e-8]).tolist()
LOOSE = {torch.float32: {"rtol": 1e-5, "atol": 1e-5}}


@pytest.mark.parametrize("dtype", cases.FLOATS)
@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("maximize", [False, True])
def test_apply_adamw_v2(dtype, amsgrad, maximize):
    for i in range(len(SHAPES)):
        p, g, m = (state(dtype, s)[i] for s in range(3))
        v, vmax = (state(dtype, s, 0.1, 1)[i] for s in (3, 4))
        expected = reference_adam(p, g, m, v, vmax if amsgrad else None, 4, LR, B1, B2, WD, EPS, maximize, True)
        for step in (torch.tensor([3.0]), torch.tensor(3)):
            p2, m2, v2, vmax2 = clone((p, m, v, vmax))
            aclnn.call("ApplyAdamWV2", p2, m2, v2, vmax2 if amsgrad else None, g, step, LR, B1, B2, WD, EPS, amsgrad, maximize)
            compare([p2, m2, v2], expected[:3], **LOOSE.get(dtype, {}))
            if amsgrad:
                compare([vmax2], expected[3:], **LOOSE.get(dtype, {}))


@pytest.mark.parametrize("dtype", cases.FLOATS)
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "strided"])
def test_apply_adamw_from_device_settings(dtype, layout):
    p, g, m = (cases.lay(state(dtype, s)[-1], layout) for s in range(3))
    v = cases.lay(state(dtype, 3, 0.1, 1)[-1], layout)
    settings = [torch.tensor([x], dtype=dtype if dtype == torch.float64 else torch.float32) for x in (B1 ** 4, B2 ** 4, LR, WD, B1, B2, EPS)]
    expected = reference_adam(p, g, m, v, None, 4, LR, B1, B2, WD, EPS, False, True)
    aclnn.call("ApplyAdamW", p, m, v, *settings, g, None, False, False)
    compare([p, m, v], expected[:3], **({"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {}))


@pytest.mark.parametrize("dtype", cases.FLOATS)
@pytest.mark.parametrize("amsgrad", [False, True])
def test_fused_adam(dtype, amsgrad):
    ps, gs, ms = (state(dtype, s) for s in range(3))
    vs, vmaxs = (state(dtype, s, 0.1, 1) for s in (3, 4))
    steps = [torch.tensor(float(i)) for i in range(len(ps))]
    expected = [reference_adam(p, g, m, v, vmax if amsgrad else None, i + 1, LR, B1, B2, WD, EPS, False, False)
                for i, (p, g, m, v, vmax) in enumerate(zip(ps, gs, ms, vs, vmaxs))]
    got = [clone(x) for x in (ps, gs, ms, vs, vmaxs)]
    aclnn.call("FusedAdam", *got[:4], got[4] if amsgrad else [], steps, None, None, LR, B1, B2, WD, EPS, amsgrad, False)
    tolerance = {} if dtype in (torch.bfloat16, torch.float16) else {"rtol": 1e-5, "atol": 1e-5}
    for k, actual in enumerate((got[0], got[2], got[3])):
        compare(actual, [e[k] for e in expected], **tolerance)
    compare(got[1], gs, rtol=0, atol=0)
    # a loss scale: gradients come back unscaled; found_inf: nothing happens
    scaled = [x.clone() for x in (got[0])], [g * 8 for g in gs], clone(ms), clone(vs)
    scaled = (clone(ps), scaled[1], scaled[2], scaled[3])
    aclnn.call("FusedAdam", *scaled, clone(vmaxs) if amsgrad else [], steps, torch.tensor([8.0]), torch.tensor([0.0]), LR, B1, B2, WD, EPS, amsgrad, False)
    compare(scaled[0], [e[0] for e in expected], **tolerance)
    compare(scaled[1], gs, rtol=0, atol=0)
    untouched = (clone(ps), clone(gs), clone(ms), clone(vs))
    aclnn.call("FusedAdam", *untouched, clone(vmaxs) if amsgrad else [], steps, None, torch.tensor([1.0]), LR, B1, B2, WD, EPS, amsgrad, False)
    compare(untouched[0], ps, rtol=0, atol=0)


def test_mixed_types():
    p, g, m, v = state(torch.bfloat16, 1)[3], state(torch.float32, 2)[3], state(torch.float32, 3)[3], state(torch.float32, 4, 0.1, 1)[3]
    expected = reference_adam(p, g, m, v, None, 1, LR, B1, B2, WD, EPS, False, True)
    aclnn.call("ApplyAdamWV2", p, m, v, None, g, torch.tensor([0.0]), LR, B1, B2, WD, EPS, False, False)
    compare([p, m, v], expected[:3], **{})


@pytest.mark.parametrize("dtype", cases.FLOATS)
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_fused_sgd(dtype, nesterov, first):
    ps, gs, bs = (state(dtype, s) for s in range(3))
    lr, wd, momentum, dampening = torch.tensor([0.1, 0.01, 0.9, 0.0 if nesterov else 0.2]).tolist()
    expected = []
    for p, g, b in zip(*([x.double() for x in xs] for xs in (ps, gs, bs))):
        d = -g + wd * p
        b = d if first else momentum * b + (1 - dampening) * d
        expected.append((p - lr * (d + momentum * b if nesterov else b), b))
    if first:
        bs = [torch.full_like(b, float("nan")) for b in bs]  # never read
    got = clone(ps), clone(gs), clone(bs)
    aclnn.call("FusedSgd", *got, None, wd, momentum, lr, dampening, nesterov, True, first)
    tolerance = {"rtol": 2e-3, "atol": 1e-3} if dtype == torch.float16 else {}
    compare(got[0], [e[0] for e in expected], **tolerance)
    compare(got[2], [e[1] for e in expected], **tolerance)
    plain = clone(ps), clone(gs)
    aclnn.call("FusedSgd", *plain, None, torch.tensor([2.0]), 0.0, 0.0, lr, 0.0, False, False, True)
    compare(plain[0], [p.double() - lr * g.double() / 2 for p, g in zip(ps, gs)], **tolerance)
    compare(plain[1], [g.double() / 2 for g in gs])


@pytest.mark.parametrize("dtype", cases.FLOATS)
@pytest.mark.parametrize("bad", [None, float("inf"), float("nan"), -float("inf")])
def test_non_finite_check_and_unscale(dtype, bad):
    gs = state(dtype, 1)
    if bad is not None:
        gs[-1][200, 100] = bad
    found, got = torch.tensor([0.0]), clone(gs)
    aclnn.call("ForeachNonFiniteCheckAndUnscale", got, found, torch.tensor([0.25]))
    assert found.item() == (bad is not None)
    compare(got, [g.double() / 4 for g in gs])


def test_amp_update_scale():
    for scale, tracker, found in ((65536.0, 0, 0.0), (65536.0, 1999, 0.0), (65536.0, 7, 1.0), (3e38, 1999, 0.0)):
        a = [torch.tensor([scale]), torch.tensor([tracker], dtype=torch.int32), torch.tensor([found])]
        b = [x.clone() for x in a]
        aclnn.call("AmpUpdateScale", *a, 2.0, 0.5, 2000, a[0], a[1])
        torch._amp_update_scale_(b[0], b[1], b[2], 2.0, 0.5, 2000)
        assert a[0].item() == b[0].item() and a[1].item() == b[1].item()


@pytest.mark.parametrize("dtype", cases.FLOATS)
def test_foreach_norm(dtype):
    xs = state(dtype, 1)
    for p in (1, 2, float("inf"), 3):
        for shape in ((), (1,)):
            out = [torch.empty(shape, dtype=dtype) for _ in xs]
            aclnn.call("ForeachNorm", xs, p, out)
            expected = [torch.linalg.vector_norm(x.double(), p) if x.numel() else torch.tensor(0.0) for x in xs]
            compare([o.view(()) for o in out], expected)


@pytest.mark.parametrize("dtype", cases.FLOATS)
def test_foreach_round(dtype):
    xs = state(dtype, 1, -5, 5)
    for mode, f in ((1, torch.round), (2, torch.floor), (3, torch.ceil), (5, torch.trunc), (7, torch.frac)):
        out = clone(xs)
        aclnn.call("ForeachRoundOffNumberV2", xs, mode, out)
        compare(out, [f(x) for x in xs])
        out = clone(xs)
        aclnn.call("ForeachRoundOffNumber", xs, torch.tensor([mode], dtype=torch.int8), out)
        compare(out, [f(x) for x in xs])
    with pytest.raises(aclnn.Failed, match="roundMode is 4, expected 1"):
        aclnn.call("ForeachRoundOffNumberV2", xs, 4, out)
