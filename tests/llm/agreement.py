"""What the two decoders have to agree on: plain on the CPU, plain on npu, fused on npu."""

from __future__ import annotations

import copy
import time

import torch
import torch_npu

from decoders import SHAPES, Decoder, LatentAttention, Sequence

# Difference of logits as a share of their largest value.
BOUND = {torch.float32: 2e-4, torch.bfloat16: 6e-2, torch.float16: 1e-2}
STEPS = 6


def timed(f):
    f()
    torch.npu.synchronize()
    start = time.perf_counter()
    result = f()
    torch.npu.synchronize()
    return result, time.perf_counter() - start


def difference(a, b):
    """The largest, of all tokens but a quarter: where a rounding makes a gate choose another expert, a token differs more, and those that
    attend to it."""
    return ((a.double().cpu() - b).abs().flatten(0, -2).amax(-1).quantile(0.75) / b.abs().max()).item()


def forward(model, tokens, dtype):
    with torch.no_grad():
        exact = copy.deepcopy(model).double()(tokens, False)
        cpu, npu = copy.deepcopy(model).to(dtype), copy.deepcopy(model).to("npu", dtype)
        _, cpu_time = timed(lambda: cpu(tokens, False))
        rows = []
        for fused in (False, True):
            got, seconds = timed(lambda: npu(tokens.npu(), fused))
            error = max(difference(a, b) for a, b in zip(got, exact) if b is not None)
            rows.append({"what": f"forward, {str(dtype)[6:]}, {'fused' if fused else 'plain'}", "agrees": error <= BOUND[dtype], "error": error, "cpu": cpu_time, "npu": seconds})
    return rows


def train(model, batches, device, fused):
    model = copy.deepcopy(model).to(device)
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=2e-3), []
    for tokens in batches:
        loss = model.loss(tokens.to(device), fused)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


def training(model, vocabulary):
    batches = [torch.randint(0, vocabulary, (2, 33)) for _ in range(STEPS)]
    expected, cpu = timed(lambda: train(model, batches, "cpu", False))
    rows = []
    for fused in (False, True):
        losses, npu = timed(lambda: train(model, batches, "npu", fused))
        error = max(abs(a - b) / abs(b) for a, b in zip(losses, expected))
        rows.append({"what": f"{STEPS} training steps, {'fused' if fused else 'plain'}", "agrees": error < 2e-4, "error": error, "cpu": cpu, "npu": npu})
    return rows


def generation(model, vocabulary):
    prompt, count = torch.randint(0, vocabulary, (1, 21)), 40
    model = model.float()
    expected, cpu = timed(lambda: model.generate(prompt, count))
    npu = copy.deepcopy(model).npu()
    rows = []
    for what, f in (("generation, plain", npu.generate), ("generation, fused, paged cache", npu.serve)):
        got, seconds = timed(lambda: f(prompt.npu(), count))
        same = (got.cpu() == expected).long().cumprod(1).sum().item() - prompt.shape[1]
        rows.append({"what": what, "agrees": same == count, "error": 1 - same / count, "cpu": cpu, "npu": seconds})
    return rows


def latent():
    """DeepSeek's attention in bfloat16 over a paged cache, 13 tokens and 8 more, through npu_mla_prolog, against float64."""
    shape = SHAPES["DeepSeek-R1-shaped"]
    attention, x = LatentAttention(shape), torch.randn(1, 21, shape.width)
    with torch.no_grad():
        exact = copy.deepcopy(attention).double()(x.double(), torch.arange(21), False)
        cpu, npu, rows = copy.deepcopy(attention).bfloat16(), copy.deepcopy(attention).to("npu", torch.bfloat16), x.to("npu", torch.bfloat16)

        def serve():
            sequence, parts = Sequence(shape, 21, rows), []
            for part in rows.split([13, 8], 1):
                parts.append(npu.serve(part, sequence, sequence.layers[0]))
                sequence.length += part.shape[1]
            return torch.cat(parts, 1)

        _, cpu_time = timed(lambda: cpu(x.bfloat16(), torch.arange(21), False))
        got, seconds = timed(serve)
    error = difference(got, exact)
    return [{"what": "latent attention, bfloat16, npu_mla_prolog, paged cache", "agrees": error < BOUND[torch.bfloat16], "error": error, "cpu": cpu_time, "npu": seconds}]


def quantised():
    """Linear layers of 8 bits: rows quantised as they come, against the same arithmetic in float64."""
    x, w = torch.randn(64, 1024), torch.randn(2048, 1024) / 32
    scale = w.abs().amax(1) / 127
    w8 = (w / scale[:, None]).round().to(torch.int8)
    rows, weight, scales, halves = x.half().npu(), w8.npu().t(), scale.npu(), scale.half().npu()

    def dynamic():
        x8, row_scale = torch_npu.npu_dynamic_quant(rows)
        return torch_npu.npu_quant_matmul(x8, weight, scales, pertoken_scale=row_scale, output_dtype=torch.float16), x8, row_scale

    (got, x8, row_scale), npu = timed(dynamic)
    plain, cpu = timed(lambda: torch.nn.functional.linear(x, w))
    exact = (x8.cpu().double() @ w8.double().T) * scale.double() * row_scale.cpu().double()[:, None]
    weights, weight_time = timed(lambda: torch_npu.npu_weight_quant_batchmatmul(rows, weight, halves))
    stored = x.half().double() @ (w8.double() * scale.half().double()[:, None]).T
    result = []
    for what, value, reference, seconds in (("linear, rows and weights of 8 bits", got, exact, npu), ("linear, weights of 8 bits", weights, stored, weight_time)):
        error, lost = difference(value, reference), difference(value, plain.double())
        result.append({"what": what, "agrees": error < 5e-3 and lost < 3e-2, "error": error, "cpu": cpu, "npu": seconds})
    return result


def run():
    rows = []
    for name, shape in SHAPES.items():
        torch.manual_seed(0)
        model = Decoder(shape)
        tokens = torch.randint(0, shape.vocabulary, (2, 48))
        found = [row for dtype in BOUND for row in forward(model, tokens, dtype)] + training(model, shape.vocabulary) + generation(model, shape.vocabulary)
        rows += [{"model": name, **row} for row in found]
    return rows + [{"model": "a layer", **row} for row in latent() + quantised()]
