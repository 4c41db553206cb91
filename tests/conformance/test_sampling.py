"""TopKTopPSample against the steps of its description, in plain PyTorch."""

import pytest
import torch

import aclnn

ROWS, SIZE = 9, 200
K = torch.tensor([0, 1, 5, 17, 200, 4000, -3, 8, 60], dtype=torch.int32)
P = torch.tensor([1.0, 0.9, 0.5, 1.5, 0.0, -1.0, 0.3, 0.999, 0.7])
LEAST = torch.tensor([0.0, -1.0, 0.3, 0.1, 1.0, 2.0, 0.5, 0.05, 0.0])


def sampled(x, k, p, q, least, epsilon, most, logits):
    """Indices that stay with their probabilities, and the one that is chosen."""
    x = x.double()
    by_count, by_sum = 1 <= k <= min(most, len(x)), p < 1
    order = torch.arange(len(x))
    if by_count or by_sum or least >= 1:
        order = x.sort(descending=True, stable=True)[1][:k if by_count else None]
    probability = x[order].softmax(-1) if logits else x[order]
    if by_sum:
        before = probability.cumsum(-1) - probability
        count = max(int((before < p).sum()), 1) if p > 0 else 1
        order, probability = order[:count], probability[:count].clone()
    if p <= 0 and logits:
        probability[0] = 1
    if least >= 1:
        order, probability = order[:1], probability[:1]
    elif least > 0:
        keep = probability >= probability.max() * least
        order, probability = order[keep], probability[keep]
    score = probability if q is None else probability / (q[:len(order)].double().abs() + epsilon)
    return order, probability, order[score.argmax()].item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("noise", [False, True])
@pytest.mark.parametrize("version,least,logits,most", [("", False, True, 1024), ("V2", False, True, 1024), ("V2", True, True, 16), ("V2", True, False, 64), ("V2", False, False, 1024)])
def test_samples(version, least, logits, most, noise, dtype):
    torch.manual_seed(3)
    x = torch.randn(ROWS, SIZE) * 2
    x = (x if logits else x.softmax(-1)).to(dtype)
    p, q = P.to(dtype), torch.rand(ROWS, SIZE) + 0.01 if noise else None
    minimum = LEAST.to(dtype) if least else None
    chosen, kept = torch.empty(ROWS, dtype=torch.int64), torch.empty(ROWS, SIZE)
    order, probability = torch.full((ROWS, SIZE), 7), torch.full((ROWS, SIZE), 7.0)
    if version:
        aclnn.call("TopKTopPSampleV2", x, K, p, q, minimum, 1e-8, True, 32, most, logits, True, chosen, kept, order, probability)
    else:
        aclnn.call("TopKTopPSample", x, K, p, q, 1e-8, True, 32, chosen, kept)
    for r in range(ROWS):
        indices, wanted, best = sampled(x[r], K[r].item(), p[r].item(), None if q is None else q[r], minimum[r].item() if least else -1, 1e-8, most, logits)
        rest = torch.full((SIZE,), -torch.inf if logits else 0.0)
        rest[indices] = x[r].float()[indices]
        assert torch.equal(kept[r], rest), r
        assert chosen[r] == best, r
        if version:
            n = len(indices)
            assert torch.equal(order[r, :n], indices) and order[r, n:].eq(0).all() and probability[r, n:].eq(0).all()
            torch.testing.assert_close(probability[r, :n].double(), wanted, rtol=1e-5, atol=1e-7)


def test_wrong_arguments():
    x, chosen, none = torch.randn(ROWS, SIZE), torch.empty(ROWS, dtype=torch.int64), torch.empty(0)
    with pytest.raises(aclnn.Failed, match="ksMax is 5000, expected 1 to 1024"):
        aclnn.call("TopKTopPSampleV2", x, K, P, None, None, 1e-8, False, 32, 5000, True, False, chosen, none, torch.empty(0, dtype=torch.int64), none)
    with pytest.raises(aclnn.Failed, match=r"topK has shape \[4\], expected \[9\]"):
        aclnn.call("TopKTopPSample", x, K[:4], P, None, 1e-8, False, 32, chosen, none)
