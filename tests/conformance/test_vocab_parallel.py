"""Cross entropy over parts of a vocabulary, against plain PyTorch in float64."""

import pytest
import torch

import aclnn
from test_cache import FLOATS, near

ROWS, WIDTH, WORDS = 19, 32, 50


def bits(mask):
    padded = torch.cat([mask, torch.ones(-len(mask) % 8, dtype=torch.bool)]).reshape(-1, 8)
    return (padded * torch.tensor([128, 64, 32, 16, 8, 4, 2, 1])).sum(-1).to(torch.uint8)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("target_type", [torch.int32, torch.int64])
@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("parts", [1, 2])
def test_loss_and_gradient(parts, keep, target_type, dtype):
    x, weights = torch.randn(ROWS, WIDTH).to(dtype), [(torch.randn(WORDS, WIDTH) / 4).to(dtype) for _ in range(parts)]
    target = torch.randint(0, WORDS * parts, (ROWS,)).to(target_type)
    leaf, leaves = x.double().requires_grad_(), [w.double().requires_grad_() for w in weights]
    logits = leaf @ torch.cat(leaves).T
    expected = torch.nn.functional.cross_entropy(logits, target.long(), reduction="none")
    made = []
    for i, w in enumerate(weights):
        top, total, predicted = (torch.empty(ROWS) for _ in range(3))
        mask, within = torch.empty((ROWS + 7) // 8, dtype=torch.uint8), torch.empty(ROWS, dtype=target_type)
        part = torch.empty(ROWS, WORDS, dtype=dtype) if keep else None
        aclnn.call("FusedLinearOnlineMaxSum", x, w, target, i * WORDS, (i + 1) * WORDS - 1, top, total, predicted, mask, within, part)
        own = logits[:, i * WORDS:(i + 1) * WORDS].detach()
        hidden = (target < i * WORDS) | (target >= (i + 1) * WORDS)
        assert torch.equal(mask, bits(hidden)) and torch.equal(within, torch.where(hidden, 0, target - i * WORDS).to(target_type))
        torch.testing.assert_close(top.double(), own.amax(-1), rtol=1e-4, atol=1e-4)
        if keep:
            near(part, own, dtype)
        made.append((top, total, predicted, mask, within, part))
    # what the parts' owners tell each other
    top = torch.stack([m[0] for m in made]).amax(0)
    total = sum(m[1] * (m[0] - top).exp() for m in made)
    inside = [torch.where(torch.tensor([bool(m[3][r // 8] >> (7 - r % 8) & 1) for r in range(ROWS)]), torch.zeros(ROWS), m[2] + m[0] - top) for m in made]
    loss = torch.empty(ROWS)
    softmaxes = []
    for m, w in zip(made, weights):
        softmax = torch.empty(ROWS, WORDS) if keep else None
        aclnn.call("FusedCrossEntropyLossWithMaxSum", top, total, sum(inside), 0.0, x, w, m[5], loss, softmax)
        torch.testing.assert_close(loss.double(), expected.detach(), rtol=1e-3, atol=1e-3)
        softmaxes.append(softmax)
    grad = torch.randn(ROWS)
    wanted = torch.autograd.grad(expected, [leaf, *leaves], grad.double())
    total_gx = torch.zeros(ROWS, WIDTH, dtype=torch.float64)
    tolerance = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}[dtype]
    for m, w, softmax, gw in zip(made, weights, softmaxes, wanted[1:]):
        gx, mine = torch.empty_like(x), torch.empty_like(w)
        statistics = (None, None, softmax) if keep else (top, total, None)
        aclnn.call("FusedLinearCrossEntropyLossGrad", grad, x, w, m[3], m[4], 0.0, *statistics, gx, mine)
        torch.testing.assert_close(mine.double(), gw, rtol=tolerance, atol=tolerance)
        total_gx += gx.double()
    torch.testing.assert_close(total_gx, wanted[0], rtol=tolerance, atol=tolerance)


def test_wrong_arguments():
    x, w, loss = torch.randn(ROWS, WIDTH), torch.randn(WORDS, WIDTH), torch.empty(ROWS)
    with pytest.raises(aclnn.Failed, match="labelSmoothing is 0.5, expected 0"):
        aclnn.call("FusedCrossEntropyLossWithMaxSum", loss, loss, loss, 0.5, None, None, None, loss, None)
    with pytest.raises(aclnn.Failed, match="softmaxOptional is absent, so logitsMaxOptional"):
        aclnn.call("FusedLinearCrossEntropyLossGrad", loss, x, w, torch.empty(3, dtype=torch.uint8), torch.zeros(ROWS, dtype=torch.int32), 0.0, None, None, None,
                   x.clone(), w.clone())
