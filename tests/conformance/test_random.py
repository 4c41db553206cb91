"""Random operators: distributions (Kolmogorov-Smirnov distance, moments, counts), reproducibility from (seed, offset), every
element independent of the size and layout around it, and dropout masks that forward and backward read alike."""

import math

import pytest
import torch

import aclnn
import cases

N = 200_000
SEED, OFFSET = 1234, 40
LIMIT = 2.2 / math.sqrt(N)  # of the Kolmogorov-Smirnov distance: exceeded once in 10,000 draws


def distance(samples, cdf):
    x = samples.double().flatten().sort().values
    f, n = cdf(x), x.numel()
    i = torch.arange(n, dtype=torch.float64)
    return max((f - i / n).abs().max().item(), ((i + 1) / n - f).abs().max().item())


def normal_cdf(mean, std):
    return lambda x: 0.5 * (1 + torch.erf((x - mean) / std / math.sqrt(2)))


DRAWS = {
    "InplaceUniform": (lambda t, seed=SEED, offset=OFFSET: ("InplaceUniform", t, -2.0, 3.0, seed, offset)),
    "InplaceNormal": (lambda t, seed=SEED, offset=OFFSET: ("InplaceNormal", t, 1.0, 2.0, seed, offset)),
    "SimThreadExponential": (lambda t, seed=SEED, offset=OFFSET: ("SimThreadExponential", t, t.numel(), 1.5, seed, offset)),
    "StatelessExponentialTensor": (lambda t, seed=SEED, offset=OFFSET: ("StatelessExponentialTensor", t, torch.tensor([seed]),
                                                                        torch.tensor([offset - 7]), 7, 1.5)),
    "InplaceRandom": (lambda t, seed=SEED, offset=OFFSET: ("InplaceRandom", t, -10, 1000, seed, offset)),
    "InplaceBernoulli": (lambda t, seed=SEED, offset=OFFSET: ("InplaceBernoulli", t, 0.3, seed, offset)),
}


def draw(name, t, **seeding):
    aclnn.call(*DRAWS[name](t, **seeding))
    return t


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_reproducible(name, dtype):
    a = draw(name, torch.empty(N, dtype=dtype))
    assert torch.equal(a, draw(name, torch.empty(N, dtype=dtype)))
    assert torch.equal(a[:1000], draw(name, torch.empty(1000, dtype=dtype)))  # element i depends on i alone
    assert torch.equal(a[:1001], draw(name, torch.empty(2 * 1001, dtype=dtype)[::2]))
    for other in (draw(name, torch.empty(N, dtype=dtype), seed=SEED + 1), draw(name, torch.empty(N, dtype=dtype), offset=OFFSET + 10)):
        # Independent: correlated no more than chance allows.
        assert abs(torch.corrcoef(torch.stack([a, other]).double())[0, 1].item()) < 5 / math.sqrt(N)
    x = a.double() - a.double().mean()
    for lag in (1, 2, 16, 32, 64):  # and of its neighbours in the sequence
        assert abs((x[:-lag] * x[lag:]).mean().item() / x.var().item()) < 5 / math.sqrt(N)


@pytest.mark.parametrize("name", DRAWS)
def test_layouts_and_types(name):
    for dtype in cases.FLOATS:
        for layout in cases.LAYOUTS:
            if layout != "expanded":
                t = draw(name, cases.empty((30, 5, 7), dtype, layout))
                assert t.numel() == 0 or not (t == 77).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distributions(dtype):
    t = torch.empty(N, dtype=dtype)
    assert distance(draw("InplaceUniform", t), lambda x: (x + 2) / 5) < LIMIT
    assert t.min() >= -2 and t.max() < 3
    assert distance(draw("InplaceNormal", t), normal_cdf(1, 2)) < LIMIT
    assert t.isfinite().all() and ((t - 1) / 2).abs().max() > 4
    assert distance(draw("SimThreadExponential", t), lambda x: 1 - torch.exp(-1.5 * x)) < LIMIT
    assert t.min() >= 0 and t.isfinite().all()


