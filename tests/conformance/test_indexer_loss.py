"""The lightning indexer's training against plain PyTorch in float64: gradients by autograd through the loss."""

import pytest
import torch

import aclnn
from test_cache import FLOATS, near

N1, N2, NI, D, R, DI = 4, 2, 6, 32, 16, 24  # the attention's heads, its keys', the indexer's, and widths
SIZES = [(7, 12), (5, 9)]  # queries and keys of two sequences


def tensors(layout, dtype):
    """By name; BSND: both sequences as long as the first."""
    torch.manual_seed(3)
    q, k = ((2, 7), (2, 12)) if layout == "BSND" else ((12,), (21,))
    made = {"query": (*q, N1, D), "key": (*k, N2, D), "query_index": (*q, NI, DI), "key_index": (*k, 1, DI), "weights": (*q, NI), "query_rope": (*q, N1, R), "key_rope": (*k, N2, R)}
    return {name: (torch.randn(*shape) * 0.5).to(dtype) for name, shape in made.items()}


def sequences(layout):
    """First rows and counts of the queries and keys of each sequence."""
    if layout == "BSND":
        return [(0, 7, 0, 12), (7, 7, 12, 12)]
    return [(0, 7, 0, 12), (7, 5, 12, 9)]


def rows(t, layout):
    return t.flatten(0, 1) if layout == "BSND" else t


