"""Two decoders, each written plainly in PyTorch and with torch_npu's fused operators, from the same weights: Llama-shaped, and
DeepSeek-R1-shaped (latent attention, sigmoid-gated experts in groups beside a shared one, a head that predicts one more token)."""

from __future__ import annotations

import dataclasses
import math

import torch
import torch.nn.functional as F
import torch_npu
from torch import nn

PAGE = 16


@dataclasses.dataclass
class Shape:
    vocabulary: int = 256
    width: int = 128
    layers: int = 3
    heads: int = 4
    kv_heads: int = 2
    head: int = 32
    inner: int = 256
    # DeepSeek's
    latent: bool = False
    q_rank: int = 64
    kv_rank: int = 64
    rope: int = 32
    experts: int = 8
    groups: int = 4
    kept_groups: int = 2
    chosen: int = 2
    expert_inner: int = 64
    scaling: float = 2.5


class Norm(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x, fused):
        if fused:
            return torch_npu.npu_rms_norm(x, self.weight, 1e-6)[0]
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.weight


def angles(positions, size, like):
    """Cosines and sines [1, S, 1, size] of positions [S], halves alike."""
    frequency = 10000.0 ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
    a = positions.cpu().double()[:, None] * frequency
    a = torch.cat([a, a], -1)[None, :, None]
    return a.cos().to(like.device, like.dtype), a.sin().to(like.device, like.dtype)


def rotate(x, cos, sin, fused):
    if fused:
        return torch_npu.npu_rotary_mul(x, cos, sin)
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


def attend(q, k, v, scale, fused):
    """Causal; q [B, S, N, D], k and v [B, S, N or fewer, D]."""
    if fused:
        mask = torch.ones(2048, 2048, dtype=torch.bool, device=q.device).triu(1)
        return torch_npu.npu_fusion_attention(q, k, v, q.shape[2], "BSND", atten_mask=mask, scale=scale, sparse_mode=2)[0]
    group = q.shape[2] // k.shape[2]
    q, k, v = (t.transpose(1, 2) for t in (q, k.repeat_interleave(group, 2), v.repeat_interleave(group, 2)))
    s = (q @ k.mT * scale).masked_fill(torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).triu(1), -torch.inf)
    return (torch.softmax(s, -1) @ v).transpose(1, 2)


def gated(x, fused):
    if fused:
        return torch_npu.npu_swiglu(x)
    a, b = x.chunk(2, -1)
    return F.silu(a) * b


