"""Attention and caches for inference through torch_npu's own calls, against plain PyTorch on the CPU in float64."""

import pytest
import torch
import torch_npu

HALF = dict(rtol=1e-2, atol=1e-2)
HEADS, KV, DIM, PAGE, BLOCKS = 4, 2, 32, 16, 12


def near(actual, expected, **tolerance):
    torch.testing.assert_close(actual.cpu().double(), expected.double(), **(tolerance or HALF))


def attention(q, k, v, scale, causal=True):
    """q [queries, heads, dim], k and v [keys, kv heads, dim]; the queries are the last of the keys' tokens."""
    group = q.shape[1] // k.shape[1]
    q, k, v = (t.double().transpose(0, 1) for t in (q, k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)))
    s = q @ k.mT * scale
    if causal:
        s = s.masked_fill(torch.arange(k.shape[1])[None] > torch.arange(q.shape[1])[:, None] + k.shape[1] - q.shape[1], -torch.inf)
    return (torch.softmax(s, -1) @ v).transpose(0, 1)


class Serving:
    """Sequences that grow in a paged cache, as a server keeps them."""

    def __init__(self, count, width_key, width_value, heads):
        self.table = torch.randperm(BLOCKS)[: count * (BLOCKS // count)].reshape(count, -1).int()
        self.lengths = [0] * count
        self.k = torch.zeros(BLOCKS, PAGE, heads, width_key, dtype=torch.float16).npu()
        self.v = torch.zeros(BLOCKS, PAGE, heads, width_value, dtype=torch.float16).npu()
        self.keys, self.values = ([[] for _ in range(count)] for _ in range(2))

    def append(self, pieces):
        """pieces: (key, value) of each sequence's new tokens."""
        slots = []
        for b, (k, v) in enumerate(pieces):
            for i in range(len(k)):
                at = self.lengths[b] + i
                slots.append(self.table[b, at // PAGE].item() * PAGE + at % PAGE)
            self.lengths[b] += len(k)
            self.keys[b].append(k)
            self.values[b].append(v)
        rows = [torch.cat([p[i] for p in pieces]).npu() for i in range(2)]
        torch_npu.npu_scatter_pa_kv_cache(*rows, self.k, self.v, torch.tensor(slots, dtype=torch.int32).npu(), cache_mode="Norm")


def test_paged_serving():
    """Prompts of three lengths, then single tokens: what is in the cache is attended to."""
    served = Serving(3, DIM, DIM, KV)
    for step, lengths in enumerate(([5, 17, 1], [1, 1, 1], [1, 1, 1], [4, 1, 9])):
        served.append([tuple(torch.randn(n, KV, DIM).half() for _ in range(2)) for n in lengths])
        q = torch.randn(sum(lengths), HEADS, DIM).half()
        mask = torch.ones(2048, 2048, dtype=torch.int8).triu(1).npu()
        out, _ = torch_npu.npu_fused_infer_attention_score(
            q.npu(), served.k.flatten(2), served.v.flatten(2), atten_mask=mask, block_table=served.table.npu(), input_layout="TND", block_size=PAGE,
            actual_seq_lengths=torch.tensor(lengths).cumsum(0).tolist(), actual_seq_lengths_kv=served.lengths, num_key_value_heads=KV, num_heads=HEADS, scale=0.2, sparse_mode=3)
        expected = torch.cat([attention(part, torch.cat(served.keys[b]), torch.cat(served.values[b]), 0.2) for b, part in enumerate(q.split(lengths))])
        near(out, expected)
    gathered = torch.zeros(sum(served.lengths), KV, DIM, dtype=torch.float16).npu(), torch.zeros(sum(served.lengths), KV, DIM, dtype=torch.float16).npu()
    torch_npu.npu_gather_pa_kv_cache(served.k, served.v, served.table.npu(), torch.tensor(served.lengths, dtype=torch.int32).npu(), *gathered, is_seq_lens_cumsum=False)
    assert torch.equal(gathered[0].cpu(), torch.cat([torch.cat(k) for k in served.keys]))
    assert torch.equal(gathered[1].cpu(), torch.cat([torch.cat(v) for v in served.values]))


def test_latent_attention():
    """DeepSeek's: the cache holds a compressed row and a rotated part for all heads."""
    rank, rope, tokens, heads = 512, 64, 9, 8
    kv, gamma = torch.randn(1, 1, tokens, rank + rope).half(), torch.rand(rank).half()
    angle = torch.randn(1, 1, tokens, rope).half()
    cos, sin = angle.cos(), angle.sin()
    k_cache, c_cache = torch.zeros(BLOCKS, PAGE, 1, rope, dtype=torch.float16).npu(), torch.zeros(BLOCKS, PAGE, 1, rank, dtype=torch.float16).npu()
    slots = torch.arange(tokens) + 3 * PAGE
    _, _, k_out, c_out = torch_npu.npu_kv_rmsnorm_rope_cache(kv.npu(), gamma.npu(), cos.npu(), sin.npu(), slots.npu(), k_cache, c_cache, epsilon=1e-6, cache_mode="PA_BNSD",
                                                             is_output_kv=True)
    x = kv.double()
    c = x[..., :rank] / (x[..., :rank].square().mean(-1, keepdim=True) + 1e-6).sqrt() * gamma.double()
    r = torch.cat([x[..., rank::2], x[..., rank + 1::2]], -1)
    r = r * cos.double() + torch.cat([-r[..., rope // 2:], r[..., :rope // 2]], -1) * sin.double()
    near(c_out, c)
    near(k_out, r)
    near(torch_npu.npu_interleave_rope(kv[..., rank:].contiguous().npu(), cos.npu(), sin.npu()), r)
    q, q_rope = torch.randn(1, heads, rank).half(), torch.randn(1, heads, rope).half()
    out, _ = torch_npu.npu_fused_infer_attention_score(
        q.npu(), c_cache.view(BLOCKS, 1, PAGE, rank), c_cache.view(BLOCKS, 1, PAGE, rank), query_rope=q_rope.npu(), key_rope=k_cache.view(BLOCKS, 1, PAGE, rope), num_heads=heads,
        num_key_value_heads=1, input_layout="TND", scale=0.04, block_table=torch.tensor([[3, 0]], dtype=torch.int32).npu(), block_size=PAGE, actual_seq_lengths=[1],
        actual_seq_lengths_kv=[tokens], sparse_mode=0)
    near(out, attention(torch.cat([q, q_rope], -1), torch.cat([c, r], -1)[0].transpose(0, 1), c[0].transpose(0, 1), 0.04))


@pytest.mark.parametrize("layout", ["BSH", "BNSD"])
def test_older_calls(layout):
    q, k, v = (torch.randn(2, 6, n, DIM).half() for n in (HEADS, KV, KV))
    turn = (lambda t: t.flatten(2)) if layout == "BSH" else (lambda t: t.transpose(1, 2).contiguous())
    mask = torch.ones(6, 6, dtype=torch.bool).triu(1)
    out = torch_npu.npu_prompt_flash_attention(turn(q).npu(), turn(k).npu(), turn(v).npu(), atten_mask=mask.npu(), num_heads=HEADS, num_key_value_heads=KV, scale_value=0.2,
                                               input_layout=layout, sparse_mode=1)
    near(out, turn(torch.stack([attention(q[b], k[b], v[b], 0.2) for b in range(2)])))
    one = q[:, :1].contiguous()
    out = torch_npu.npu_incre_flash_attention(turn(one).npu(), turn(k).npu(), turn(v).npu(), num_heads=HEADS, num_key_value_heads=KV, scale_value=0.2, input_layout=layout,
                                              actual_seq_lengths=[6, 3])
    near(out, turn(torch.stack([attention(one[b], k[b, :n], v[b, :n], 0.2) for b, n in enumerate((6, 3))])))


def test_rotary_with_table():
    positions, q, k, table = torch.randint(0, 40, (7,)), torch.randn(7, 3 * DIM).half(), torch.randn(7, DIM).half(), torch.randn(40, DIM).half()
    for mine, x in zip(torch_npu.npu_mrope(positions.npu(), q.npu(), k.npu(), table.npu(), DIM, mrope_section=[0, 0, 0], rotary_mode="half"), (q, k)):
        cos, sin = (t[:, None] for t in table.double()[positions].chunk(2, -1))
        a, b = x.double().reshape(7, -1, DIM).chunk(2, -1)
        near(mine, torch.cat([a * cos - b * sin, b * cos + a * sin], -1).flatten(1))
