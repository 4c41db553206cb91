"""Feed-forward networks of experts, and low-rank adapters, against plain PyTorch in float64."""

import pytest
import torch
import torch.nn.functional as F

import aclnn
from test_cache import FLOATS, near

K, INNER, OUT, EXPERTS = 24, 32, 16, 3
ACTIVATIONS = {"fastgelu": lambda v: v * torch.sigmoid(1.702 * v), "gelu": F.gelu, "relu": F.relu, "silu": F.silu, "geglu": F.gelu, "swiglu": F.silu,
               "reglu": F.relu}


def activated(v, name):
    if not name.endswith("glu"):
        return ACTIVATIONS[name](v)
    a, b = v.chunk(2, -1)
    return a * ACTIVATIONS[name](b)


def run(version, x, weights, tokens, bias, scale, offset, deq, anti, anti_offset, activation, y, ends=False):
    if version == "FFNV3" and tokens is not None:
        tokens = torch.tensor(tokens)
    extra = () if version == "FFN" else (ends,)
    aclnn.call(version, x, *weights, tokens, *bias, scale, offset, *deq, *anti, *anti_offset, activation, 0, *extra, y)


def tolerance(dtype):
    return {torch.float32: dict(rtol=1e-4, atol=1e-4), torch.float16: dict(rtol=5e-3, atol=5e-3), torch.bfloat16: dict(rtol=3e-2, atol=3e-2)}[dtype]


@pytest.mark.parametrize("version", ["FFN", "FFNV2", "FFNV3"])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize("experts,biased,stored", [(False, True, False), (True, False, False), (True, True, True)])
def test_floats(experts, biased, stored, activation, dtype, version):
    """`stored`: weights of 8 bits with scales and offsets."""
    wide, lead = INNER * (2 if activation.endswith("glu") else 1), (EXPERTS,) if experts else ()
    shapes = (*lead, K, wide), (*lead, INNER, OUT)
    x = torch.randn(2, 5, K).to(dtype)
    if stored:
        weights = [torch.randint(-127, 128, s, dtype=torch.int8) for s in shapes]
        anti = [(0.001 + 0.001 * torch.rand(*lead, s[-1])).to(dtype) for s in shapes]
        offsets = [torch.randn(*lead, s[-1]).to(dtype) for s in shapes]
        plain = [(w.double() + o.double().unsqueeze(-2)) * a.double().unsqueeze(-2) for w, a, o in zip(weights, anti, offsets)]
    else:
        weights, anti, offsets = [(torch.randn(s) / 6).to(dtype) for s in shapes], (None, None), (None, None)
        plain = [w.double() for w in weights]
    bias = [torch.randn(*lead, s[-1]).to(dtype) for s in shapes] if biased else (None, None)
    counts = [3, 0, 7]
    for ends in ([False, True] if experts and version != "FFN" else [False]):
        tokens = None if not experts else [3, 3, 10] if ends else counts
        y = torch.empty(2, 5, OUT, dtype=dtype)
        run(version, x, weights, tokens, bias, None, None, (None, None), anti, offsets, activation, y, ends)
        parts = []
        for e, rows in enumerate(x.double().reshape(10, K).split(counts if experts else [10])):
            of = lambda t: t[e] if experts else t
            add = lambda i: 0 if not biased else of(bias[i]).double()
            parts.append(activated(rows @ of(plain[0]) + add(0), activation) @ of(plain[1]) + add(1))
        torch.testing.assert_close(y.double().reshape(10, OUT), torch.cat(parts), **tolerance(dtype))


@pytest.mark.parametrize("version", ["FFN", "FFNV2", "FFNV3"])
@pytest.mark.parametrize("experts", [False, True])
@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu", "silu"])
def test_integers(activation, per_column, experts, version):
    lead = (EXPERTS,) if experts else ()
    x = torch.randint(-127, 128, (10, K), dtype=torch.int8)
    weights = [torch.randint(-127, 128, s, dtype=torch.int8) for s in ((*lead, K, INNER), (*lead, INNER, OUT))]
    bias = [torch.randint(-5000, 5000, (*lead, n), dtype=torch.int32) for n in (INNER, OUT)]
    deq = [0.0001 * (1 + torch.rand(*lead, n)) for n in (INNER, OUT)]
    shape = (*lead, INNER) if per_column else (lead or (1,))
    scale, offset = 20 + 5 * torch.rand(shape), torch.randn(lead or (1,))
    y, counts = torch.empty(10, OUT, dtype=torch.float16), [3, 0, 7]
    run(version, x, weights, counts if experts else None, bias, scale, offset, deq, (None, None), (None, None), activation, y)
    parts, slack = [], []
    for e, rows in enumerate(x.double().split(counts if experts else [10])):
        of = lambda t: t[e].double() if experts else t.double()
        middle = activated((rows @ of(weights[0]) + of(bias[0])) * of(deq[0]), activation) * of(scale) + of(offset)
        parts.append((middle.round().clamp(-128, 127) @ of(weights[1]) + of(bias[1])) * of(deq[1]))
    # a level of the middle that lies next to a half may fall either way
    assert (y.double() - torch.cat(parts)).abs().max() < 0.03 + 127 * 0.0002


