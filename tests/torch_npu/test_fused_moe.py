"""Mixtures of experts through torch_npu's own calls, against plain PyTorch on the CPU in float64."""

import pytest
import torch
import torch.nn.functional as F
import torch_npu

TOLERANCE = {torch.float32: dict(rtol=1e-4, atol=1e-4), torch.float16: dict(rtol=1e-2, atol=1e-2), torch.bfloat16: dict(rtol=5e-2, atol=5e-2)}
TOKENS, WIDTH, INNER, EXPERTS, K = 33, 24, 16, 6, 2


def near(actual, expected, dtype=torch.float32):
    torch.testing.assert_close(actual.cpu().double(), expected.double(), **TOLERANCE[dtype])


def experts(x, w1, w2, weights, chosen):
    """Each token through its experts, a gated unit each, in float64."""
    x, w1, w2 = x.double(), w1.double(), w2.double()
    out = torch.zeros_like(x)
    for t in range(len(x)):
        for j in range(chosen.shape[1]):
            gate, up = (x[t] @ w1[chosen[t, j]]).chunk(2)
            out[t] += weights[t, j].double() * ((F.silu(gate) * up) @ w2[chosen[t, j]])
    return out


def layer(dtype):
    return (torch.randn(TOKENS, WIDTH).to(dtype), (torch.randn(EXPERTS, WIDTH, 2 * INNER) / 5).to(dtype), (torch.randn(EXPERTS, INNER, WIDTH) / 4).to(dtype),
            torch.randn(TOKENS, EXPERTS).to(dtype))


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_layer(dtype):
    """As inference stacks run it: gate, routing, two grouped products, the way back."""
    x, w1, w2, logits = layer(dtype)
    weights, chosen, _ = torch_npu.npu_moe_gating_top_k_softmax(logits.npu(), k=K)
    p = torch.softmax(logits.double(), -1)
    best = torch.sort(p, dim=-1, descending=True, stable=True).indices[:, :K]
    assert torch.equal(chosen.cpu().long(), best)
    near(weights, p.gather(-1, best), dtype)
    rows, index, counts, _ = torch_npu.npu_moe_init_routing_v2(x.npu(), chosen, active_num=TOKENS * K, expert_num=EXPERTS, expert_tokens_num_type=1,
                                                               expert_tokens_num_flag=True, active_expert_range=[0, EXPERTS], quant_mode=-1)
    assert torch.equal(counts.cpu(), torch.bincount(best.flatten(), minlength=EXPERTS))
    hidden = torch_npu.npu_grouped_matmul([rows], [w1.npu()], group_list=counts, split_item=3, group_type=0, group_list_type=1)[0]
    hidden = torch_npu.npu_swiglu(hidden)
    back = torch_npu.npu_grouped_matmul([hidden], [w2.npu()], group_list=counts, split_item=3, group_type=0, group_list_type=1)[0]
    out = torch_npu.npu_moe_finalize_routing(back, None, None, None, weights, index, None, drop_pad_mode=2)
    near(out, experts(x, w1, w2, weights.cpu(), best), dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_first_routing(dtype):
    x, w1, w2, logits = layer(dtype)
    weights, chosen, row = torch_npu.npu_moe_gating_top_k_softmax(logits.npu(), k=K)
    rows, index, sorted_experts = torch_npu.npu_moe_init_routing(x.npu(), row, chosen, TOKENS)
    ends = torch_npu.npu_moe_compute_expert_tokens(sorted_experts, EXPERTS)
    hidden = torch_npu.npu_swiglu(torch_npu.npu_grouped_matmul([rows], [w1.npu()], group_list=ends.long(), split_item=3, group_type=0)[0])
    back = torch_npu.npu_grouped_matmul([hidden], [w2.npu()], group_list=ends.long(), split_item=3, group_type=0)[0]
    out = torch_npu.npu_moe_finalize_routing(back, torch.zeros_like(x).npu(), None, torch.zeros(EXPERTS, WIDTH, dtype=dtype).npu(), weights, index, chosen)
    near(out, experts(x, w1, w2, weights.cpu(), chosen.cpu()), dtype)


def test_sigmoid_gate():
    x, bias = torch.randn(TOKENS, 32), torch.randn(32)
    weights, chosen, _ = torch_npu.npu_moe_gating_top_k(x.npu(), 4, bias=bias.npu(), k_group=2, group_count=4, group_select_mode=1, norm_type=1, routed_scaling_factor=2.5)
    scores = torch.sigmoid(x.double())
    choice = (scores + bias).unflatten(1, (4, 8))
    groups = choice.topk(2).values.sum(-1).topk(2).indices
    kept = torch.zeros(TOKENS, 4, dtype=torch.bool).scatter(1, groups, True)
    best = choice.masked_fill(~kept[..., None], -torch.inf).flatten(1).topk(4).indices
    assert torch.equal(chosen.cpu().long(), best)
    picked = scores.gather(1, best)
    near(weights, picked / picked.sum(-1, keepdim=True) * 2.5)


@pytest.mark.parametrize("weighted", [False, True])
def test_permutation_trains(weighted):
    tokens, indices, probs = torch.randn(TOKENS, WIDTH), torch.randint(0, EXPERTS, (TOKENS, K)), torch.rand(TOKENS, K)
    mine = tokens.npu().requires_grad_(), probs.npu().requires_grad_()
    rows, index = torch_npu.npu_moe_token_permute(mine[0], indices.int().npu())
    order = torch.sort(indices.flatten(), stable=True).indices
    near(rows, tokens[order // K])
    out = torch_npu.npu_moe_token_unpermute(rows * 2, index, mine[1] if weighted else None)
    plain = tokens.double().requires_grad_(), probs.double().requires_grad_()
    spread = 2 * plain[0][:, None].expand(-1, K, -1)
    # Without weights nothing tells the call how many experts a token has: each pair comes back alone.
    expected = (spread * plain[1][..., None]).sum(1) if weighted else spread.flatten(0, 1)
    near(out, expected)
    dy = torch.randn(expected.shape)
    out.backward(dy.npu())
    expected.backward(dy.double())
    near(mine[0].grad, plain[0].grad)
    if weighted:
        near(mine[1].grad, plain[1].grad)


def test_quantised_layer():
    """Rows of 8 bits with a scale each, weights of 8 bits with a scale for each column."""
    x, w1, _, logits = layer(torch.bfloat16)
    w8, scale = torch.randint(-127, 128, (EXPERTS, WIDTH, 2 * INNER), dtype=torch.int8), torch.rand(EXPERTS, 2 * INNER) / 500
    chosen = logits.float().topk(K).indices.int().npu()
    rows, _, counts, row_scale = torch_npu.npu_moe_init_routing_v2(x.npu(), chosen, active_num=TOKENS * K, expert_num=EXPERTS, expert_tokens_num_type=1,
                                                                   expert_tokens_num_flag=True, active_expert_range=[0, EXPERTS], quant_mode=1)
    order = torch.sort(chosen.cpu().flatten(), stable=True).indices
    exact = x.double()[order // K]
    assert rows.dtype == torch.int8
    near(rows.cpu().double() * row_scale.cpu().double()[:, None], exact, torch.bfloat16)
    out = torch_npu.npu_grouped_matmul([rows], [w8.npu()], scale=[scale.bfloat16().npu()], per_token_scale=[row_scale], group_list=counts, split_item=3, group_type=0,
                                       group_list_type=1, output_dtype=torch.bfloat16)[0]
    expert = chosen.cpu().flatten()[order].long()
    expected = torch.stack([(rows.cpu()[i].double() @ w8[expert[i]].double()) * scale.bfloat16()[expert[i]].double() * row_scale.cpu()[i].double() for i in range(TOKENS * K)])
    near(out, expected, torch.bfloat16)


def test_group_types():
    a = [torch.randn(m, 8) for m in (3, 5)]
    w = [torch.randn(8, 4), torch.randn(8, 4)]
    for mine, x, y in zip(torch_npu.npu_grouped_matmul([t.npu() for t in a], [t.npu() for t in w], split_item=0, group_type=-1, group_list=None), a, w):
        near(mine, x.double() @ y.double())
    x, y, ends = torch.randn(6, 20), torch.randn(20, 4), torch.tensor([7, 20])
    out = torch_npu.npu_grouped_matmul([x.npu()], [y.npu()], group_list=ends.npu(), split_item=3, group_type=2)[0]
    near(out, torch.stack([x[:, :7].double() @ y[:7].double(), x[:, 7:].double() @ y[7:].double()]))
