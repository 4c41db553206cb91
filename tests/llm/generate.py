"""transformers' generate() on npu against the CPU device: small random models of the classes that people serve, token for token in float32."""

from __future__ import annotations

import contextlib
import time

import torch
import transformers

COMMON = dict(vocab_size=512, hidden_size=128, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
              pad_token_id=0, bos_token_id=1, eos_token_id=2)
EXPERTS = dict(num_experts=8, num_experts_per_tok=2, moe_intermediate_size=64)
LATENT = dict(q_lora_rank=48, kv_lora_rank=32, qk_nope_head_dim=16, qk_rope_head_dim=16, v_head_dim=24, n_routed_experts=8, n_shared_experts=1, num_experts_per_tok=2,
              moe_intermediate_size=64, first_k_dense_replace=1, num_key_value_heads=4)
CONFIGS = {
    "Llama": lambda: transformers.LlamaConfig(**COMMON),
    "Mistral": lambda: transformers.MistralConfig(**COMMON, sliding_window=24),
    "Qwen2": lambda: transformers.Qwen2Config(**COMMON),
    "Qwen3": lambda: transformers.Qwen3Config(**COMMON, head_dim=32),
    "Qwen3-MoE": lambda: transformers.Qwen3MoeConfig(**COMMON, **EXPERTS, head_dim=32),
    "DeepSeek-V2": lambda: transformers.DeepseekV2Config(**{**COMMON, **LATENT}, n_group=None, topk_group=None, topk_method="greedy"),
    "DeepSeek-V3": lambda: transformers.DeepseekV3Config(**{**COMMON, **LATENT}, n_group=4, topk_group=2),
}
MODES = {
    "greedy": dict(do_sample=False),
    "sampling": dict(do_sample=True, temperature=0.8, top_k=40, top_p=0.95),
    "beam search": dict(do_sample=False, num_beams=3, length_penalty=0.9),
}
NEW_TOKENS = 24


@contextlib.contextmanager
def drawing_on_the_cpu():
    """Devices have random streams of their own: the draws are made on the CPU, from the probabilities that the device computed."""
    original = torch.multinomial
    torch.multinomial = lambda p, *rest, **options: original(p.cpu(), *rest, **options).to(p.device)
    try:
        yield
    finally:
        torch.multinomial = original


def generate(model, prompt, mask, options):
    torch.manual_seed(5)
    with drawing_on_the_cpu(), torch.no_grad():
        start = time.perf_counter()
        tokens = model.generate(prompt, attention_mask=mask, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, **options).cpu()
        return tokens, time.perf_counter() - start


def run(names):
    """A row for each model and mode: whether the tokens are equal, and both times."""
    rows = []
    for name in names:
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(CONFIGS[name](), dtype=torch.float32).eval()
        for p in model.parameters():  # from_config's weights are so small that all tokens are nearly as likely
            if p.dim() > 1:
                p.data.mul_(4)
        prompt, mask = torch.randint(3, 512, (3, 14)), torch.ones(3, 14, dtype=torch.long)
        mask[1, :5] = 0  # padded on the left
        prompt[1, :5] = 0
        for mode, options in MODES.items():
            expected, cpu = generate(model.to("cpu"), prompt, mask, options)
            on_npu, prompt_npu, mask_npu = model.to("npu"), prompt.npu(), mask.npu()
            generate(on_npu, prompt_npu, mask_npu, options)
            got, npu = generate(on_npu, prompt_npu, mask_npu, options)
            rows.append({"model": name, "what": f"generate, {mode}", "agrees": torch.equal(expected, got), "cpu": cpu, "npu": npu})
    return rows
