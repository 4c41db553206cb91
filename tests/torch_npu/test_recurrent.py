"""Recurrent modules through unmodified torch_npu, which uses aclnnLSTM, aclnnGRU or the legacy DynamicRNN operators."""

import copy

import pytest
import torch
import torch_npu  # noqa: F401
from torch import nn

NPU = torch.device("npu:0")


def compare(module, *inputs):
    """Results and gradients of a module on both devices."""
    results = []
    for m, device in ((module, "cpu"), (copy.deepcopy(module).to(NPU), NPU)):
        given = [x.detach().to(device).requires_grad_() for x in inputs]
        out = m(*given)
        leaves = torch.utils._pytree.tree_leaves(out)
        generator = torch.Generator().manual_seed(5)
        weights = [torch.randn(x.shape, generator=generator).to(device) for x in leaves]
        torch.autograd.backward(leaves, weights)
        results.append([x.detach().cpu() for x in leaves] + [x.grad.cpu() for x in given] + [p.grad.cpu() for p in m.parameters()])
    for cpu, npu in zip(*results, strict=True):
        torch.testing.assert_close(npu, cpu, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("layers,bidirectional,batch_first,bias",
                         [(1, False, False, True), (2, False, True, True), (2, True, False, True), (1, True, True, False)])
def test_networks(kind, layers, bidirectional, batch_first, bias):
    torch.manual_seed(0)
    compare(kind(5, 6, layers, bias=bias, batch_first=batch_first, bidirectional=bidirectional), torch.randn(4, 3, 5))


@pytest.mark.parametrize("cell", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
@pytest.mark.parametrize("bias", [True, False])
def test_cells(cell, bias):
    torch.manual_seed(0)
    compare(cell(5, 6, bias=bias), torch.randn(3, 5))


@pytest.mark.parametrize("p", [0.5, 1.0, 2.0, 3.0, float("inf")])
def test_cdist_gradient(p):
    """Orders up to 2 go through the legacy operator CdistGrad."""
    torch.manual_seed(0)
    class Distances(nn.Module):
        def forward(self, a, b):
            return torch.cdist(a, b, p=p, compute_mode="donot_use_mm_for_euclid_dist")
    compare(Distances(), torch.randn(2, 4, 3), torch.randn(2, 5, 3))
