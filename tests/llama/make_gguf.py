#!/usr/bin/env python3
"""Writes a GGUF file with random weights in the shape of a known model, with Llama's vocabulary from llama.cpp's own files: nothing to
download, real text goes in and comes out.

    python tests/llama/make_gguf.py OUT [--shape llama|tinyllama|qwen3moe|deepseek] [--type f16|q8_0|q4_0] [--exact]

With --exact the numbers that the type can hold are written as float32: the same model, for a reference without rounding.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import sys

import numpy

from common import SOURCE

sys.path.insert(0, str(SOURCE / "gguf-py"))
import gguf  # noqa: E402

TYPES = {"f16": gguf.GGMLQuantizationType.F16, "q8_0": gguf.GGMLQuantizationType.Q8_0, "q4_0": gguf.GGMLQuantizationType.Q4_0}
VOCABULARY = SOURCE / "models/ggml-vocab-llama-spm.gguf"
TOKENS = 32000


@dataclasses.dataclass
class Shape:
    architecture: str
    layers: int
    width: int
    feed_forward: int  # of one expert where there are experts
    heads: int
    kv_heads: int
    head: int  # numbers of one head
    experts: int = 0
    experts_used: int = 0
    # DeepSeek's: ranks of the compressed queries and of the cache, the rotated part of a head, dense layers before the first with experts.
    q_rank: int = 0
    kv_rank: int = 0
    rotated: int = 0
    dense_layers: int = 0
    dense_feed_forward: int = 0


SHAPES = {
    "llama": Shape("llama", 4, 512, 1408, 8, 2, 64),
    "tinyllama": Shape("llama", 22, 2048, 5632, 32, 4, 64),
    "qwen3moe": Shape("qwen3moe", 3, 256, 128, 4, 2, 64, experts=16, experts_used=4),
    "deepseek": Shape("deepseek2", 3, 256, 128, 4, 1, 96, experts=16, experts_used=4, q_rank=96, kv_rank=64, rotated=32, dense_layers=1,
                      dense_feed_forward=512),
}


class Writer:
    def __init__(self, path: pathlib.Path, shape: Shape, kind: str, exact: bool):
        self.shape, self.type, self.exact = shape, TYPES[kind], exact
        self.file = gguf.GGUFWriter(path, shape.architecture)
        self.generator = numpy.random.default_rng(0)

    def matrix(self, name: str, *dims: int):
        values = self.generator.standard_normal(dims, numpy.float32) / numpy.sqrt(numpy.float32(dims[-1]))
        stored = gguf.quants.quantize(values, self.type)
        if self.exact:
            self.plain(name, gguf.quants.dequantize(stored, self.type))
        else:
            self.file.add_tensor(name, stored, raw_dtype=self.type)

    def plain(self, name: str, values: numpy.ndarray):
        self.file.add_tensor(name, values.astype(numpy.float32))

    def ones(self, name: str, size: int):
        self.plain(name, numpy.ones(size))

    def keys(self):
        f, s = self.file, self.shape
        f.add_block_count(s.layers)
        f.add_context_length(2048)
        f.add_embedding_length(s.width)
        f.add_feed_forward_length(s.dense_feed_forward or s.feed_forward)
        f.add_head_count(s.heads)
        f.add_head_count_kv(s.kv_heads)
        f.add_layer_norm_rms_eps(1e-5)
        f.add_rope_dimension_count(s.rotated or s.head)
        f.add_vocab_size(TOKENS)
        if s.kv_rank:
            f.add_key_length(s.kv_rank + s.rotated)
            f.add_value_length(s.kv_rank)
            f.add_key_length_mla(s.head)
            f.add_value_length_mla(s.head - s.rotated)
            f.add_q_lora_rank(s.q_rank)
            f.add_kv_lora_rank(s.kv_rank)
            f.add_leading_dense_block_count(s.dense_layers)
            f.add_expert_shared_count(1)
            f.add_expert_weights_scale(2.5)
            f.add_expert_weights_norm(True)
            f.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
        else:
            f.add_key_length(s.head)
            f.add_value_length(s.head)
        if s.experts:
            f.add_expert_count(s.experts)
            f.add_expert_used_count(s.experts_used)
            f.add_expert_feed_forward_length(s.feed_forward)

    def vocabulary(self):
        fields = gguf.GGUFReader(VOCABULARY).fields
        read = lambda key: fields[f"tokenizer.ggml.{key}"].contents()  # noqa: E731
        self.file.add_tokenizer_model(read("model"))
        self.file.add_tokenizer_pre(read("pre"))
        self.file.add_token_list(read("tokens"))
        self.file.add_token_scores(read("scores"))
        self.file.add_token_types(read("token_type"))
        self.file.add_bos_token_id(read("bos_token_id"))
        self.file.add_eos_token_id(read("eos_token_id"))
        self.file.add_unk_token_id(read("unknown_token_id"))

    def attention(self, block: str):
        s = self.shape
        self.ones(f"{block}.attn_norm.weight", s.width)
        if s.kv_rank:
            plain = s.head - s.rotated
            self.matrix(f"{block}.attn_q_a.weight", s.q_rank, s.width)
            self.ones(f"{block}.attn_q_a_norm.weight", s.q_rank)
            self.matrix(f"{block}.attn_q_b.weight", s.heads * s.head, s.q_rank)
            self.matrix(f"{block}.attn_kv_a_mqa.weight", s.kv_rank + s.rotated, s.width)
            self.ones(f"{block}.attn_kv_a_norm.weight", s.kv_rank)
            self.matrix(f"{block}.attn_k_b.weight", s.heads, s.kv_rank, plain)
            self.matrix(f"{block}.attn_v_b.weight", s.heads, plain, s.kv_rank)
            self.matrix(f"{block}.attn_output.weight", s.width, s.heads * plain)
            return
        self.matrix(f"{block}.attn_q.weight", s.heads * s.head, s.width)
        self.matrix(f"{block}.attn_k.weight", s.kv_heads * s.head, s.width)
        self.matrix(f"{block}.attn_v.weight", s.kv_heads * s.head, s.width)
        self.matrix(f"{block}.attn_output.weight", s.width, s.heads * s.head)
        if s.architecture == "qwen3moe":
            self.ones(f"{block}.attn_q_norm.weight", s.head)
            self.ones(f"{block}.attn_k_norm.weight", s.head)

    def feed_forward(self, block: str, suffix: str, size: int, *experts: int):
        self.matrix(f"{block}.ffn_gate{suffix}.weight", *experts, size, self.shape.width)
        self.matrix(f"{block}.ffn_up{suffix}.weight", *experts, size, self.shape.width)
        self.matrix(f"{block}.ffn_down{suffix}.weight", *experts, self.shape.width, size)

    def layer(self, index: int):
        s, block = self.shape, f"blk.{index}"
        self.attention(block)
        self.ones(f"{block}.ffn_norm.weight", s.width)
        if not s.experts or index < s.dense_layers:
            self.feed_forward(block, "", s.dense_feed_forward or s.feed_forward)
            return
        self.plain(f"{block}.ffn_gate_inp.weight", self.generator.standard_normal((s.experts, s.width)) / numpy.sqrt(s.width))
        self.feed_forward(block, "_exps", s.feed_forward, s.experts)
        if s.kv_rank:
            self.feed_forward(block, "_shexp", s.feed_forward)
            self.plain(f"{block}.exp_probs_b.bias", self.generator.standard_normal(s.experts) / 10)

    def write(self):
        self.keys()
        self.vocabulary()
        self.matrix("token_embd.weight", TOKENS, self.shape.width)
        for index in range(self.shape.layers):
            self.layer(index)
        self.ones("output_norm.weight", self.shape.width)
        self.matrix("output.weight", TOKENS, self.shape.width)
        self.file.write_header_to_file()
        self.file.write_kv_data_to_file()
        self.file.write_tensors_to_file()
        self.file.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="llama")
    parser.add_argument("--type", choices=sorted(TYPES), default="f16")
    parser.add_argument("--exact", action="store_true")
    arguments = parser.parse_args()
    Writer(arguments.out, SHAPES[arguments.shape], arguments.type, arguments.exact).write()


if __name__ == "__main__":
    main()
