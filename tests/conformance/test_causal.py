"""Causal convolutions with and without a cache, against plain PyTorch in float64."""

import pytest
import torch
import torch.nn.functional as F

import aclnn
from test_cache import FLOATS, near

CHANNELS, TAPS = 300, 4


def convolve(padded, weight, bias, silu):
    y = F.conv1d(padded.double().T[None], weight.double().T[:, None], None if bias is None else bias.double(), groups=weight.shape[1])[0].T
    return F.silu(y) if silu else y


def ints(*values):
    return torch.tensor(values, dtype=torch.int32)


@pytest.mark.parametrize("operator", ["CausalConv1d", "CausalConv1dV310"])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("extra", [0, 2])
@pytest.mark.parametrize("silu,with_bias", [(True, True), (False, False)])
def test_sequences(silu, with_bias, extra, dtype, operator):
    lengths, lines = [5, 1, 9, 2], 7
    ends = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    x, weight = torch.randn(sum(lengths), CHANNELS).to(dtype), torch.randn(TAPS, CHANNELS).to(dtype)
    bias, states = torch.randn(CHANNELS).to(dtype) if with_bias else None, torch.randn(lines, TAPS - 1 + extra, CHANNELS).to(dtype)
    index, begun = ints(4, 0, -1, 6), ints(1, 0, 1, 0)
    y, mine = torch.full_like(x, 77), states.clone()
    aclnn.call(operator, x, weight, bias, mine, ends, index, begun, None, int(silu), -1, 0, y)
    expected, wanted = torch.full(x.shape, 77.0, dtype=torch.float64), states.double()
    for b, line in enumerate(index.tolist()):
        rows = x[ends[b]:ends[b + 1]]
        if line < 0:
            continue
        before = states[line, :TAPS - 1] if begun[b] else torch.zeros(TAPS - 1, CHANNELS, dtype=dtype)
        padded = torch.cat([before, rows])
        expected[ends[b]:ends[b + 1]] = convolve(padded, weight, bias, silu)
        wanted[line, :TAPS - 1] = padded[1 - TAPS:].double()
    near(y, expected, dtype)
    assert torch.equal(mine.double(), wanted)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("accepted", [None, [1, 3, 2]])
def test_next_tokens(accepted, dtype):
    """A step of three tokens each; with accepted ones the cache holds the rows that the step before proposed."""
    batch, new, lines = 3, 3, 5
    length = TAPS - 1 + (new - 1 if accepted else 0)
    x, weight, bias = (torch.randn(shape).to(dtype) for shape in ((batch, new, CHANNELS), (TAPS, CHANNELS), (CHANNELS,)))
    states, index = torch.randn(lines, length, CHANNELS).to(dtype), ints(3, 0, 1)
    y, mine = torch.empty_like(x), states.clone()
    aclnn.call("CausalConv1d", x, weight, bias, mine, None, index, None, None if accepted is None else ints(*accepted), 1, -1, 1, y)
    wanted = states.clone()
    for b, line in enumerate(index.tolist()):
        first = accepted[b] - 1 if accepted else 0
        padded = torch.cat([states[line, first:first + TAPS - 1], x[b]])
        near(y[b], convolve(padded, weight, bias, True), dtype)
        wanted[line] = padded[-length:]
    assert torch.equal(mine, wanted)


