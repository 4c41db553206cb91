"""Ratios of AnyCANN (unmodified torch_npu) to torch's own CPU device, in the same run. `make bench` calls this.

Each case runs on both devices in turns, so that a noisy moment of the machine hits both; the figure is the median of the
rounds' ratios, cpu time : npu time (above 1.0: AnyCANN is faster). One process per thread count, pinned to as many cores.
Prints a table and writes bench.json with versions and the command.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "examples"))


def cases(torch):
    """name -> function(device) that returns a step function."""
    F = torch.nn.functional

    def matmul(m, n, k, dtype):
        def make(device):
            g = torch.Generator().manual_seed(0)
            a, b = torch.randn(m, k, generator=g).to(dtype).to(device), torch.randn(k, n, generator=g).to(dtype).to(device)
            out = torch.empty(m, n, dtype=dtype, device=device)
            return lambda: torch.mm(a, b, out=out)
        return make

    def elementwise(f, n):
        def make(device):
            g = torch.Generator().manual_seed(0)
            a, b = torch.randn(n, generator=g).to(device), torch.randn(n, generator=g).to(device)
            out = torch.empty(n, device=device)
            return lambda: f(a, b, out)
        return make

    def rows(f, n):
        def make(device):
            g = torch.Generator().manual_seed(0)
            a = torch.randn(max(1, n // 1000), min(1000, n), generator=g).to(device)
            return lambda: f(a)
        return make

    result = {}
    for dtype, name in ((torch.float32, "f32"), (torch.bfloat16, "bf16")):
        for size in (256, 512, 1024, 2048):
            result[f"matmul {name} {size}"] = matmul(size, size, size, dtype)
        result[f"matmul {name} 128x4096x4096"] = matmul(128, 4096, 4096, dtype)
    for n in (10_000, 100_000, 1_000_000, 10_000_000):
        result[f"add out= {n:.0e}"] = elementwise(lambda a, b, o: torch.add(a, b, out=o), n)
        result[f"exp out= {n:.0e}"] = elementwise(lambda a, b, o: torch.exp(a, out=o), n)
        result[f"gelu {n:.0e}"] = elementwise(lambda a, b, o: F.gelu(a), n)
        result[f"softmax {n:.0e}"] = rows(lambda a: torch.softmax(a, -1), n)
        result[f"layernorm {n:.0e}"] = rows(lambda a: F.layer_norm(a, a.shape[-1:]), n)
    result["add 1 element (torch)"] = elementwise(lambda a, b, o: torch.add(a, b, out=o), 1)
    return result


def measure(torch, make, rounds: int, seconds: float):
    """Median (npu ms, cpu ms, ratio cpu : npu) over rounds of about `seconds` each."""
    steps = {}
    for name in ("npu", "cpu"):
        device = torch.device(name, 0) if name == "npu" else torch.device("cpu")
        step = make(device)
        wait = torch.npu.synchronize if name == "npu" else (lambda: None)
        for _ in range(3):
            step()
        wait()
        start = time.perf_counter()
        step()
        wait()
        once = time.perf_counter() - start
        steps[name] = (step, wait, max(1, min(2000, int(seconds / max(once, 1e-7)))))
    times = {"npu": [], "cpu": []}
    for _ in range(rounds):
        for name, (step, wait, count) in steps.items():
            start = time.perf_counter()
            for _ in range(count):
                step()
            wait()
            times[name].append((time.perf_counter() - start) / count * 1e3)
    ratio = statistics.median(c / n for c, n in zip(times["cpu"], times["npu"]))
    return statistics.median(times["npu"]), statistics.median(times["cpu"]), ratio


def demo_steps(torch):
    import characters
    import digits
    from training import compare_steps

    devices = [torch.device("npu:0"), torch.device("cpu")]
    images, labels, _, _ = digits.data()
    corpus = characters.Corpus()
    return {
        "digits step": compare_steps({d.type: (d, digits.make_step(d, images, labels)[1]) for d in devices}),
        "characters step": compare_steps({d.type: (d, characters.make_step(d, corpus)[1]) for d in devices}),
    }


def worker(threads: int, only: str, rounds: int, seconds: float) -> dict:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    import torch
    import torch_npu

    torch.set_num_threads(threads)
    rows = {}
    for name, make in cases(torch).items():
        if only in name:
            npu, cpu, ratio = measure(torch, make, rounds, seconds)
            rows[name] = {"npu_ms": npu, "cpu_ms": cpu, "ratio": ratio}
            print(f"  {name}: {ratio:.2f}", file=sys.stderr, flush=True)
    if only in "digits step characters step":
        for name, t in demo_steps(torch).items():
            rows[name] = {"npu_ms": t["npu"], "cpu_ms": t["cpu"], "ratio": t["cpu"] / t["npu"]}
    return {"rows": rows, "torch": torch.__version__, "torch_npu": torch_npu.__version__}


def floor() -> dict:
    """The digits and characters steps with no kernel run: what dispatch alone costs."""
    import torch

    import torch_npu  # noqa: F401

    return {name: t["npu"] for name, t in demo_steps(torch).items()}


def child(arguments: list[str], environment: dict | None = None) -> dict:
    p = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True, check=True,
                       env=dict(os.environ, **(environment or {})))
    return json.loads(p.stdout.splitlines()[-1])


def dispatch() -> dict:
    for build in ("release", "dev"):
        program = HERE.parent / "build" / build / "bench/bench_dispatch"
        if program.exists():
            return json.loads(subprocess.run([program], stdout=subprocess.PIPE, text=True, check=True).stdout)
    return {}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="build/bench", help="folder for bench.json (build/bench)")
    parser.add_argument("--only", default="", help="cases whose name holds this text")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.15, help="per round and device")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--floor", action="store_true", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.worker:
        print(json.dumps(worker(a.worker, a.only, a.rounds, a.seconds)))
        return 0
    if a.floor:
        print(json.dumps(floor()))
        return 0

    result = {"command": " ".join([pathlib.Path(sys.executable).name, "bench/bench.py", *sys.argv[1:]]),
              "machine": platform.processor() or platform.machine(), "dispatch": dispatch(), "threads": {}}
    for threads in (1, 2):
        if threads > os.cpu_count():
            continue
        print(f"{threads} thread{'s' if threads > 1 else ''}", file=sys.stderr)
        result["threads"][threads] = child(["--worker", str(threads), "--only", a.only, "--rounds", str(a.rounds),
                                            "--seconds", str(a.seconds)])
    if a.only in "digits step characters step":
        result["floor_ms"] = child(["--floor"], {"ANYCANN_EMPTY_KERNELS": "1"})
    out = pathlib.Path(a.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "bench.json").write_text(json.dumps(result, indent=1))

    first = next(iter(result["threads"].values()))
    print(f"torch {first['torch']}, torch_npu {first['torch_npu']}; ratio = time of torch's CPU device : time on npu, same run\n")
    print(f"{'case':<30}" + "".join(f"{f'{t} thr: npu ms':>15}{'cpu ms':>10}{'ratio':>8}" for t in result["threads"]))
    for name in first["rows"]:
        line = f"{name:<30}"
        for t in result["threads"].values():
            r = t["rows"][name]
            line += f"{r['npu_ms']:>15.3f}{r['cpu_ms']:>10.3f}{r['ratio']:>8.2f}"
        print(line)
    if result["dispatch"]:
        print(f"\n1-element add through aclnn from C++: {result['dispatch']['add1_ns_best']:.0f} ns per call (best of 5 rounds), "
              f"mean {result['dispatch']['add1_ns_mean']:.0f} ns")
    for name, ms in result.get("floor_ms", {}).items():
        print(f"{name} with ANYCANN_EMPTY_KERNELS=1 (dispatch alone): {ms:.2f} ms")
    print(f"\n{out / 'bench.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