@pytest.mark.parametrize("dtype", cases.COMPLEX)
def test_complex_distributions(dtype):
    t = torch.empty(N // 2, dtype=dtype)
    draw("InplaceUniform", t)
    for part in (t.real, t.imag):
        assert distance(part, lambda x: (x + 2) / 5) < 1.5 * LIMIT
    draw("InplaceNormal", t)
    for part in (t.real, t.imag):
        assert distance(part, normal_cdf(1, 2 / math.sqrt(2))) < 1.5 * LIMIT
    centred = t - t.mean()
    assert abs((centred.real * centred.imag).mean()) < 0.05


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_uniform_below_upper_bound(dtype):
    t = torch.empty(N, dtype=dtype)
    aclnn.call("InplaceUniform", t, 0.0, 1.0, SEED, OFFSET)
    assert t.min() >= 0 and t.max() < 1 and abs(t.double().mean().item() - 0.5) < 0.005
    aclnn.call("InplaceUniform", t, 0.5, 0.5, SEED, OFFSET)
    assert (t == 0.5).all()


def test_normal_with_tensors():
    mean, std = torch.linspace(-5, 5, 20).view(20, 1), torch.linspace(0.1, 3, 20).view(20, 1)
    out = torch.empty(20, 20000)
    for op, m, s in (("NormalTensorTensor", mean, std), ("NormalTensorFloat", mean, 2.0), ("NormalFloatTensor", 3.0, std)):
        a, b = (x.expand(20, 20000) if isinstance(x, torch.Tensor) else x for x in (m, s))
        aclnn.call(op, a, b, SEED, OFFSET, out)
        z = (out - m) / s
        assert distance(z, normal_cdf(0, 1)) < 2.2 / math.sqrt(out.numel())
    aclnn.call("NormalFloatFloat", 3.0, 2.0, SEED, OFFSET, out)
    assert distance(out, normal_cdf(3, 2)) < 2.2 / math.sqrt(out.numel())


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.int8, torch.float32, torch.float16])
def test_integers(dtype):
    t = torch.empty(N, dtype=dtype)
    aclnn.call("InplaceRandom", t, 3, 20, SEED, OFFSET)
    counts = torch.bincount(t.long(), minlength=20)
    assert counts[:3].sum() == 0 and counts.numel() == 20
    expected = N / 17
    assert ((counts[3:] - expected) ** 2 / expected).sum() < 45  # chi-squared, 16 degrees of freedom


def test_integer_ranges():
    t = torch.empty(N, dtype=torch.int64)
    aclnn.call("InplaceRandom", t, -2**62, 2**62, SEED, OFFSET)
    assert t.min() < -2**61 and t.max() > 2**61 and distance(t.double(), lambda x: (x + 2**62) / 2**63) < LIMIT
    aclnn.call("InplaceRandom", t, -2**63, 2**63 - 1, SEED, OFFSET)
    assert t.min() < -2**62 and t.max() > 2**62
    for dtype, top in ((torch.uint8, 255), (torch.int8, 127), (torch.int16, 32767), (torch.bool, 1), (torch.float16, 2048),
                       (torch.bfloat16, 256), (torch.float32, 2**24), (torch.int32, 2**31 - 1), (torch.int64, 2**63 - 1)):
        t = torch.empty(N, dtype=dtype)
        aclnn.call("InplaceRandomWithoutFromTo", t, SEED, OFFSET)
        assert t.double().min() >= 0 and t.double().max() <= top and abs(t.double().mean().item() / top - 0.5) < 0.01
    b = torch.empty(N, dtype=torch.bool)
    aclnn.call("InplaceRandom", b, 0, 2, SEED, OFFSET)
    assert 0.49 < b.double().mean() < 0.51


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.int64, torch.uint8, torch.bfloat16])
def test_bernoulli(dtype):
    t = torch.empty(N, dtype=dtype)
    for p in (0.0, 0.1, 0.5, 1.0):
        aclnn.call("InplaceBernoulli", t, p, SEED, OFFSET)
        assert set(t.double().unique().tolist()) <= {0.0, 1.0}
        assert abs(t.double().mean().item() - p) <= 4 * math.sqrt(p * (1 - p) / N)
    p = torch.linspace(0, 1, 50).view(50, 1).expand(50, 10000)
    t = torch.empty(50, 10000, dtype=dtype)
    aclnn.call("InplaceBernoulliTensor", t, p, SEED, OFFSET)
    rates = t.double().mean(1)
    assert (rates - p[:, 0]).abs().max() < 0.025 and rates[0] == 0 and rates[-1] == 1


