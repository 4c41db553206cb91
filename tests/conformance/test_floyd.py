"""Floyd attention and its gradients against plain PyTorch in float64."""

import pytest
import torch

import aclnn
from test_cache import FLOATS, near
from test_norm import arrange

SMALL = [(1, 1, 3, 5, 7, 32), (2, 3, 4, 6, 9, 40)]  # B, H, M, N, K, D
BLOCKS = (1, 2, 150, 200, 170, 32)  # more scores than are held at a time
CASES = [(shape, dtype, kind, layout) for shape in SMALL for dtype in FLOATS for kind in (None, "nodes", "pairs") for layout in ("contiguous", "transposed")]


def legs(shape, dtype):
    b, h, m, n, k, d = shape
    torch.manual_seed(m)
    return [torch.randn(b, h, *rows, d).to(dtype) for rows in ((m, n), (m, k), (m, k), (k, n), (k, n))]


def attention(tensors, mask, scale):
    """The result, and the maximum and the sum of each softmax."""
    query, key1, value1, key2, value2 = tensors
    scores = torch.einsum("bhikc,bhijc->bhikj", query, key1) + torch.einsum("bhikc,bhjkc->bhikj", query, key2)
    if mask is not None:
        scores = scores + mask * -4e9
    scores = scores * scale
    weights = scores.softmax(-1)
    out = torch.einsum("bhikj,bhijc->bhikc", weights, value1) + torch.einsum("bhikj,bhjkc->bhikc", weights, value2)
    return out, scores.amax(-1), (scores - scores.amax(-1, keepdim=True)).exp().sum(-1)


def eight(t):
    return t.unsqueeze(-1).repeat(*[1] * t.dim(), 8)


def mask_of(kind, shape):
    b, h, m, n, k, d = shape
    if kind is None:
        return None
    mask = torch.rand(*{"nodes": (b, 1, m, 1, k), "pairs": (b, h, m, n, k)}[kind]) < 0.4
    mask[..., 0] = False
    return mask.to(torch.uint8) if kind == "pairs" else mask


@pytest.mark.parametrize("shape,dtype,kind,layout", CASES + [(BLOCKS, torch.bfloat16, "nodes", "contiguous")])
def test_both_directions(shape, dtype, kind, layout):
    b, h, m, n, k, d = shape
    scale = d**-0.5
    tensors, mask = legs(shape, dtype), mask_of(kind, shape)
    given = [arrange(t, layout) for t in tensors]
    doubles = [t.double().requires_grad_() for t in tensors]
    expected, top, total = attention(doubles, mask, scale)
    out, maximum, summed = arrange(torch.empty_like(tensors[0]), layout), torch.empty(b, h, m, n, 8), torch.empty(b, h, m, n, 8)
    aclnn.call("FusedFloydAttention", *given, mask, scale, maximum, summed, out)
    near(out, expected.detach(), dtype)
    near(maximum, eight(top.detach()), torch.float32)
    near(summed, eight(total.detach()), torch.float32)

    dy = torch.randn_like(tensors[0])
    grads = torch.autograd.grad(expected, doubles, dy.double())
    results = [arrange(torch.full_like(t, 7), layout) for t in tensors]
    saved = [eight(top.detach()).float(), eight(total.detach()).float(), arrange(expected.detach().to(dtype), layout)]
    aclnn.call("FusedFloydAttentionGrad", *given, arrange(dy, layout), mask, *saved, scale, *results)
    for actual, wanted in zip(results, grads, strict=True):
        # the forward's result is given in the type of the tensors, so its rounding is in each gradient
        bound = {torch.float32: 1e-4, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}[dtype]
        assert (actual.double() - wanted).abs().max() <= bound * wanted.abs().max()


def test_a_row_without_nodes_takes_all():
    shape = (1, 1, 2, 3, 5, 32)
    tensors, mask = legs(shape, torch.float32), torch.zeros(1, 1, 2, 1, 5, dtype=torch.bool)
    mask[0, 0, 1] = True
    out, maximum, summed = torch.empty_like(tensors[0]), torch.empty(1, 1, 2, 3, 8), torch.empty(1, 1, 2, 3, 8)
    aclnn.call("FusedFloydAttention", *tensors, mask, 1.0, maximum, summed, out)
    mean = (tensors[2][:, :, 1].mean(-2)).unsqueeze(2) + tensors[4].mean(2)
    near(out[:, :, 1], mean.double(), torch.float32)
    assert (summed[:, :, 1] == 5).all() and (maximum[:, :, 1] == -4e9).all()


def test_no_nodes_no_gradient():
    tensors = legs((1, 2, 3, 4, 0, 32), torch.float32)
    statistics = torch.zeros(1, 2, 3, 4, 8)
    results = [torch.full_like(t, 7) for t in tensors]
    aclnn.call("FusedFloydAttentionGrad", *tensors, torch.ones_like(tensors[0]), None, statistics, statistics.clone(), torch.zeros_like(tensors[0]), 1.0, *results)
    assert (results[0] == 0).all()


@pytest.mark.parametrize(
    "change,message",
    [
        (dict(key2=torch.zeros(1, 1, 4, 3, 32)), r"key2 has shape \[1,1,4,3,32\].*\[1,1,5,3,32\]"),
        (dict(value1=torch.zeros(1, 1, 2, 5, 32, dtype=torch.float16)), "value1 has type"),
        (dict(mask=torch.zeros(2, 5, dtype=torch.bool)), r"attenMask has shape \[2,5\]"),
        (dict(mask=torch.zeros(5)), "attenMask has type"),
        (dict(maximum=torch.zeros(1, 1, 2, 3, 4)), "softmaxMax has shape"),
        (dict(query=torch.zeros(2, 3, 32)), "query"),
    ],
)
def test_refusals(change, message):
    names = ("query", "key1", "value1", "key2", "value2")
    given = dict(zip(names, legs((1, 1, 2, 3, 5, 32), torch.float32)), mask=None, maximum=torch.zeros(1, 1, 2, 3, 8)) | change
    with pytest.raises(aclnn.Failed, match=message):
        aclnn.call("FusedFloydAttention", *(given[name] for name in names), given["mask"], 1.0, given["maximum"], torch.zeros(1, 1, 2, 3, 8), torch.zeros(1, 1, 2, 3, 32))
