"""A 4-layer character transformer on English text that ships with Python: the language reference in pydoc_data."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from training import progress

CONTEXT, BATCH, WIDTH, HEADS, LAYERS = 64, 16, 128, 4, 4


def text() -> str:
    from pydoc_data import topics

    whole = "\n".join(topics.topics[k] for k in sorted(topics.topics))
    return "".join(c for c in whole if c.isascii() and (c.isprintable() or c == "\n"))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, HEADS, c // HEADS).permute(2, 0, 3, 1, 4)
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(a.transpose(1, 2).reshape(b, t, c))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class CharacterModel(nn.Module):
    def __init__(self, characters: int) -> None:
        super().__init__()
        self.embed, self.position = nn.Embedding(characters, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, characters)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens) + self.position(torch.arange(tokens.shape[1], device=tokens.device))
        return self.head(self.norm(self.blocks(x)))


class Corpus:
    def __init__(self) -> None:
        source = text()
        self.characters = sorted(set(source))
        index = {c: i for i, c in enumerate(self.characters)}
        self.tokens = torch.tensor([index[c] for c in source], dtype=torch.int64)
        self.index = index

    def batch(self, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        starts = torch.randint(len(self.tokens) - CONTEXT - 1, (BATCH,), generator=generator)
        rows = torch.stack([self.tokens[s:s + CONTEXT + 1] for s in starts.tolist()])
        return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


def loss_of(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    logits = model(inputs)
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def make_step(device: torch.device, corpus: Corpus):
    """A model on `device` and a function that trains it on one batch that lies there."""
    torch.manual_seed(0)
    model = CharacterModel(len(corpus.characters)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    inputs, targets = (t.to(device) for t in corpus.batch(torch.Generator().manual_seed(1)))

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(model, inputs, targets)
        loss.backward()
        optimizer.step()
        return loss

    return model, step


def train(device: torch.device, corpus: Corpus, steps: int = 600) -> tuple[nn.Module, float]:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = CharacterModel(len(corpus.characters)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    losses = []
    with progress(steps, f"characters on {device}") as bar:
        for i in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = 2e-3 * min(1, (i + 1) / 30) * (0.55 + 0.45 * math.cos(math.pi * i / steps))
            inputs, targets = (t.to(device, non_blocking=True) for t in corpus.batch(generator))
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(model, inputs, targets)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.detach())
            bar.update()
            if i % 50 == 49:
                bar.set_postfix(loss=f"{torch.stack(losses[-50:]).mean().item():.3f}")
    return model, torch.stack(losses[-50:]).mean().item()


@torch.no_grad()
def generate(model: nn.Module, device: torch.device, corpus: Corpus, prompt: str, length: int = 240) -> str:
    model.eval()
    torch.manual_seed(0)
    tokens = torch.tensor([[corpus.index[c] for c in prompt]], device=device)
    for _ in range(length):
        logits = model(tokens[:, -CONTEXT:])[:, -1] / 0.7
        tokens = torch.cat([tokens, torch.multinomial(F.softmax(logits, -1), 1)], 1)
    return "".join(corpus.characters[t] for t in tokens[0].tolist())