class Mlp(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.up, self.down = nn.Linear(width, 2 * inner, bias=False), nn.Linear(inner, width, bias=False)

    def forward(self, x, fused):
        return self.down(gated(self.up(x), fused))


class Cache:
    """Pages of one layer: what its attention keeps of each token."""

    def __init__(self, blocks, rows, like):
        self.pages = [torch.zeros(blocks, PAGE, heads, size, device=like.device, dtype=like.dtype) for heads, size in rows]


class Sequence:
    """One sequence in a paged cache: blocks in an order that isn't that of the tokens."""

    def __init__(self, shape, most, like):
        blocks = (most + PAGE - 1) // PAGE
        self.table = torch.arange(blocks - 1, -1, -1, dtype=torch.int32, device=like.device)[None]
        self.length = 0
        rows = [(1, shape.rope), (1, shape.kv_rank)] if shape.latent else [(shape.kv_heads, shape.head)] * 2
        self.layers = [Cache(blocks, rows, like) for _ in range(shape.layers)]

    def slots(self, count):
        at = torch.arange(self.length, self.length + count)
        return (self.table[0].cpu()[at // PAGE] * PAGE + at % PAGE).to(self.table.device)


class Attention(nn.Module):
    def __init__(self, s: Shape):
        super().__init__()
        self.s = s
        self.q, self.k, self.v = (nn.Linear(s.width, n * s.head, bias=False) for n in (s.heads, s.kv_heads, s.kv_heads))
        self.out = nn.Linear(s.heads * s.head, s.width, bias=False)

    def parts(self, x, positions, fused):
        s, (b, n, _) = self.s, x.shape
        cos, sin = angles(positions, s.head, x)
        q, k, v = (f(x).view(b, n, -1, s.head) for f in (self.q, self.k, self.v))
        return rotate(q, cos, sin, fused), rotate(k, cos, sin, fused), v

    def forward(self, x, positions, fused):
        return self.out(attend(*self.parts(x, positions, fused), 1 / math.sqrt(self.s.head), fused).flatten(2))

    def serve(self, x, sequence, cache):
        """The next tokens of a sequence, with the fused operators over its pages. x: [1, S, width]."""
        s, n = self.s, x.shape[1]
        q, k, v = (t[0] for t in self.parts(x, torch.arange(sequence.length, sequence.length + n), True))
        torch_npu.npu_scatter_pa_kv_cache(k.contiguous(), v.contiguous(), *cache.pages, sequence.slots(n), cache_mode="Norm")
        mask = torch.ones(2048, 2048, dtype=torch.int8, device=x.device).triu(1)
        out, _ = torch_npu.npu_fused_infer_attention_score(
            q, cache.pages[0].flatten(2), cache.pages[1].flatten(2), atten_mask=mask, block_table=sequence.table, block_size=PAGE, input_layout="TND", actual_seq_lengths=[n],
            actual_seq_lengths_kv=[sequence.length + n], num_heads=s.heads, num_key_value_heads=s.kv_heads, scale=1 / math.sqrt(s.head), sparse_mode=3)
        return self.out(out.flatten(1)[None])


def interleaved(x):
    """Even numbers, then odd ones: as npu_interleave_rope brings them before it turns them."""
    return torch.cat([x[..., ::2], x[..., 1::2]], -1)


class LatentAttention(nn.Module):
    def __init__(self, s: Shape):
        super().__init__()
        self.s = s
        self.q_a, self.q_norm, self.q_b = nn.Linear(s.width, s.q_rank, bias=False), Norm(s.q_rank), nn.Linear(s.q_rank, s.heads * (s.head + s.rope), bias=False)
        self.kv_a, self.kv_norm = nn.Linear(s.width, s.kv_rank + s.rope, bias=False), Norm(s.kv_rank)
        self.k_b, self.v_b = (nn.Parameter(torch.randn(s.heads, s.head, s.kv_rank) / math.sqrt(s.kv_rank)) for _ in range(2))
        self.out = nn.Linear(s.heads * s.head, s.width, bias=False)

    @property
    def scale(self):
        return 1 / math.sqrt(self.s.head + self.s.rope)

    def queries(self, x, cos, sin, fused):
        s = self.s
        q = self.q_b(self.q_norm(self.q_a(x), fused)).view(*x.shape[:2], s.heads, s.head + s.rope)
        plain, turned = q.split([s.head, s.rope], -1)
        return plain, rotate(interleaved(turned), cos, sin, fused)

    def forward(self, x, positions, fused):
        s = self.s
        cos, sin = angles(positions, s.rope, x)
        q, q_rope = self.queries(x, cos, sin, fused)
        c, k_rope = self.kv_a(x).split([s.kv_rank, s.rope], -1)
        c, k_rope = self.kv_norm(c, fused), rotate(interleaved(k_rope[:, :, None]), cos, sin, fused)
        k, v = (torch.einsum("bsr,ndr->bsnd", c, w) for w in (self.k_b, self.v_b))
        k = torch.cat([k, k_rope.expand(-1, -1, s.heads, -1)], -1)
        return self.out(attend(torch.cat([q, q_rope], -1), k, v, self.scale, fused).flatten(2))

    def serve(self, x, sequence, cache):
        """The compressed rows are what is kept: queries go into their space and results come out of it."""
        s, n = self.s, x.shape[1]
        cos, sin = angles(torch.arange(sequence.length, sequence.length + n), s.rope, x)
        slots = sequence.slots(n).long()
        if x.dtype == torch.bfloat16:  # the type that npu_mla_prolog makes
            q, q_rope, *_ = torch_npu.npu_mla_prolog_v3(
                x[0], *(f.weight.t().contiguous() for f in (self.q_a, self.q_b)), self.k_b, self.kv_a.weight.t().contiguous(), self.q_norm.weight, self.kv_norm.weight,
                sin.view(n, -1), cos.view(n, -1), cache.pages[1], cache.pages[0], cache_index=slots, rmsnorm_epsilon_cq=1e-6, rmsnorm_epsilon_ckv=1e-6)
        else:
            q, q_rope = (t[0] for t in self.queries(x, cos, sin, True))
            torch_npu.npu_kv_rmsnorm_rope_cache(self.kv_a(x)[:, None], self.kv_norm.weight, cos.transpose(1, 2).contiguous(), sin.transpose(1, 2).contiguous(), slots,
                                                *cache.pages, epsilon=1e-6, cache_mode="PA_BNSD", is_output_kv=True)
            q = torch.einsum("tnd,ndr->tnr", q, self.k_b).contiguous()
        rope, rows = (page.transpose(1, 2) for page in cache.pages)
        mask = torch.ones(2048, 2048, dtype=torch.int8, device=x.device).triu(1)
        out, _ = torch_npu.npu_fused_infer_attention_score(
            q, rows, rows, query_rope=q_rope.contiguous(), key_rope=rope, atten_mask=mask, block_table=sequence.table, block_size=PAGE, input_layout="TND", actual_seq_lengths=[n],
            actual_seq_lengths_kv=[sequence.length + n], num_heads=s.heads, num_key_value_heads=1, scale=self.scale, sparse_mode=3)
        return self.out(torch.einsum("tnr,ndr->tnd", out, self.v_b).flatten(1)[None])


class Experts(nn.Module):
    def __init__(self, s: Shape):
        super().__init__()
        self.s = s
        self.gate, self.bias = nn.Linear(s.width, s.experts, bias=False), nn.Buffer(torch.randn(s.experts) / 10)
        self.up = nn.Parameter(torch.randn(s.experts, s.width, 2 * s.expert_inner) / math.sqrt(s.width))
        self.down = nn.Parameter(torch.randn(s.experts, s.expert_inner, s.width) / math.sqrt(s.expert_inner))
        self.shared = Mlp(s.width, s.expert_inner)

    def choose(self, x):
        """Weights and experts of each token; the bias counts for the choice alone."""
        s = self.s
        scores = torch.sigmoid(self.gate(x))
        choice = (scores + self.bias).detach()
        best = choice.unflatten(-1, (s.groups, -1)).topk(2, -1).values.sum(-1).topk(s.kept_groups, -1).indices
        kept = torch.zeros(*x.shape[:-1], s.groups, device=x.device).scatter(-1, best, 1.0).repeat_interleave(s.experts // s.groups, -1)
        chosen = choice.masked_fill(kept == 0, -torch.inf).topk(s.chosen, -1).indices
        weights = scores.gather(-1, chosen)
        return weights / (weights.sum(-1, keepdim=True) + 1e-20) * s.scaling, chosen

    def forward(self, x, fused):
        rows = x.flatten(0, 1)
        if fused and not torch.is_grad_enabled():
            return (self.serve(rows) + self.shared(rows, True)).view_as(x)
        weights, chosen = self.choose(rows)
        if fused:
            permuted, index = torch_npu.npu_moe_token_permute(rows, chosen.int())
            counts = torch.bincount(chosen.flatten().cpu(), minlength=self.s.experts).tolist()
            parts = [gated(part @ self.up[e], True) @ self.down[e] for e, part in enumerate(permuted.split(counts))]
            out = torch_npu.npu_moe_token_unpermute(torch.cat(parts), index, weights)
        else:
            out = torch.zeros_like(rows)
            for e in range(self.s.experts):
                token, place = (chosen == e).nonzero(as_tuple=True)
                out = out.index_add(0, token, gated(rows[token] @ self.up[e], False) @ self.down[e] * weights[token, place][:, None])
        return (out + self.shared(rows, fused)).view_as(x)

    def serve(self, rows):
        s = self.s
        weights, chosen, _ = torch_npu.npu_moe_gating_top_k(self.gate(rows), s.chosen, bias=self.bias.to(rows.dtype), k_group=s.kept_groups, group_count=s.groups, group_select_mode=1,
                                                            norm_type=1, routed_scaling_factor=s.scaling)
        expanded, index, counts, _ = torch_npu.npu_moe_init_routing_v2(rows, chosen, active_num=chosen.numel(), expert_num=s.experts, expert_tokens_num_type=1,
                                                                       expert_tokens_num_flag=True, active_expert_range=[0, s.experts], quant_mode=-1)
        groups = dict(group_list=counts, split_item=3, group_type=0, group_list_type=1)
        hidden = torch_npu.npu_swiglu(torch_npu.npu_grouped_matmul([expanded], [self.up], **groups)[0])
        back = torch_npu.npu_grouped_matmul([hidden], [self.down], **groups)[0]
        return torch_npu.npu_moe_finalize_routing(back, None, None, None, weights, index, None, drop_pad_mode=2)


class Block(nn.Module):
    def __init__(self, s: Shape, dense: bool):
        super().__init__()
        self.before, self.after = Norm(s.width), Norm(s.width)
        self.attention = LatentAttention(s) if s.latent else Attention(s)
        self.mlp = Mlp(s.width, s.inner) if dense else Experts(s)

    def forward(self, x, positions, fused):
        x = x + self.attention(self.before(x, fused), positions, fused)
        return x + self.mlp(self.after(x, fused), fused)

    def serve(self, x, sequence, cache):
        attended = self.attention.serve(self.before(x, True), sequence, cache)
        normed, _, x = torch_npu.npu_add_rms_norm(x, attended, self.after.weight, 1e-6)
        return x + self.mlp(normed, True)


class Decoder(nn.Module):
    def __init__(self, s: Shape):
        super().__init__()
        self.s = s
        self.embedding, self.norm = nn.Embedding(s.vocabulary, s.width), Norm(s.width)
        self.blocks = nn.ModuleList(Block(s, dense=not s.latent or i == 0) for i in range(s.layers))
        self.head = nn.Linear(s.width, s.vocabulary, bias=False)
        if s.latent:  # predicts the token after the next from the last state and the next token
            self.next_norms = nn.ModuleList(Norm(s.width) for _ in range(2))
            self.next_projection, self.next_block = nn.Linear(2 * s.width, s.width, bias=False), Block(s, dense=False)

    def forward(self, tokens, fused):
        """Logits [B, S, vocabulary], and [B, S - 1, vocabulary] of one token more where the model has that head."""
        x, positions = self.embedding(tokens), torch.arange(tokens.shape[1])
        for block in self.blocks:
            x = block(x, positions, fused)
        logits = self.head(self.norm(x, fused))
        if not self.s.latent:
            return logits, None
        state, following = self.next_norms[0](x[:, :-1], fused), self.next_norms[1](self.embedding(tokens[:, 1:]), fused)
        more = self.next_block(self.next_projection(torch.cat([state, following], -1)), positions[:-1], fused)
        return logits, self.head(self.norm(more, fused))

    def loss(self, tokens, fused):
        logits, more = self(tokens[:, :-1], fused)
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        return loss if more is None else loss + 0.3 * F.cross_entropy(more.flatten(0, 1), tokens[:, 2:].flatten())

    def generate(self, prompt, count):
        """Greedy, the whole sequence again for each token."""
        tokens = prompt
        with torch.no_grad():
            for _ in range(count):
                tokens = torch.cat([tokens, self(tokens, False)[0][:, -1:].argmax(-1)], 1)
        return tokens

    def serve(self, prompt, count):
        """Greedy over a paged cache, with the fused operators; one sequence."""
        tokens = prompt
        with torch.no_grad():
            sequence, fed = Sequence(self.s, prompt.shape[1] + count, self.head.weight), prompt
            for _ in range(count):
                x = self.embedding(fed)
                for block, cache in zip(self.blocks, sequence.layers):
                    x = block.serve(x, sequence, cache)
                sequence.length += fed.shape[1]
                fed = self.head(self.norm(x[:, -1:], True)).argmax(-1)
                tokens = torch.cat([tokens, fed], 1)
        return tokens


SHAPES = {"Llama-shaped": Shape(), "DeepSeek-R1-shaped": Shape(latent=True)}
