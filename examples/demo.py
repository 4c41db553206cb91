"""The demo of `make demo`: real training on npu:0 with unmodified torch and torch-npu, beside torch's CPU device.

    anycann run .venv/bin/python examples/demo.py --out build/demo
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import platform
import subprocess
import sys

import torch
import torch_npu  # noqa: F401  (registers the npu device)

import characters
import digits
from training import compare_steps

HERE = pathlib.Path(__file__).resolve().parent


def device_table() -> str:
    smi = pathlib.Path(os.environ.get("ASCEND_HOME_PATH", HERE.parent / "build/toolkit")) / "bin/anycann"
    return subprocess.run([smi, "smi"], capture_output=True, text=True, check=True).stdout


def timeline(path: pathlib.Path) -> None:
    """A traced run of a few steps in a process of its own: a trace of the whole training would be large."""
    environment = dict(os.environ, ANYCANN_TRACE=str(path))
    subprocess.run([sys.executable, __file__, "--trace-steps", "3"], env=environment, check=True, stdout=subprocess.DEVNULL)
    events = json.loads(path.read_text())
    events = events["traceEvents"] if isinstance(events, dict) else events
    print(f"timeline       {path} ({len(events)} events: open it at ui.perfetto.dev or chrome://tracing)")


def trace_steps(count: int) -> None:
    npu = torch.device("npu:0")
    images, labels, _, _ = digits.data()
    _, digits_step = digits.make_step(npu, images, labels)
    _, characters_step = characters.make_step(npu, characters.Corpus())
    for _ in range(count):
        digits_step()
        characters_step()
    torch.npu.synchronize()


def ratio_line(name: str, times: dict[str, float]) -> str:
    return f"{name:<22}{times['npu']:>10.2f} ms{times['cpu']:>12.2f} ms{times['npu'] / times['cpu']:>14.2f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="build/demo", help="folder for picture, timeline and figures (build/demo)")
    parser.add_argument("--character-steps", type=int, default=600, help="training steps of the character model (600)")
    parser.add_argument("--trace-steps", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.trace_steps:
        trace_steps(arguments.trace_steps)
        return 0
    out = pathlib.Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    npu, cpu = torch.device("npu:0"), torch.device("cpu")

    print(device_table())
    print(f"torch {torch.__version__}, torch_npu {torch_npu.__version__}, {torch.get_num_threads()} threads, {platform.machine()}\n")

    _, accuracy, predictions = digits.train(npu)
    print(f"digits: {accuracy:.2%} of the test images right\n")
    picture = out / "predictions.png"
    digits.draw(str(picture), predictions)

    corpus = characters.Corpus()
    model, loss = characters.train(npu, corpus, arguments.character_steps)
    print(f"characters: loss {loss:.3f} after {arguments.character_steps} steps. It writes:\n")
    print("    " + characters.generate(model, npu, corpus, "The class ").replace("\n", "\n    ") + "\n")

    images, labels, _, _ = digits.data()
    steps = {
        "digits": {d.type: (d, digits.make_step(d, images, labels)[1]) for d in (npu, cpu)},
        "characters": {d.type: (d, characters.make_step(d, corpus)[1]) for d in (npu, cpu)},
    }
    times = {name: compare_steps(s) for name, s in steps.items()}
    print(f"{'training step':<22}{'npu:0':>13}{'cpu device':>15}{'npu : cpu':>14}")
    for name, t in times.items():
        print(ratio_line(name, t))
    print()

    print(f"picture        {picture}")
    timeline(out / "timeline.json")
    figures = {"accuracy": accuracy, "character_loss": loss, "step_ms": times, "torch": torch.__version__,
               "torch_npu": torch_npu.__version__, "threads": torch.get_num_threads()}
    (out / "figures.json").write_text(json.dumps(figures, indent=1))
    if accuracy < 0.97:
        print(f"the network got {accuracy:.2%} right, expected at least 97 %", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
