"""What both demos share: timing a training step on two devices in one run, and a progress bar."""

from __future__ import annotations

import statistics
import time

import torch
from tqdm import tqdm


def synchronize(device: torch.device) -> None:
    if device.type == "npu":
        torch.npu.synchronize(device)


def progress(total: int, label: str) -> tqdm:
    return tqdm(total=total, desc=label, unit="step", ncols=90, mininterval=0.2)


def compare_steps(steps: dict[str, tuple[torch.device, object]], rounds: int = 7, steps_per_round: int = 10) -> dict[str, float]:
    """Median milliseconds per step of each named step function, measured in turns so that a noisy moment hits all.

    A step function takes no arguments and does forward, backward and update without waiting for the device; the wait is
    at the end of each round, as in a training loop that reads its loss now and then.
    """
    for device, step in steps.values():
        for _ in range(steps_per_round):
            step()
        synchronize(device)
    times = {name: [] for name in steps}
    for _ in range(rounds):
        for name, (device, step) in steps.items():
            start = time.perf_counter()
            for _ in range(steps_per_round):
                step()
            synchronize(device)
            times[name].append((time.perf_counter() - start) / steps_per_round * 1e3)
    return {name: statistics.median(t) for name, t in times.items()}
