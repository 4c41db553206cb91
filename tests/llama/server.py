"""llama-server's continuous batching on CANN0: many requests at once get what each gets alone."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import socket
import subprocess
import time
import urllib.error
import urllib.request

from common import ANYCANN, BUILD, DEVICES, OUT, model, topics

SLOTS, TOKENS = 4, 24
START_SECONDS = 120
# Where the two likeliest tokens are closer than this in log-probability, rounding may choose either: the comparison ends there.
TIE = 0.05


@contextlib.contextmanager
def running(file):
    """A server that listens; gives its address. Its log is build/llama/server.log."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    OUT.mkdir(parents=True, exist_ok=True)
    log = OUT / "server.log"
    with open(log, "w") as out:
        process = subprocess.Popen([str(c) for c in (ANYCANN, "run", BUILD / "bin/llama-server", "-m", file, "--port", port, "-np", SLOTS, "-c", 512 * SLOTS,
                                                      *DEVICES["npu"])], stdout=out, stderr=subprocess.STDOUT)
    try:
        address, end = f"http://127.0.0.1:{port}", time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                if urllib.request.urlopen(f"{address}/health", timeout=5).status == 200:
                    break
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"llama-server did not start; {log} ends with\n{log.read_text()[-2000:]}")
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def complete(address, prompt):
    """[(token, log-probability, lead over the next)] of each of the tokens."""
    body = {"prompt": prompt, "n_predict": TOKENS, "temperature": 0, "n_probs": 2, "ignore_eos": True, "cache_prompt": False}
    request = urllib.request.Request(f"{address}/completion", json.dumps(body).encode(), {"Content-Type": "application/json"})
    answer = json.load(urllib.request.urlopen(request, timeout=120))
    rows = []
    for p in answer["completion_probabilities"]:
        first, second = sorted((t["logprob"] for t in p["top_logprobs"]), reverse=True)[:2]
        rows.append((p["id"], p["logprob"], first - second))
    return rows


def check():
    """Twice as many requests as slots, so that some join while others are half done."""
    problems, compared = [], 0
    pages = topics()
    prompts = [" ".join(pages[name].split())[: 80 + 60 * i] for i, name in enumerate(sorted(pages)[: 2 * SLOTS])]
    for kind in ("f16", "q8_0", "q4_0"):
        with running(model("llama", kind)) as address:
            alone = [complete(address, prompt) for prompt in prompts]
            start = time.monotonic()
            with concurrent.futures.ThreadPoolExecutor(len(prompts)) as pool:
                together = list(pool.map(lambda prompt: complete(address, prompt), prompts))
            seconds = time.monotonic() - start
        for prompt, one, other in zip(prompts, alone, together):
            for (a, p, lead), (b, q, _) in zip(one, other):
                if lead < TIE and a != b:
                    break
                compared += 1
                if a != b or abs(p - q) > TIE:
                    problems.append(f"{kind}: {prompt[:40]!r}...: token {a} ({p:.3f}) alone, {b} ({q:.3f}) among others")
                    break
        print(f"llama-server, {kind}: {len(prompts)} requests in {SLOTS} slots, {len(prompts) * TOKENS / seconds:.0f} tokens per second together", flush=True)
    for problem in problems:
        print(problem)
    print(f"llama-server: {compared} tokens compared, {len(problems)} problems")
    return 1 if problems or compared < len(prompts) * TOKENS else 0