def fused_reference(x, weight, states, starts, index, computed=None, accepted=None, blocks=None, block=0, residual=False, reset=False):
    taps, out = weight.shape[0], torch.zeros(x.shape, dtype=torch.float64)
    for b in range(len(starts) - 1):
        rows = x[starts[b]:starts[b + 1]]
        first, last, initial = (t[b].item() for t in blocks) if blocks else (0, 0, 0)
        line = lambda column: index[b, column].item() if blocks else index[b].item()
        offset = accepted[b].item() - 1 if accepted is not None else states.shape[1] - (taps - 1)
        if computed is not None and computed[b] == 0:
            offset, before = 0, torch.zeros(taps - 1, x.shape[1], dtype=x.dtype)
        else:
            before = states[line(initial), :offset + taps - 1]
        padded = torch.cat([before, rows])
        kept = min(states.shape[1], len(padded))
        states[line(last), -kept:] = padded[-kept:]
        padded = padded[offset:]
        if blocks:
            beyond = (len(rows) - (block - computed[b].item() % block)) % block
            last_full = len(rows) - beyond - (block if beyond == 0 else 0)
            for i in range(last - first):
                at = last_full - (last - first - i - 1) * block
                states[line(first + i), -(taps - 1):] = padded[at:at + taps - 1]
        y = convolve(padded, weight, None, False)
        if reset:
            y[:min(max(taps - 1 - computed[b].item(), 0), len(rows))] = 0
        out[starts[b]:starts[b + 1]] = y + rows.double() if residual else y
    return out, states


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("case", ["plain", "reset", "accepted", "blocks"])
@pytest.mark.parametrize("inplace", [False, True])
def test_fused(inplace, case, dtype):
    taps, lengths = 3, [7, 3, 12, 4]
    starts = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    x, weight = torch.randn(sum(lengths), CHANNELS).to(dtype), torch.randn(taps, CHANNELS).to(dtype)
    states = torch.randn(20, 4, CHANNELS).to(dtype)
    index, options = ints(8, 3, 0, 19), {}
    if case == "reset":
        options = dict(computed=ints(0, 1, 5, 0), reset=True)
    if case == "accepted":
        options = dict(accepted=ints(1, 2, 3, 2), residual=True)
    if case == "blocks":  # blocks of four tokens: 6, 4, 0 and 1 tokens before
        index = torch.arange(20, dtype=torch.int32).reshape(4, 5)
        options = dict(computed=ints(6, 4, 0, 1), blocks=(ints(1, 1, 0, 0), ints(3, 1, 2, 1), ints(1, 0, 0, 0)), block=4)
    expected, wanted = fused_reference(x, weight, states.clone(), starts, index, **options)
    mine, own = states.clone(), x.clone()
    blocks = options.get("blocks", (None, None, None))
    tensors = (weight, mine, starts, index, None, None, options.get("accepted"), options.get("computed"), *blocks)
    numbers = (0, -1, 0, 12, int(options.get("residual", False)), options.get("block", 0), int(options.get("reset", False)))
    y = own if inplace else torch.empty_like(x)
    aclnn.call(*(("InplaceFusedCausalConv1d", own, *tensors, *numbers) if inplace else ("FusedCausalConv1d", own, *tensors, *numbers, y)))
    near(y, expected, dtype)
    assert torch.equal(mine, wanted)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("taps", [1, 3, 4])
@pytest.mark.parametrize("masked", [False, True])
def test_masked(masked, taps, dtype):
    s, b, h = 9, 3, 130
    x, weight, grad = (torch.randn(shape).to(dtype) for shape in ((s, b, h), (taps, h), (s, b, h)))
    mask = torch.rand(b, s) > 0.3 if masked else None
    xd, wd = x.double().requires_grad_(), weight.double().requires_grad_()
    padded = torch.cat([torch.zeros(taps - 1, b, h, dtype=torch.float64), xd]).permute(1, 2, 0)
    expected = F.conv1d(padded, wd.T[:, None], groups=h).permute(2, 0, 1)
    if masked:
        expected = expected * mask.T[..., None]
    y = torch.empty_like(x)
    aclnn.call("MaskedCausalConv1d", x, weight, mask, y)
    near(y, expected.detach(), dtype)
    wanted = torch.autograd.grad(expected, (xd, wd), grad.double())
    gx, gw = torch.empty_like(x), torch.empty_like(weight)
    aclnn.call("MaskedCausalConv1dBackward", grad, x, weight, mask, gx, gw)
    near(gx, wanted[0], dtype)
    near(gw, wanted[1], dtype)


def test_wrong_arguments():
    x, weight, states = torch.randn(4, 8), torch.randn(3, 8), torch.randn(5, 2, 8)
    with pytest.raises(aclnn.Failed, match="cacheIndices has 9, expected 0 to 4 or padSlotId -1"):
        aclnn.call("CausalConv1d", x, weight, None, states, ints(0, 4), ints(9), None, None, 0, -1, 0, torch.empty_like(x))
    with pytest.raises(aclnn.Failed, match="queryStartLoc has 6 after 0, expected a rising list up to 4"):
        aclnn.call("CausalConv1d", x, weight, None, states, ints(0, 6), ints(1), None, None, 0, -1, 0, torch.empty_like(x))
    with pytest.raises(aclnn.Failed, match="activationMode is 5"):
        aclnn.call("CausalConv1d", x, weight, None, states, ints(0, 4), ints(1), None, None, 5, -1, 0, torch.empty_like(x))
    with pytest.raises(aclnn.Failed, match=r"convStates has shape \[5,2,8\], expected \[lines,3 or more,8\]"):
        aclnn.call("CausalConv1d", x, torch.randn(4, 8), None, states, ints(0, 4), ints(1), None, None, 0, -1, 0, torch.empty_like(x))
