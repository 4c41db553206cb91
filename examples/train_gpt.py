#!/usr/bin/env python3
"""Trains a small GPT (10 million parameters) on the English of Python's reference, in bfloat16, as one trains a large one.

    anycann run python examples/train_gpt.py [--minutes 20] [--steps N] [--device npu] [--compare 40] [--out build/train_gpt]

Autocast to bfloat16, activation checkpointing, the fused AdamW of torch_npu, gradient clipping, a cosine schedule with warm-up. With
--compare the first steps run again on the CPU device, from the same weights over the same batches, in bfloat16 and in float32: the
losses on npu may differ from the CPU's by what bfloat16 itself changes. Writes OUT/train_gpt.json and OUT/train_gpt.png, and prints a
sample of what the model writes.
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from characters import text
from training import progress, synchronize

CONTEXT, BATCH, WIDTH, HEADS, LAYERS = 128, 8, 320, 5, 8
RATE, WARM_UP, DECAY, CLIP = 1e-3, 40, 0.1, 1.0
EVALUATE_EVERY, EVALUATION_BATCHES = 100, 8


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, HEADS, c // HEADS).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, c))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Gpt(nn.Module):
    def __init__(self, symbols: int) -> None:
        super().__init__()
        self.embed, self.position = nn.Embedding(symbols, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, symbols, bias=False)
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=0.02)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens) + self.position(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if torch.is_grad_enabled() else block(x)
        return self.head(self.norm(x))


class Corpus:
    """Characters of the text; its last twentieth is kept for evaluation."""

    def __init__(self) -> None:
        source = text()
        self.symbols = sorted(set(source))
        index = {c: i for i, c in enumerate(self.symbols)}
        tokens = torch.tensor([index[c] for c in source])
        cut = len(tokens) * 19 // 20
        self.parts = {"training": tokens[:cut], "evaluation": tokens[cut:]}
        self.index = index

    def batch(self, part: str, number: int) -> torch.Tensor:
        """[BATCH, CONTEXT + 1] of batch `number`: the same on every device."""
        tokens = self.parts[part]
        starts = torch.randint(len(tokens) - CONTEXT - 1, (BATCH,), generator=torch.Generator().manual_seed(number))
        return torch.stack([tokens[s:s + CONTEXT + 1] for s in starts.tolist()])


class Training:
    def __init__(self, corpus: Corpus, device: torch.device, dtype: torch.dtype, steps: int) -> None:
        torch.manual_seed(0)
        self.corpus, self.device, self.dtype, self.steps = corpus, device, dtype, steps
        self.model = Gpt(len(corpus.symbols)).to(device)
        options = dict(lr=RATE, betas=(0.9, 0.95), weight_decay=DECAY)
        if device.type == "npu":
            import torch_npu
            self.optimizer = torch_npu.optim.NpuFusedAdamW(self.model.parameters(), **options)
        else:
            self.optimizer = torch.optim.AdamW(self.model.parameters(), **options)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self.rate)

    def rate(self, step: int) -> float:
        if step < WARM_UP:
            return (step + 1) / WARM_UP
        return 0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, (step - WARM_UP) / max(1, self.steps - WARM_UP))))

    def loss(self, tokens: torch.Tensor) -> torch.Tensor:
        tokens = tokens.to(self.device)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            logits = self.model(tokens[:, :-1])
        return F.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())

    def step(self, number: int) -> float:
        self.optimizer.zero_grad()
        loss = self.loss(self.corpus.batch("training", number))
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()
        self.schedule.step()
        return loss.item()

    @torch.no_grad()
    def evaluate(self) -> float:
        return sum(self.loss(self.corpus.batch("evaluation", i)).item() for i in range(EVALUATION_BATCHES)) / EVALUATION_BATCHES

    @torch.no_grad()
    def sample(self, start: str, count: int) -> str:
        tokens = torch.tensor([[self.corpus.index[c] for c in start]], device=self.device)
        generator = torch.Generator().manual_seed(1)
        for _ in range(count):
            with torch.autocast(self.device.type, self.dtype):
                logits = self.model(tokens[:, -CONTEXT:])[0, -1]
            p = torch.softmax(logits.float().cpu() / 0.7, -1)
            tokens = torch.cat([tokens, torch.multinomial(p, 1, generator=generator)[None].to(self.device)], 1)
        return "".join(self.corpus.symbols[i] for i in tokens[0].tolist())


def train(run: Training, minutes: float, steps: int | None) -> dict:
    """Until the time is over or the steps are done."""
    start, losses, evaluations = time.monotonic(), [], []
    planned = steps or run.steps
    with progress(planned, f"training on {run.device.type}") as bar:
        while True:
            number = len(losses)
            seconds = time.monotonic() - start
            if number % EVALUATE_EVERY == 0 or number == planned:
                evaluations.append({"step": number, "minutes": seconds / 60, "loss": run.evaluate()})
            if number >= planned or (steps is None and seconds > 60 * minutes):
                break
            losses.append(run.step(number))
            bar.update()
            bar.set_postfix_str(f"loss {losses[-1]:.3f}, evaluation {evaluations[-1]['loss']:.3f}")
    synchronize(run.device)
    if evaluations[-1]["step"] != len(losses):
        evaluations.append({"step": len(losses), "minutes": (time.monotonic() - start) / 60, "loss": run.evaluate()})
    return {"losses": losses, "evaluations": evaluations, "seconds": time.monotonic() - start}


def compare(corpus: Corpus, losses: list[float], count: int, steps: int) -> dict:
    """The first steps again on the CPU device, in both types. Differences are means over the steps."""
    again = {}
    for dtype in (torch.bfloat16, torch.float32):
        run = Training(corpus, torch.device("cpu"), dtype, steps)
        with progress(count, f"{str(dtype)[6:]} on the CPU device") as bar:
            again[str(dtype)[6:]] = []
            for number in range(count):
                again[str(dtype)[6:]].append(run.step(number))
                bar.update()
    mean = lambda a, b: sum(abs(x - y) for x, y in zip(a, b)) / count  # noqa: E731
    difference, noise = mean(losses, again["bfloat16"]), mean(again["bfloat16"], again["float32"])
    return {"steps": count, "cpu": again, "difference": difference, "noise": noise, "agrees": difference <= 2 * noise + 1e-3}


def draw(result: dict, path: pathlib.Path) -> None:
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plot

    figure, axes = plot.subplots(figsize=(8, 4.2))
    axes.plot(result["losses"], color="#9bbad6", linewidth=0.8, label="each step")
    axes.plot([e["step"] for e in result["evaluations"]], [e["loss"] for e in result["evaluations"]], color="#1f4e79", marker="o", markersize=3, label="evaluation")
    if "comparison" in result:
        axes.plot(result["comparison"]["cpu"]["bfloat16"], color="#c0504d", linewidth=1.2, label="the same steps on the CPU device")
    axes.set(xlabel="step", ylabel="loss (nats per character)", title=f"{result['parameters'] / 1e6:.1f} M parameters, bfloat16, {result['seconds'] / 60:.1f} minutes on {result['device']}")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20, help="of training (20)")
    parser.add_argument("--steps", type=int, help="train so many steps, however long they take")
    parser.add_argument("--device", choices=["npu", "cpu"], default="npu")
    parser.add_argument("--compare", type=int, default=40, metavar="N", help="steps to run again on the CPU device (40; 0: none)")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("build/train_gpt"))
    arguments = parser.parse_args()
    if arguments.device == "npu":
        import torch_npu  # noqa: F401
    device = torch.device(arguments.device)
    corpus = Corpus()
    # The schedule needs to know how long it lasts: the time of some steps tells.
    trial = Training(corpus, device, torch.bfloat16, 1000)
    trial.step(0)
    begin = time.monotonic()
    for i in range(3):
        trial.step(i)
    steps = arguments.steps or max(1, int(60 * arguments.minutes / ((time.monotonic() - begin) / 3)))
    del trial
    run = Training(corpus, device, torch.bfloat16, steps)
    parameters = sum(p.numel() for p in run.model.parameters())
    print(f"{parameters / 1e6:.1f} M parameters, {sum(len(p) for p in corpus.parts.values()) / 1e3:.0f} thousand characters, about {steps} steps of {BATCH * CONTEXT} characters", flush=True)
    result = {"device": arguments.device, "parameters": parameters, **train(run, arguments.minutes, arguments.steps)}
    if arguments.compare:
        result["comparison"] = compare(corpus, result["losses"], min(arguments.compare, len(result["losses"])), steps)
    result["sample"] = run.sample("The statement ", 400)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "train_gpt.json").write_text(json.dumps(result, indent=1))
    draw(result, arguments.out / "train_gpt.png")
    count, last = len(result["losses"]), result["evaluations"][-1]["loss"]
    print(f"\n{count} steps in {result['seconds'] / 60:.1f} minutes, {1e3 * result['seconds'] / count:.0f} ms each; evaluation loss {result['evaluations'][0]['loss']:.3f} -> {last:.3f}")
    print(f"sample:\n{result['sample']}\n")
    if "comparison" not in result:
        return 0
    c = result["comparison"]
    print(f"first {c['steps']} steps: npu and CPU differ by {c['difference']:.4f} in the mean, the CPU's bfloat16 and float32 by {c['noise']:.4f}: {'they agree' if c['agrees'] else 'THEY DISAGREE'}")
    return 0 if c["agrees"] else 1


if __name__ == "__main__":
    sys.exit(main())
