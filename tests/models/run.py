"""Real models on npu (unmodified torch_npu) beside torch's CPU device: `make models` calls this.

    python tests/models/run.py [--only NAME] [--tiny] [--write]

Each model runs in a process of its own under `anycann run --fallbacks`, which names what torch_npu silently ran on the CPU.
Prints a table, writes build/models/models.json, and with --write the table of docs/models.md. Exit 1 if a model is outside
the tolerance of compare.py or ran an operator on the CPU that models.py doesn't list.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BEGIN, END = "<!-- models: written by tests/models/run.py -->", "<!-- /models -->"


def milliseconds(steps: dict, rounds: int) -> dict[str, float]:
    """Median time of a training step on each device, in turns: a noisy moment of the machine hits both."""
    times = {name: [] for name in steps}
    for _ in range(rounds):
        for name, (step, wait) in steps.items():
            start = time.perf_counter()
            step()
            wait()
            times[name].append((time.perf_counter() - start) * 1e3)
    return {name: statistics.median(t) for name, t in times.items()}


def one(name: str, tiny: bool, rounds: int) -> dict:
    import torch
    import torch_npu
    import torchvision
    import transformers

    import compare
    import models

    case = models.make(name, tiny)
    cpu, npu = torch.device("cpu"), torch.device("npu:0")
    reference = compare.train(case, cpu, torch.float64)
    records = {"npu": compare.train(case, npu), "cpu": compare.train(case, cpu)}
    found = {device: compare.errors(record, reference) for device, record in records.items()}
    steps = {"npu": (compare.stepper(case, npu)[1], torch.npu.synchronize), "cpu": (compare.stepper(case, cpu)[1], lambda: None)}
    milliseconds(steps, 1)
    return {"size": case.size, "parameters": case.parameters(), "losses": {d: r.losses for d, r in records.items()},
            "reference_losses": reference.losses, "errors": found, "outside": compare.outside(found["npu"], found["cpu"]),
            "expected_fallbacks": case.fallbacks, "milliseconds": milliseconds(steps, rounds), "threads": torch.get_num_threads(),
            "versions": {m.__name__: m.__version__ for m in (torch, torch_npu, torchvision, transformers)}}


def child(anycann: str, name: str, tiny: bool, rounds: int) -> dict:
    """The result of one(), with the fallbacks that anycann saw; {"error": ...} when the process failed."""
    command = [anycann, "run", "--fallbacks", sys.executable, __file__, "--one", name, "--rounds", str(rounds), *(["--tiny"] if tiny else [])]
    p = subprocess.run(command, capture_output=True, text=True)
    if p.returncode != 0:
        return {"error": (p.stderr.strip().splitlines() or ["no output"])[-20:]}
    result = json.loads(p.stdout.splitlines()[-1])
    said = p.stderr.partition("on the CPU (it warns once for each):")[2]
    result["fallbacks"] = re.findall(r"^  (\S+)$", said, re.MULTILINE)
    result["unexpected"] = sorted(set(result["fallbacks"]) - set(result["expected_fallbacks"]))
    return result


def cells(name: str, r: dict) -> list[str]:
    if "error" in r:
        return [name, "", "", "failed", "", "", "", "", "", ""]
    npu, cpu = (r["errors"][d] for d in ("npu", "cpu"))
    ms = r["milliseconds"]
    return [name, r["size"], f"{r['parameters'] / 1e6:.1f} M", *(f"{npu[k]:.0e} / {cpu[k]:.0e}" for k in ("output", "losses", "gradient")),
            f"{ms['npu']:.1f}", f"{ms['cpu']:.1f}", f"{ms['cpu'] / ms['npu']:.2f}", ", ".join(r["fallbacks"]) or "none"]


HEADS = ["model", "input", "parameters", "output", "losses", "gradient", "npu ms", "cpu ms", "cpu : npu", "run on the CPU by torch_npu"]


def markdown(results: dict) -> str:
    from compare import FACTOR, STEPS, TOLERANCE

    first = next(r for r in results.values() if "error" not in r)
    versions = ", ".join(f"{n} {v}" for n, v in first["versions"].items())
    allowed = ", ".join(f"{n} {v:.0e}" for n, v in TOLERANCE.items())
    rows = ["| " + " | ".join(HEADS) + " |", "|---|---|---:|---|---|---|---:|---:|---:|---|"]
    rows += ["| " + " | ".join(cells(name, r)) + " |" for name, r in results.items()]
    return "\n".join([f"{datetime.date.today()}; {versions}; {first['threads']} threads. {STEPS} training steps. Relative errors npu / cpu "
                      f"against float64; npu may have {allowed}, or {FACTOR} times the CPU's.", "", *rows])


def write(results: dict) -> None:
    page = ROOT / "docs/models.md"
    head, rest = page.read_text().split(BEGIN)
    page.write_text(f"{head}{BEGIN}\n{markdown(results)}\n{END}{rest.split(END)[1]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="build/models", help="folder for models.json (build/models)")
    parser.add_argument("--only", default="", help="models whose name holds this text")
    parser.add_argument("--tiny", action="store_true", help="the small versions that `make test` uses")
    parser.add_argument("--rounds", type=int, default=5, help="timed steps per device (5)")
    parser.add_argument("--write", action="store_true", help="write the table of docs/models.md")
    parser.add_argument("--anycann", default=os.environ.get("ANYCANN", str(ROOT / "build/toolkit/bin/anycann")), help="the anycann command")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.one:
        print(json.dumps(one(a.one, a.tiny, a.rounds)))
        return 0

    from models import MODELS

    names = [n for n in MODELS if a.only.lower() in n.lower()]
    out = pathlib.Path(a.out)
    out.mkdir(parents=True, exist_ok=True)
    results, bad = {}, []
    for i, name in enumerate(names, 1):
        print(f"[{i}/{len(names)}] {name} ...", end=" ", flush=True)
        start = time.perf_counter()
        r = results[name] = child(a.anycann, name, a.tiny, a.rounds)
        wrong = r["error"] if "error" in r else r["outside"] + [f"torch_npu ran {op} on the CPU" for op in r["unexpected"]]
        print("ok" if not wrong else "FAILED", f"{time.perf_counter() - start:.0f} s" if "error" in r else
              f"losses {' '.join(f'{x:.4f}' for x in r['losses']['npu'])}, {r['milliseconds']['npu']:.0f} ms a step, cpu {r['milliseconds']['cpu']:.0f} ms")
        for line in wrong:
            print(f"    {line}")
        bad += [name] if wrong else []
        (out / "models.json").write_text(json.dumps(results, indent=1))
    if any("error" not in r for r in results.values()):
        print("\n" + markdown(results))
        if a.write:
            write(results)
    print(f"\n{len(names) - len(bad)} of {len(names)} models agree{': not ' + ', '.join(bad) if bad else ''}; {out / 'models.json'}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