def test_wrong_arguments():
    x, weights, y = torch.randn(10, K), [torch.randn(EXPERTS, K, INNER), torch.randn(EXPERTS, INNER, OUT)], torch.empty(10, OUT)
    none = (None, None)
    with pytest.raises(aclnn.Failed, match="expertTokens names 8 of the 10 rows of x"):
        run("FFN", x, weights, [3, 0, 5], none, None, None, none, none, none, "relu", y)
    with pytest.raises(aclnn.Failed, match="activation is tanh, expected fastgelu, gelu"):
        run("FFN", x, weights, [3, 0, 7], none, None, None, none, none, none, "tanh", y)
    with pytest.raises(aclnn.Failed, match="weight1 has shape .*expected 2 experts"):
        run("FFN", x, weights, [3, 7], none, None, None, none, none, none, "relu", y)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("with_a", [True, False])
@pytest.mark.parametrize("offset", [0, 8])
def test_add_lora(offset, with_a, dtype):
    adapters, layers, rank, wide, columns = 3, 2, 4 if with_a else K, 20, 40
    y, x = torch.randn(6, columns).to(dtype), torch.randn(6, K).to(dtype)
    a = torch.randn(adapters, layers, rank, K).to(dtype) if with_a else None
    b, index = torch.randn(adapters, layers, wide, rank).to(dtype), torch.tensor([2, 0, -1, 1, 2, 0], dtype=torch.int32)
    out = torch.empty_like(y)
    aclnn.call("AddLora", y, x, b, index, a, 1, 0.25, offset, wide, out)
    expected = y.double()
    for i, w in enumerate(index.tolist()):
        if w >= 0:
            low = x[i].double() if a is None else a[w, 1].double() @ x[i].double()
            expected[i, offset:offset + wide] += 0.25 * (b[w, 1].double() @ low)
    near(out, expected, dtype)
    with pytest.raises(aclnn.Failed, match="indices has 9, expected a value below 3"):
        aclnn.call("AddLora", y, x, b, index + 9 - index, a, 1, 0.25, offset, wide, out)


@pytest.mark.parametrize("operator", ["QuantGroupedMatmulDequant", "QuantGroupedMatmulDequantWeightNZ"])
@pytest.mark.parametrize("mode", ["pertoken", "pertensor"])
@pytest.mark.parametrize("smoothed", [False, True])
def test_grouped_dequant(smoothed, mode, operator):
    x, w = torch.randn(12, K).half(), torch.randint(-127, 128, (EXPERTS, K, OUT), dtype=torch.int8)
    scale, smooth = 0.01 * (1 + torch.rand(EXPERTS, OUT)), (0.5 + torch.rand(K)).half() if smoothed else None
    given, ends = torch.tensor([0.03]) if mode == "pertensor" else None, torch.tensor([5, 5, 11])
    bias = torch.randn(EXPERTS, OUT)
    v = x.float() * (1 if smooth is None else smooth.float())
    rows = torch.full((12, 1), 0.03) if given is not None else v.abs().amax(1, keepdim=True) / 127
    q = (v / rows).round().clamp(-128, 127).double()
    expected = torch.zeros(12, OUT, dtype=torch.float64)
    for e, (a, b) in enumerate(zip([0, 5, 5], [5, 5, 11])):
        expected[a:b] = q[a:b] @ w[e].double() * scale[e].double() * rows[a:b].double() + bias[e].double()
    for weight, transposed in ((w, False), (w.transpose(1, 2).contiguous(), True)):
        y = torch.full((12, OUT), 7.0, dtype=torch.float16)
        aclnn.call(operator, x, weight, scale, ends, bias, given, None, smooth, mode, transposed, y)
        assert (y.double() - expected).abs().max() < 127 * 0.02 * 0.05 + 5e-3 * expected.abs().max()
    with pytest.raises(aclnn.Failed, match="groupList has 90 after 5"):
        aclnn.call(operator, x, w, scale, torch.tensor([5, 90, 11]), bias, given, None, smooth, mode, False, y)