class Case:
    def __init__(self, layout, dtype, mode, rope, named=None):
        self.layout, self.given = layout, tensors(layout, dtype)
        flat = {name: rows(t, layout).double() for name, t in self.given.items()}
        self.leaves = [flat[name].requires_grad_() for name in ("query_index", "key_index", "weights")]
        scale, count = (D + R * rope) ** -0.5, len(flat["query"])
        self.scale, self.loss, self.named = scale, torch.zeros((), dtype=torch.float64), named
        self.max, self.sum = torch.zeros(count, N1), torch.zeros(count, N1)
        self.max_index, self.sum_index = torch.zeros(count), torch.zeros(count)
        for q0, queries, k0, keys in sequences(layout):
            for i in range(queries):
                row, seen = q0 + i, keys if mode == 0 else keys - queries + i + 1
                places = torch.arange(seen) if named is None else torch.tensor([p for p in named[row].tolist() if 0 <= p < seen], dtype=torch.long)
                if len(places) == 0:
                    continue
                at = k0 + places
                scores = torch.einsum("nd,knd->nk", flat["query"][row], flat["key"][at].repeat_interleave(N1 // N2, 1))
                if rope:
                    scores = scores + torch.einsum("nd,knd->nk", flat["query_rope"][row], flat["key_rope"][at].repeat_interleave(N1 // N2, 1))
                scores = scores * scale
                self.max[row], self.sum[row] = scores.amax(-1), (scores - scores.amax(-1, keepdim=True)).exp().sum(-1)
                chosen = ((self.leaves[0][row] @ self.leaves[1][at, 0].T).relu() * self.leaves[2][row].unsqueeze(1)).sum(0)
                self.max_index[row], self.sum_index[row] = chosen.detach().max(), (chosen.detach() - chosen.detach().max()).exp().sum()
                attention = scores.softmax(-1).mean(0)
                self.loss = self.loss + (attention * (attention.log() - chosen.log_softmax(-1))).sum()
        self.gradients = torch.autograd.grad(self.loss, self.leaves)

    def lengths(self):
        return (None, None) if self.layout == "BSND" else ([7, 12], [12, 21])

    def statistics(self, t):
        """[B,N2,S,G], packed [N2,T,G]."""
        grouped = t.unflatten(-1, (N2, N1 // N2))
        if self.layout == "BSND":
            return grouped.unflatten(0, (2, 7)).transpose(1, 2).contiguous()
        return grouped.transpose(0, 1).contiguous()

    def of_index(self, t):
        return t.reshape(2, 1, 7) if self.layout == "BSND" else t.reshape(1, -1)

    def run(self, rope, mode):
        g = self.given
        results = [torch.full_like(g[name], 7) for name in ("query_index", "key_index", "weights")]
        loss = torch.full((1,), 7.0)
        statistics = [self.statistics(self.max), self.statistics(self.sum)]
        ropes = (g["query_rope"], g["key_rope"]) if rope else (None, None)
        common = [g[name] for name in ("query", "key", "query_index", "key_index", "weights")]
        tail = [*ropes, *self.lengths(), self.scale, self.layout, mode, 2**63 - 1, 2**63 - 1]
        if self.named is None:
            aclnn.call("DenseLightningIndexerGradKLLoss", *common, *statistics, self.of_index(self.max_index), self.of_index(self.sum_index), *tail, *results, loss)
        else:
            named = self.named.reshape(*g["weights"].shape[:-1], -1)
            aclnn.call("SparseLightningIndexerGradKLLoss", *common, named, *statistics, *tail, False, *results, loss)
        return results, loss

    def check(self, dtype, rope, mode):
        results, loss = self.run(rope, mode)
        near(loss[0], self.loss.detach(), torch.float32)
        bound = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype]  # one rounding of the result
        for actual, wanted in zip(results, self.gradients, strict=True):
            assert (rows(actual, self.layout).double() - wanted).abs().max() <= bound * wanted.abs().max()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("rope", [False, True])
@pytest.mark.parametrize("mode", [0, 3])
@pytest.mark.parametrize("layout", ["BSND", "TND"])
def test_dense(layout, mode, rope, dtype):
    Case(layout, dtype, mode, rope).check(dtype, rope, mode)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("rope", [False, True])
@pytest.mark.parametrize("mode", [0, 3])
@pytest.mark.parametrize("layout", ["BSND", "TND"])
def test_sparse(layout, mode, rope, dtype):
    torch.manual_seed(5)
    count = 14 if layout == "BSND" else 12
    named = torch.stack([torch.randperm(9)[:5] for _ in range(count)]).int()
    named[::3, 3:] = -1  # fewer than there is room for
    Case(layout, dtype, mode, rope, named).check(dtype, rope, mode)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("mode", [0, 3])
@pytest.mark.parametrize("layout", ["BSND", "TND"])
def test_statistics(layout, mode, dtype):
    case = Case(layout, dtype, mode, False)
    results = [case.of_index(torch.full_like(case.max_index, 7)).contiguous() for _ in range(2)]
    g = case.given
    aclnn.call("DenseLightningIndexerSoftmaxLse", g["query_index"], g["key_index"], g["weights"], *case.lengths(), layout, mode, 2**63 - 1, 2**63 - 1, *results)
    near(results[0].flatten(), case.max_index.double(), torch.float32)
    near(results[1].flatten(), case.sum_index.double(), torch.float32)


def test_queries_that_see_no_key():
    case = Case("TND", torch.float32, 0, False)
    g = case.given
    top, total = torch.full((1, 12), 7.0), torch.full((1, 12), 7.0)
    aclnn.call("DenseLightningIndexerSoftmaxLse", g["query_index"], g["key_index"], g["weights"], [12], [3], "TND", 3, 0, 0, top, total)
    assert (top[0, :9] == -torch.inf).all() and (total[0, :9] == 0).all() and (total[0, 9:] >= 1).all()


@pytest.mark.parametrize(
    "name,value,message",
    [
        ("query_rope", None, "queryRope is absent"),
        ("key_index", torch.zeros(2, 12, 2, DI), r"keyIndex has shape \[2,12,2,24\], expected one head of 24"),
        ("weights", torch.zeros(2, 7, 5), "weights has shape"),
        ("key", torch.zeros(2, 12, 3, D), "key has shape"),
        ("query_index", torch.zeros(14, NI, DI), "queryIndex"),
    ],
)
def test_refusals(name, value, message):
    case = Case("BSND", torch.float32, 3, True)
    g = case.given | {name: value}
    results = [torch.zeros_like(case.given[n]) for n in ("query_index", "key_index", "weights")]
    with pytest.raises(aclnn.Failed, match=message):
        aclnn.call("DenseLightningIndexerGradKLLoss", *(g[n] for n in ("query", "key", "query_index", "key_index", "weights")), case.statistics(case.max),
                   case.statistics(case.sum), case.of_index(case.max_index), case.of_index(case.sum_index), g["query_rope"], g["key_rope"], None, None, 1.0, "BSND", 3,
                   0, 0, *results, torch.zeros(1))
