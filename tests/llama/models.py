"""Whole models on CANN0 beside llama.cpp's CPU backend: architectures, the backend's settings, speed."""

from __future__ import annotations

import concurrent.futures
import json
import re
import subprocess

from common import ANYCANN, BUILD, GRAPH_BUILD, OUT, SOURCE, model, program, sort_failures, topics

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
# Mean KL divergence of our predictions from those of the CPU backend on the same numbers in float32 may be this, or what the CPU backend's
# own is with the stored type: where a gate chooses other experts after a rounding, both differ more.
SMALL = 1e-4


def known_architectures():
    """Their names, from llama.cpp's table."""
    return re.findall(r'\{ LLM_ARCH_\w+, *"([^"(]+)" *\}', (SOURCE / "src/llama-arch.cpp").read_text())


def run_architecture(name):
    command = (ANYCANN, "run", BUILD / "bin/test-llama-archs", "-b", "CANN0", "-s", "1", "-a", name)
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, errors="replace")


def architecture(name):
    """(name, rows of results, why the process ended, if it did). A thread of llama.cpp's writes the rows, and an exit may be faster than
    it: without the summary at the end the process runs again, a few times. Failures are in the exit code, whatever was written."""
    for _ in range(8):
        done = run_architecture(name)
        if done.returncode not in (0, 1) or "Summary:" in done.stdout:
            break
    text = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    rows = [line for line in text.splitlines() if line.startswith("|") and re.search(r"\b(OK|FAIL|SKIP)\b", line)]
    if done.returncode == 1 and not any("FAIL" in row for row in rows):
        return name, rows, "exit code 1"
    ended = "" if done.returncode in (0, 1) else "; ".join(re.findall(r"^.*(?:GGML_ASSERT|GGML_ABORT|CANN error|fatal error|EZ\d{4}).*$", text + done.stderr, re.M))
    return name, rows, ended or (f"exit code {done.returncode}" if done.returncode not in (0, 1) else "")


def architectures(only, jobs):
    """llama.cpp's own comparison, NMSE of logits at most 1e-4, of small random models of every architecture that it knows; one process
    each, since the backend ends the process at what it doesn't support."""
    names = [name for name in known_architectures() if re.search(only, name)]
    agreed, failed = 0, {}
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for name, rows, ended in pool.map(architecture, names):
            agreed += sum(bool(re.search(r"\|\s*[\d.e+-]+ *OK|OK", row)) for row in rows)
            for row in rows:
                if "FAIL" in row:
                    failed[f"arch {name}"] = " ".join(row.split())
            if ended:
                failed[f"arch {name}"] = ended
    problems, known = sort_failures(failed, only, "arch ")
    for problem in problems:
        print(problem)
    print(f"llama.cpp's architectures: {len(names)}; {agreed} comparisons with the CPU backend agree, {known} end in llama.cpp itself, {len(problems)} problems")
    return 1 if problems or not agreed else 0


def divergence(file, text, base, **how):
    done = program("llama-perplexity", "-m", file, "-f", text, "-c", "128", "-b", "256", "--chunks", "2", "--kl-divergence-base", base, "--kl-divergence",
                   **{"device": "npu", **how})
    value = lambda name: float(re.search(rf"{name}\s*:\s*([-0-9.naif]+)", done.stdout).group(1))  # noqa: E731
    return {"kld": value("Mean    KLD"), "ppl": value(r"Mean PPL\(Q\)"), "exact": value(r"Mean PPL\(base\)"), "same": value("Same top p")}


def completion(path, prompt, **how):
    done = program("llama-completion", "-m", path, "-p", prompt, "-n", "24", "-c", "256", "--temp", "0", "--ignore-eos", "-no-cnv", "--simple-io",
                   **{"device": "npu", **how})
    return done.stdout


def compare(only, settings):
    """Every shape and type under every setting: predictions against the CPU backend's on the same weights in float32, and the same text
    as with the default setting. The CPU backend's own divergence with the stored type stands beside ours."""
    OUT.mkdir(parents=True, exist_ok=True)
    text = OUT / "text.txt"
    pages = topics()
    text.write_text(" ".join(" ".join(pages[name].split()) for name in sorted(pages))[:20000])
    prompt = " ".join(pages["while"].split())[:160]
    results, problems = [], []
    print(f"{'model':15} {'setting':32} {'KL divergence':>14} {'perplexity':>11} {'in float32':>11} {'same top':>9}  text")
    for path in (f"{shape}-{kind}" for shape in SHAPES for kind in KINDS):
        if only and not re.search(only, path):
            continue
        shape, kind = path.split("-")
        file, base = model(shape, kind), OUT / f"{path}.base"
        program("llama-perplexity", "-m", model(shape, kind, exact=True), "-f", text, "-c", "128", "-b", "256", "--chunks", "2", "--kl-divergence-base", base,
                device="cpu")
        reference, bound = completion(file, prompt), SMALL
        for name in ("llama.cpp's CPU backend", *settings):
            ours = name in settings
            row = {"model": path, "setting": name, **divergence(file, text, base, **(settings[name] if ours else {"device": "cpu"}))}
            row["same_text"] = completion(file, prompt, **settings[name]) == reference if ours else None
            results.append(row)
            verdict = {True: "same", False: "DIFFERENT", None: ""}[row["same_text"]]
            print(f"{path:15} {name:32} {row['kld']:14.6f} {row['ppl']:11.1f} {row['exact']:11.1f} {row['same']:8.1f}%  {verdict}", flush=True)
            if not ours:
                bound = max(bound, row["kld"])
            if not row["kld"] <= bound:
                problems.append(f"{path}, {name}: KL divergence {row['kld']} is above {bound}")
            if ours and not row["same_text"]:
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