def bits(mask, n):
    return ((mask.view(-1, 1) >> torch.arange(8, dtype=torch.uint8)) & 1).flatten()[:n].bool()


@pytest.mark.parametrize("n", [1, 100, 128, 129, 5000, 100_003])
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
def test_dropout(n, p):
    length = (n + 127) // 128 * 16
    mask = torch.empty(length, dtype=torch.uint8)
    aclnn.call("DropoutGenMaskV2", [n], p, SEED, OFFSET, torch.float32, mask)
    keep = bits(mask, n)
    assert abs(keep.double().mean().item() - (1 - p)) <= 5 * math.sqrt(p * (1 - p) / n)
    again = torch.empty_like(mask)
    aclnn.call("DropoutGenMaskV2Tensor", [n], p, torch.tensor([SEED]), torch.tensor([OFFSET - 7]), 7, torch.float32, again)
    assert torch.equal(mask, again)
    for dtype in cases.FLOATS:
        x, out = cases.values((n,), dtype, 1, 3), torch.empty(n, dtype=dtype)
        aclnn.call("DropoutDoMask", x, mask, p, out)
        expected = torch.where(keep, cases.wide(x) / (1 - p), 0.0) if p < 1 else torch.zeros(n)
        cases.compare(out, expected)
        fused, fused_mask = torch.empty(n, dtype=dtype), torch.empty(length, dtype=torch.uint8)
        aclnn.call("DropoutV3", x, None, p, SEED, OFFSET, fused, fused_mask)
        assert torch.equal(fused_mask, mask) and torch.equal(fused, out)
        grad = torch.empty(n, dtype=dtype)
        aclnn.call("DropoutV3Grad", x, mask, 2.0, grad)
        cases.compare(grad, torch.where(keep, cases.wide(x) * 2, 0.0))


def test_dropout_outside_of_training():
    x, out, mask = torch.rand(100), torch.empty(100), torch.empty(16, dtype=torch.uint8)
    aclnn.call("Dropout", x, 0.5, False, SEED, OFFSET, out, mask)
    assert torch.equal(out, x) and bits(mask, 100).all()


