#!/usr/bin/env python3
"""Writes a Llama-shaped GGUF file with random weights, for llama-bench: no vocabulary, nothing to download.

    python tests/llama/make_gguf.py OUT [--shape small|tinyllama] [--type f16|q8_0|q4_0]
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import sys

import numpy

from llama import SOURCE

sys.path.insert(0, str(SOURCE / "gguf-py"))
import gguf  # noqa: E402


@dataclasses.dataclass
class Shape:
    layers: int
    width: int
    feed_forward: int
    heads: int
    kv_heads: int
    vocabulary: int


SHAPES = {"small": Shape(4, 512, 1408, 8, 2, 1024), "tinyllama": Shape(22, 2048, 5632, 32, 4, 32000)}
TYPES = {"f16": gguf.GGMLQuantizationType.F16, "q8_0": gguf.GGMLQuantizationType.Q8_0, "q4_0": gguf.GGMLQuantizationType.Q4_0}


def write(path: pathlib.Path, shape: Shape, kind: str):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(shape.layers)
    writer.add_context_length(2048)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_tokenizer_model("no_vocab")
    generator = numpy.random.default_rng(0)

    def matrix(name, rows, columns):
        values = (generator.standard_normal((rows, columns), numpy.float32) / numpy.sqrt(columns)).astype(numpy.float32)
        writer.add_tensor(name, gguf.quants.quantize(values, TYPES[kind]), raw_dtype=TYPES[kind])

    def ones(name):
        writer.add_tensor(name, numpy.ones(shape.width, numpy.float32))

    kv_width = shape.width // shape.heads * shape.kv_heads
    matrix("token_embd.weight", shape.vocabulary, shape.width)
    for layer in range(shape.layers):
        block = f"blk.{layer}"
        ones(f"{block}.attn_norm.weight")
        matrix(f"{block}.attn_q.weight", shape.width, shape.width)
        matrix(f"{block}.attn_k.weight", kv_width, shape.width)
        matrix(f"{block}.attn_v.weight", kv_width, shape.width)
        matrix(f"{block}.attn_output.weight", shape.width, shape.width)
        ones(f"{block}.ffn_norm.weight")
        matrix(f"{block}.ffn_gate.weight", shape.feed_forward, shape.width)
        matrix(f"{block}.ffn_up.weight", shape.feed_forward, shape.width)
        matrix(f"{block}.ffn_down.weight", shape.width, shape.feed_forward)
    ones("output_norm.weight")
    matrix("output.weight", shape.vocabulary, shape.width)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="small")
    parser.add_argument("--type", choices=sorted(TYPES), default="f16")
    arguments = parser.parse_args()
    write(arguments.out, SHAPES[arguments.shape], arguments.type)


if __name__ == "__main__":
    main()
