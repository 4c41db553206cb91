"""Recurrent networks against torch.nn in float64, forward and backward."""

import pytest
import torch
from torch import nn

import aclnn
from test_norm import check

TYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
SHAPES = [(5, 3, 4, 6, 1, False, False), (4, 2, 3, 5, 2, True, False), (3, 4, 6, 7, 2, True, True), (6, 1, 3, 2, 3, False, True)]


def network(kind, input_size, hidden, layers, bidirectional, batch_first, dtype, bias=True):
    torch.manual_seed(1)
    net = kind(input_size, hidden, layers, bias=bias, batch_first=batch_first, bidirectional=bidirectional).to(dtype)
    return net, [p.detach() for p in net.parameters()]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("case", SHAPES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_network(dtype, case, bias, kind):
    steps, batch, width, hidden, layers, bidirectional, batch_first = case
    lstm = kind == "LSTM"
    net, params = network(getattr(nn, kind), width, hidden, layers, bidirectional, batch_first, dtype, bias)
    cells = layers * (2 if bidirectional else 1)
    x = torch.randn((batch, steps, width) if batch_first else (steps, batch, width)).to(dtype)
    states = [torch.randn(cells, batch, hidden).to(dtype) for _ in range(2 if lstm else 1)]
    reference = net.double()
    xr, sr = x.double().clone().requires_grad_(), [s.double().clone().requires_grad_() for s in states]
    expected, final = reference(xr, tuple(sr) if lstm else sr[0])
    final = list(final) if lstm else [final]
    out, final_out = torch.empty(expected.shape, dtype=dtype), [torch.empty_like(s) for s in states]
    saved = [[torch.empty(steps, batch, hidden, dtype=dtype) for _ in range(cells)] for _ in range(7 if lstm else 5)]
    attributes = bias, layers, 0.0, True, bidirectional, batch_first
    aclnn.call(kind, x, params, states if lstm else states[0], None, *attributes, out, *final_out, *saved)
    check(out, expected)
    for a, e in zip(final_out, final):
        check(a, e)
    dy, dfinal = torch.randn(expected.shape).to(dtype), [torch.randn(s.shape).to(dtype) for s in states]
    torch.autograd.backward([expected, *final], [dy.double(), *(d.double() for d in dfinal)])
    dx, dstates, dparams = torch.empty_like(x), [torch.empty_like(s) for s in states], [torch.empty_like(p) for p in params]
    if lstm:
        aclnn.call("LstmBackward", x, states, params, dy, *dfinal, *saved, None, *attributes, None, dx, *dstates, dparams)
    else:
        aclnn.call("GRUBackward", x, params, states[0], dy, *dfinal, *saved, None, bias, layers, bidirectional, batch_first, dx, *dstates,
                   dparams)
    check(dx, xr.grad, factor=4)
    for a, e in zip(dstates, sr):
        check(a, e.grad, factor=4)
    for a, e in zip(dparams, reference.parameters()):
        check(a, e.grad, factor=8)


@pytest.mark.parametrize("dtype", TYPES)
def test_inference_needs_no_lists(dtype):
    net, params = network(nn.LSTM, 3, 4, 1, False, False, dtype)
    x, h, c = torch.randn(5, 2, 3).to(dtype), torch.zeros(1, 2, 4, dtype=dtype), torch.zeros(1, 2, 4, dtype=dtype)
    out, hy, cy = torch.empty(5, 2, 4, dtype=dtype), torch.empty_like(h), torch.empty_like(c)
    lists = [[torch.empty(5, 2, 4, dtype=dtype)] for _ in range(2)]
    aclnn.call("LSTM", x, params, [h, c], None, True, 1, 0.0, False, False, False, out, hy, cy, [], [], [], [], *lists, [])
    check(out, net.double()(x.double())[0])
    check(lists[0][0], out)


@pytest.mark.parametrize("lists", [[[]] * 5, [None] * 5], ids=["empty", "null"])
def test_gru_inference_of_two_layers(lists):
    net, params = network(nn.GRU, 3, 4, 2, True, False, torch.float32)
    x, h = torch.randn(5, 2, 3), torch.randn(4, 2, 4)
    out, hy = torch.empty(5, 2, 8), torch.empty_like(h)
    aclnn.call("GRU", x, params, h, None, True, 2, 0.0, False, True, False, out, hy, *lists)
    expected, final = net.double()(x.double(), h.double())
    check(out, expected)
    check(hy, final)


def test_packed_rows():
    """Rows beyond a step's batch size keep their state; their outputs are zero."""
    net, params = network(nn.GRU, 3, 4, 1, False, False, torch.float32)
    lengths = [4, 2, 1]  # per row of the batch
    x = torch.randn(4, 3, 3)
    sizes = torch.tensor([3, 2, 1, 1])
    out, hy = torch.empty(4, 3, 4), torch.empty(1, 3, 4)
    aclnn.call("GRU", x.reshape(12, 3), params, torch.zeros(1, 3, 4), sizes, True, 1, 0.0, False, False, False, out.view(12, 4), hy, *[[]] * 5)
    packed = nn.utils.rnn.pack_padded_sequence(x.double(), lengths)
    expected, final = net.double()(packed)
    check(out, nn.utils.rnn.pad_packed_sequence(expected)[0])
    check(hy, final)


@pytest.mark.parametrize("dtype", TYPES)
def test_fused_cell(dtype):
    torch.manual_seed(0)
    gates, hidden, cx = (torch.randn(5, n).to(dtype) for n in (28, 28, 7))
    bias = [torch.randn(28).to(dtype) for _ in range(2)]
    hy, cy, storage = torch.empty_like(cx), torch.empty_like(cx), torch.empty_like(gates)
    aclnn.call("ThnnFusedLstmCell", gates, hidden, cx, *bias, hy, cy, storage)
    gr, cr = (gates.double() + hidden.double() + bias[0].double() + bias[1].double()).requires_grad_(), cx.double().clone().requires_grad_()
    i, f, g, o = gr.chunk(4, 1)
    c = f.sigmoid() * cr + i.sigmoid() * g.tanh()
    h = o.sigmoid() * c.tanh()
    check(hy, h)
    check(cy, c)
    dh, dc = torch.randn(5, 7).to(dtype), torch.randn(5, 7).to(dtype)
    torch.autograd.backward([h, c], [dh.double(), dc.double()])
    dgates, dcx, dbias = torch.empty_like(gates), torch.empty_like(cx), torch.empty(28, dtype=dtype)
    aclnn.call("ThnnFusedLstmCellBackward", dh, dc, cx, cy, storage, True, dgates, dcx, dbias)
    check(dgates, gr.grad, factor=4)
    check(dcx, cr.grad, factor=4)
    check(dbias, gr.grad.sum(0), factor=8)


def test_dropout_between_layers_is_refused():
    net, params = network(nn.GRU, 3, 4, 2, False, False, torch.float32)
    with pytest.raises(aclnn.Failed, match="dropout is 0.5 with 2 layers"):
        aclnn.call("GRU", torch.zeros(4, 3, 3), params, torch.zeros(2, 3, 4), None, True, 2, 0.5, True, False, False, torch.empty(4, 3, 4),
                   torch.empty(2, 3, 4), *[[]] * 5)
