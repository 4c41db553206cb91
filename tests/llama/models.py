"""Whole models on CANN0 beside llama.cpp's CPU backend: architectures, the backend's settings, speed."""

from __future__ import annotations

import json
import re

from common import BUILD, GRAPH_BUILD, OUT, model, program, topics

KINDS = ("f16", "q8_0", "q4_0")
SHAPES = ("llama", "qwen3moe", "deepseek")
# What a user can set: name -> how a program is run. The VMM pool is the backend's default.
SETTINGS = {
    "default (VMM pool, NZ weights)": {},
    "pool prio": {"environment": {"GGML_CANN_MEM_POOL": "prio"}},
    "pool leg": {"environment": {"GGML_CANN_MEM_POOL": "leg"}},
    "weights not NZ": {"environment": {"GGML_CANN_WEIGHT_NZ": "off"}},
    "operator fusion": {"environment": {"GGML_CANN_OPERATOR_FUSION": "on"}},
    "USE_ACL_GRAPH": {"build": GRAPH_BUILD},
    "USE_ACL_GRAPH, prompts too": {"build": GRAPH_BUILD, "environment": {"GGML_CANN_PREFILL_USE_GRAPH": "on"}},
    "two devices": {"device": "two", "devices": 2},
}
# Mean KL divergence between the CPU backend's predictions and ours. The CPU backend rounds what it multiplies with quantised weights to
# 8 bits; the NPU backend multiplies in float16.
BOUNDS = {"f16": 2e-4, "q8_0": 2e-3, "q4_0": 2e-3}


def architectures(only):
    """llama.cpp's own comparison, NMSE of logits at most 1e-4, of small models of every architecture that it knows."""
    done = program("test-llama-archs", "-b", "CANN0", "-s", "1", *(["-a", only] if only else []))
    rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in re.sub(r"\x1b\[[0-9;]*m", "", done.stdout).splitlines()
            if line.startswith("|") and ("OK" in line or "FAIL" in line or "SKIP" in line)]
    bad = [row for row in rows if any("FAIL" in cell for cell in row)]
    for row in bad:
        print(" | ".join(row))
    passed = sum(any(cell.startswith("OK") for cell in row) for row in rows)
    print(f"llama.cpp's architectures: {passed} of {len(rows)} rows agree with the CPU backend, {len(bad)} don't, the rest it skips itself")
    return 1 if bad or not passed else 0


def divergence(path, text, base, **how):
    done = program("llama-perplexity", "-m", path, "-f", text, "-c", "128", "-b", "256", "--chunks", "2", "--kl-divergence-base", base, "--kl-divergence",
                   **{"device": "npu", **how})
    value = lambda name: float(re.search(rf"{name}\s*:\s*([-0-9.naif]+)", done.stdout).group(1))  # noqa: E731
    return {"kld": value("Mean    KLD"), "npu": value(r"Mean PPL\(Q\)"), "cpu": value(r"Mean PPL\(base\)"), "same": value("Same top p")}


def completion(path, prompt, **how):
    done = program("llama-completion", "-m", path, "-p", prompt, "-n", "24", "-c", "256", "--temp", "0", "--ignore-eos", "-no-cnv", "--simple-io",
                   **{"device": "npu", **how})
    return done.stdout


def compare(only, settings):
    """Every shape and type under every setting: predictions against the CPU backend's, and the same text as with the default setting."""
    OUT.mkdir(parents=True, exist_ok=True)
    text = OUT / "text.txt"
    pages = topics()
    text.write_text(" ".join(" ".join(pages[name].split()) for name in sorted(pages))[:20000])
    prompt = " ".join(pages["while"].split())[:160]
    results, problems = [], []
    print(f"{'model':15} {'setting':32} {'KL divergence':>14} {'PPL npu':>10} {'PPL cpu':>10} {'same top':>9}  text")
    for path in (f"{shape}-{kind}" for shape in SHAPES for kind in KINDS):
        if only and not re.search(only, path):
            continue
        shape, kind = path.split("-")
        file, base = model(shape, kind), OUT / f"{path}.base"
        program("llama-perplexity", "-m", file, "-f", text, "-c", "128", "-b", "256", "--chunks", "2", "--kl-divergence-base", base, device="cpu")
        reference = completion(file, prompt)
        for name in settings:
            how = SETTINGS[name]
            row = {"model": path, "setting": name, **divergence(file, text, base, **how)}
            row["same_text"] = completion(file, prompt, **how) == reference
            results.append(row)
            print(f"{path:15} {name:32} {row['kld']:14.6f} {row['npu']:10.1f} {row['cpu']:10.1f} {row['same']:8.1f}%  "
                  f"{'same' if row['same_text'] else 'DIFFERENT'}", flush=True)
            if not row["kld"] <= BOUNDS[kind]:
                problems.append(f"{path}, {name}: KL divergence {row['kld']} is above {BOUNDS[kind]}")
            if not row["same_text"]:
                problems.append(f"{path}, {name}: completes another text than with the default setting")
        base.unlink()
    (OUT / "models.json").write_text(json.dumps(results, indent=1))
    for problem in problems:
        print(problem)
    print(f"models: {len(results)} combinations, {len(problems)} problems")
    return 1 if problems or not results else 0


def speeds(file, device, threads):
    """test -> tokens per second."""
    done = program("llama-bench", "-m", file, "-t", threads, "-r", "3", "-p", "128", "-n", "32", "-o", "json", device=device)
    return {f"pp{r['n_prompt']}" if r["n_prompt"] else f"tg{r['n_gen']}": r["avg_ts"] for r in json.loads(done.stdout)}


def bench(shape, threads):
    print(f"llama-bench, {shape} shape, {threads} threads: tokens per second\n\n{'weights':8} {'test':6} {'npu':>9} {'cpu':>9} {'npu : cpu':>10}")
    results = []
    for kind in KINDS:
        npu, cpu = (speeds(model(shape, kind), device, threads) for device in ("npu", "cpu"))
        for test in npu:
            results.append({"weights": kind, "test": test, "npu": npu[test], "cpu": cpu[test]})
            print(f"{kind:8} {test:6} {npu[test]:9.1f} {cpu[test]:9.1f} {npu[test] / cpu[test]:10.2f}", flush=True)
    (OUT / "bench.json").write_text(json.dumps({"shape": shape, "threads": threads, "results": results}, indent=1))
    return 0