def test_dropout_counts_elements_in_row_major_order():
    x = torch.rand(40, 50) + 1
    mask = torch.empty(2048 // 8, dtype=torch.uint8)
    aclnn.call("DropoutGenMaskV2", [40, 50], 0.5, SEED, OFFSET, torch.float32, mask)
    a = torch.empty_like(x)
    aclnn.call("DropoutDoMask", x, mask, 0.5, a)
    for layout in ("transposed", "strided", "offset"):
        b = cases.empty((40, 50), torch.float32, layout)
        aclnn.call("DropoutDoMask", cases.lay(x, layout), mask, 0.5, b)
        assert torch.equal(a, b)


def chi_squared(counts, weights):
    expected = weights.double() / weights.double().sum() * counts.sum()
    used = expected > 0
    assert counts[~used].sum() == 0
    return ((counts[used] - expected[used]) ** 2 / expected[used]).sum().item()


@pytest.mark.parametrize("dtype", cases.FLOATS)
def test_multinomial(dtype):
    weights = torch.tensor([[1, 2, 0, 4, 3, 0], [0, 1, 1, 1, 1, 0]], dtype=dtype)
    out = torch.empty(2, N, dtype=torch.int64)
    aclnn.call("Multinomial", weights, N, True, SEED, OFFSET, out)
    for row in range(2):
        assert chi_squared(torch.bincount(out[row], minlength=6), weights[row]) < 22  # 3 degrees of freedom
    many = weights[:1].expand(20000, 6)
    out = torch.empty(20000, 4, dtype=torch.int64)
    aclnn.call("Multinomial", many, 4, False, SEED, OFFSET, out)
    assert (out.sort(1).values == torch.tensor([0, 1, 3, 4])).all()  # each class once
    assert chi_squared(torch.bincount(out[:, 0], minlength=6), weights[0]) < 22  # the first is drawn by weight
    one = torch.empty(20000, 1, dtype=torch.int64)
    aclnn.call("Multinomial", many, 1, False, SEED, OFFSET, one)
    assert torch.equal(one, out[:, :1])
    flat = torch.empty(3, dtype=torch.int64)
    aclnn.call("MultinomialTensor", weights[0], 3, False, torch.tensor([SEED]), torch.tensor([OFFSET]), 0, flat)
    assert flat.unique().numel() == 3


def test_multinomial_errors():
    with pytest.raises(aclnn.Failed, match="at most the 3 classes"):
        aclnn.call("Multinomial", torch.ones(3), 4, False, 0, 0, torch.empty(4, dtype=torch.int64))
    with pytest.raises(aclnn.Failed, match="numsamples is 0"):
        aclnn.call("Multinomial", torch.ones(3), 0, True, 0, 0, torch.empty(0, dtype=torch.int64))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.float32])
def test_randperm(dtype):
    for n in (0, 1, 2, 1000, 20000):
        out = torch.empty(n, dtype=dtype)
        aclnn.call("Randperm", n, SEED, OFFSET, out)
        assert torch.equal(out.sort().values, torch.arange(n, dtype=dtype))
    counts = torch.zeros(4, 4)
    for seed in range(2000):
        out = torch.empty(4, dtype=torch.int64)
        aclnn.call("Randperm", 4, seed, 0, out)
        counts[torch.arange(4), out] += 1
    assert ((counts - 500) ** 2 / 500).sum() < 35


@pytest.mark.parametrize("op,arguments,message", [
    ("InplaceUniform", (torch.empty(3), 2.0, 1.0, 0, 0), "expected from <= to"),
    ("InplaceUniform", (torch.empty(3, dtype=torch.int32), 0.0, 1.0, 0, 0), "expected a floating type"),
    ("InplaceNormal", (torch.empty(3), 0.0, -1.0, 0, 0), "std is -1"),
    ("InplaceRandom", (torch.empty(3), 5, 5, 0, 0), "expected from < to"),
    ("InplaceBernoulli", (torch.empty(3), 1.5, 0, 0), "from 0 to 1"),
    ("DropoutGenMaskV2", ([1000], 0.5, 0, 0, torch.float32, torch.empty(100, dtype=torch.uint8)), "expected at least 128"),
    ("DropoutDoMask", (torch.ones(1000), torch.empty(100, dtype=torch.uint8), 0.5, torch.ones(1000)), "expected at least 125"),
    ("DropoutDoMask", (torch.ones(8), torch.empty(16, dtype=torch.uint8), 1.5, torch.ones(8)), "from 0 to 1"),
    ("SimThreadExponential", (torch.empty(3), 3, 0.0, 0, 0), "lambda is 0"),
    ("Randperm", (3, 0, 0, torch.empty(4, dtype=torch.int64)), r"out has shape \[4\], expected \[3\]"),
])
def test_errors(op, arguments, message):
    with pytest.raises(aclnn.Failed, match=message):
        aclnn.call(op, *arguments)
