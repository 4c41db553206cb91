"""Trains one model on npu and on torch's CPU device in float32, and in float64 on the CPU as the reference for both.

Errors are relative: of the output and of the first step's whole gradient the 2-norm of the difference by that of the
reference; of the losses the largest over the steps.
"""

from __future__ import annotations

import copy
import dataclasses

import torch

STEPS = 3
# What npu may differ from the float64 reference, or this many times what the CPU's float32 differs where that is more: a
# rounding error that changes a ReLU's sign changes a whole gradient, and of millions some do.
FACTOR = 4
TOLERANCE = {"output": 1e-4, "losses": 1e-4, "gradient": 1e-3}


@dataclasses.dataclass
class Record:
    output: torch.Tensor
    losses: list[float]
    gradient: torch.Tensor


def moved(tensors, device, dtype):
    return [t.to(device, dtype if t.is_floating_point() else t.dtype) for t in tensors]


def stepper(case, device, dtype=torch.float32):
    """(network, function that runs one training step and returns its loss as a tensor)."""
    network = copy.deepcopy(case.network).to(device, dtype).train()
    inputs, targets = moved(case.inputs, device, dtype), moved(case.targets, device, dtype)
    optimizer = case.optimizer(network.parameters())

    def step():
        optimizer.zero_grad()
        loss = case.loss(network(*inputs), *targets)
        loss.backward()
        optimizer.step()
        return loss

    return network, step


def flat(tensors) -> torch.Tensor:
    return torch.cat([t.detach().cpu().double().flatten() for t in tensors])


def train(case, device, dtype=torch.float32) -> Record:
    network, step = stepper(case, device, dtype)
    with torch.no_grad():
        output = case.output(network.eval()(*moved(case.inputs, device, dtype))).cpu().double()
    network.train()
    losses, gradient = [], None
    for _ in range(STEPS):
        losses.append(step().item())
        if gradient is None:
            gradient = flat(p.grad for p in network.parameters() if p.grad is not None)
    return Record(output, losses, gradient)


def errors(record: Record, reference: Record) -> dict[str, float]:
    def norm(a, b):
        if a.shape != b.shape or not a.isfinite().all():
            return float("inf")
        return ((a - b).norm() / b.norm()).item()

    losses = max(abs(a - b) / abs(b) for a, b in zip(record.losses, reference.losses))
    return {"output": norm(record.output, reference.output), "losses": losses if losses == losses else float("inf"),
            "gradient": norm(record.gradient, reference.gradient)}


def outside(npu: dict[str, float], cpu: dict[str, float]) -> list[str]:
    return [f"{name}: npu differs by {npu[name]:.1e}, the CPU by {cpu[name]:.1e}, tolerance {tolerance:.0e}"
            for name, tolerance in TOLERANCE.items() if not npu[name] <= max(tolerance, FACTOR * cpu[name])]
