"""Unmodified torch_npu, used as people use it: training gives the numbers of torch's CPU device."""

import copy

import pytest
import torch
import torch_npu  # noqa: F401
from torch import nn
from torch.nn import functional as F

NPU = torch.device("npu:0")


def convnet():
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, stride=2),
                         nn.GELU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5))


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True, activation="gelu")
        self.head = nn.Linear(16, 20)

    def forward(self, tokens):
        return self.head(self.layer(self.embed(tokens)))


def pair(make):
    torch.manual_seed(1)
    cpu = make()
    return cpu, copy.deepcopy(cpu).to(NPU)


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
    "adamw foreach": lambda p: torch.optim.AdamW(p, lr=0.01, foreach=True),
    "adamw amsgrad": lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_convnet_trains_as_on_the_cpu(optimizer):
    cpu, npu = pair(convnet)
    x, y = torch.randn(8, 3, 12, 12), torch.randint(5, (8,))
    losses = {}
    for name, model, device in (("cpu", cpu, torch.device("cpu")), ("npu", npu, NPU)):
        opt = OPTIMIZERS[optimizer](model.parameters())
        losses[name] = []
        for _ in range(5):
            opt.zero_grad()
            loss = F.cross_entropy(model(x.to(device)), y.to(device))
            loss.backward()
            opt.step()
            losses[name].append(loss.item())
    torch.testing.assert_close(torch.tensor(losses["npu"]), torch.tensor(losses["cpu"]), rtol=2e-4, atol=2e-5)


def test_fused_adamw():
    # No normalisation behind a bias: its gradient would be rounding noise, which Adam turns into steps of full size.
    cpu, npu = pair(lambda: nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 5)))
    x, y = torch.randn(32, 6), torch.randint(5, (32,))
    a, b = torch.optim.AdamW(cpu.parameters(), lr=0.01), torch.optim.AdamW(npu.parameters(), lr=0.01, fused=True)
    for _ in range(3):
        for opt, model, device in ((a, cpu, torch.device("cpu")), (b, npu, NPU)):
            opt.zero_grad()
            F.cross_entropy(model(x.to(device)), y.to(device)).backward()
            opt.step()
    for p, q in zip(cpu.parameters(), npu.parameters()):
        torch.testing.assert_close(q.detach().cpu(), p.detach(), rtol=1e-4, atol=1e-5)


def test_transformer_gradients_as_on_the_cpu():
    cpu, npu = pair(Transformer)
    tokens, target = torch.randint(20, (3, 7)), torch.randint(20, (3, 7))
    for model, device in ((cpu, torch.device("cpu")), (npu, NPU)):
        F.cross_entropy(model(tokens.to(device)).flatten(0, 1), target.to(device).flatten()).backward()
    for (name, p), q in zip(cpu.named_parameters(), npu.parameters()):
        torch.testing.assert_close(q.grad.cpu(), p.grad, rtol=1e-4, atol=1e-5, msg=lambda m: f"{name}: {m}")


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_scaled_dot_product_attention(causal, dtype):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 4, 33, 16, dtype=torch.float64, requires_grad=True) for _ in range(3))
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    expected.sum().backward()
    qn, kn, vn = (t.detach().to(dtype).npu().requires_grad_() for t in (q, k, v))
    actual = F.scaled_dot_product_attention(qn, kn, vn, is_causal=causal)
    actual.sum().backward()
    tolerance = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 4e-2}[dtype]
    torch.testing.assert_close(actual.cpu().double(), expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(vn.grad.cpu().double(), v.grad, rtol=tolerance, atol=tolerance * 4)
    torch.testing.assert_close(qn.grad.cpu().double(), q.grad, rtol=tolerance, atol=tolerance * 4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_with_scaler(dtype):
    cpu, npu = pair(convnet)
    x, y = torch.randn(8, 3, 12, 12), torch.randint(5, (8,))
    scaler = torch.npu.amp.GradScaler(enabled=dtype == torch.float16)
    opt = torch.optim.SGD(npu.parameters(), lr=0.05)
    first = None
    for _ in range(8):
        opt.zero_grad()
        with torch.autocast("npu", dtype=dtype):
            loss = F.cross_entropy(npu(x.npu()), y.npu())
        scaler.scale(loss).backward()
        scaler.step(opt)
        scaler.update()
        first = first or loss.item()
    assert loss.item() < first


def test_dropout_masks_forward_and_backward_agree():
    torch.manual_seed(0)
    x = torch.ones(64, 257, device=NPU, requires_grad=True)
    y = F.dropout(x, 0.25)
    y.sum().backward()
    kept = y.detach().cpu() != 0
    assert abs(kept.float().mean().item() - 0.75) < 0.02
    torch.testing.assert_close(x.grad.cpu(), kept.float() / 0.75)


def test_clip_grad_norm():
    p = torch.nn.Parameter(torch.ones(100, device=NPU))
    p.grad = torch.full_like(p, 2.0)
    norm = nn.utils.clip_grad_norm_([p], 1.0)
    assert norm.item() == pytest.approx(20.0, rel=1e-5)
    assert p.grad.norm().item() == pytest.approx(1.0, rel=1e-4)
