"""Transformers against transformers: parameters and FLOPs equal to the last digit."""

import numpy as np
import pytest
import sympy
import torch
from oracles import hf
from torch.utils.flop_counter import FlopCounterMode

from budget.arch.transformer import Config, build
from budget.config import Workload, make
from budget.errors import InputError
from budget.fold.count import flops, params
from budget.ir import CACHE, elements, walk
from budget.plan.backward import backward
from budget.read import hf_config


def ours(config, batch, seq):
    model = backward(build(config, Workload("train", batch, seq)))
    counted = flops(model)
    return params(model).total, counted.forward, counted.backward


SMALL = {"vocab_size": 101, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2}
LLAMA = {**SMALL, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 10}
BERT = {**SMALL, "num_attention_heads": 3}
GPT2 = {"vocab_size": 97, "n_embd": 60, "n_layer": 3, "n_head": 5}
LATENT = {
    **SMALL, "num_attention_heads": 3, "num_key_value_heads": 3, "kv_lora_rank": 20, "q_lora_rank": 28,
    "qk_rope_head_dim": 6, "qk_nope_head_dim": 10, "v_head_dim": 14, "moe_intermediate_size": 18,
    "n_routed_experts": 8, "num_experts_per_tok": 3, "n_shared_experts": 2, "first_k_dense_replace": 1,
}  # fmt: skip
GROUPS = {"n_group": 4, "topk_group": 2}
MOE = {**LLAMA, "num_experts_per_tok": 3, "moe_intermediate_size": 14}

CASES = [
    ("gpt2", GPT2, 3, 11, "lm"),
    ("gpt2", {**GPT2, "n_layer": 1, "n_head": 1, "n_inner": 77, "tie_word_embeddings": False}, 1, 1, "lm"),
    ("gpt2", {**GPT2, "activation_function": "relu"}, 2, 7, "none"),
    ("gpt_bigcode", {**GPT2, "multi_query": False}, 2, 9, "lm"),
    ("opt", {**SMALL, "ffn_dim": 90, "num_attention_heads": 3, "word_embed_proj_dim": 20}, 2, 9, "lm"),
    (
        "opt",
        {**SMALL, "num_attention_heads": 1, "word_embed_proj_dim": 12, "do_layer_norm_before": False},
        1, 5, "lm",
    ),
    ("opt", {**SMALL, "num_attention_heads": 6, "enable_bias": False, "word_embed_proj_dim": 20}, 2, 9,
     "none"),
    ("opt", {**SMALL, "num_attention_heads": 6, "layer_norm_elementwise_affine": False}, 2, 9, "lm"),
    ("gpt_neo", {"vocab_size": 90, "hidden_size": 36, "num_layers": 3, "num_heads": 3,
                 "attention_types": [[["global", "local"], 1], [["global"], 1]]}, 2, 13, "lm"),
    ("gpt_neox", {**SMALL, "num_attention_heads": 3}, 2, 9, "lm"),
    ("gpt_neox", {**SMALL, "num_attention_heads": 6, "attention_bias": False, "use_parallel_residual": False,
                  "tie_word_embeddings": True}, 2, 9, "lm"),
    ("gptj", {**GPT2, "rotary_dim": 4}, 2, 9, "lm"),
    ("falcon", {**SMALL, "num_attention_heads": 6, "bias": True}, 2, 9, "lm"),
    ("falcon", {**SMALL, "num_attention_heads": 6, "multi_query": False, "alibi": True,
                "parallel_attn": False}, 2, 9, "lm"),
    ("falcon", {**SMALL, "num_attention_heads": 6, "num_kv_heads": 2, "new_decoder_architecture": True,
                "tie_word_embeddings": False}, 2, 9, "lm"),
    ("falcon", {**SMALL, "num_attention_heads": 6, "num_kv_heads": 3, "new_decoder_architecture": True,
                "num_ln_in_parallel_attn": 1, "ffn_hidden_size": 50}, 2, 9, "lm"),
    ("phi", {**SMALL, "num_attention_heads": 6, "num_key_value_heads": 3, "qk_layernorm": True}, 2, 9, "lm"),
    ("phi3", {**LLAMA, "head_dim": 8, "pad_token_id": 0, "sliding_window": 4}, 2, 9, "lm"),
    ("bloom", {"vocab_size": 101, "hidden_size": 60, "n_layer": 3, "n_head": 5}, 2, 9, "lm"),
    ("mpt", {"vocab_size": 101, "d_model": 60, "n_layers": 3, "n_heads": 5}, 2, 9, "lm"),
    ("llama", LLAMA, 3, 17, "lm"),
    ("llama", {**LLAMA, "num_hidden_layers": 1, "num_key_value_heads": 1, "attention_bias": True,
               "mlp_bias": True, "tie_word_embeddings": True}, 1, 1, "lm"),
    ("llama", {**SMALL, "num_attention_heads": 3}, 2, 5, "none"),
    ("llama", {**SMALL, "num_attention_heads": 3, "num_key_value_heads": None,
               "hidden_act": "gelu"}, 2, 5, "lm"),
    ("smollm3", {**LLAMA, "head_dim": 8, "pad_token_id": 0}, 2, 9, "lm"),
    ("granite", {**LLAMA, "head_dim": 8, "attention_bias": True}, 2, 9, "lm"),
    ("olmo", {**LLAMA, "head_dim": 8}, 2, 9, "lm"),
    ("cohere", {**LLAMA, "head_dim": 8, "attention_bias": True}, 2, 9, "lm"),
    ("stablelm", {**LLAMA, "head_dim": 8, "use_qkv_bias": True, "use_parallel_residual": True}, 2, 9, "lm"),
    ("starcoder2", {**LLAMA, "head_dim": 8, "use_bias": False}, 2, 9, "lm"),
    ("mistral", {**LLAMA, "sliding_window": 4}, 2, 9, "lm"),
    ("mistral", {**LLAMA, "sliding_window": None, "head_dim": None}, 2, 9, "lm"),
    ("qwen2", {**LLAMA, "head_dim": 8, "num_hidden_layers": 3, "use_sliding_window": True,
               "sliding_window": 4, "max_window_layers": 1}, 2, 9, "lm"),
    ("qwen3", {**LLAMA, "attention_bias": True}, 2, 9, "lm"),
    ("gemma", {**LLAMA, "num_key_value_heads": 6}, 2, 9, "lm"),
    ("gemma2", {**LLAMA, "num_hidden_layers": 3, "sliding_window": 4}, 2, 9, "lm"),
    ("gemma2", {**LLAMA, "attn_logit_softcapping": None, "final_logit_softcapping": None,
                "layer_types": ["full_attention", "sliding_attention"]}, 2, 9, "lm"),
    ("gemma3_text", {**LLAMA, "num_hidden_layers": 7, "sliding_window": 4}, 2, 9, "lm"),
    ("bert", BERT, 3, 11, "none"),
    ("bert", {**BERT, "num_hidden_layers": 1, "type_vocab_size": 1, "hidden_act": "gelu_new"}, 1, 1, "none"),
    ("bert", BERT, 2, 11, "mlm"),
    ("roberta", {**BERT, "max_position_embeddings": 20, "pad_token_id": 3}, 2, 16, "none"),
    ("roberta", {**BERT, "max_position_embeddings": 20}, 2, 16, "mlm"),
    ("albert", {**BERT, "num_hidden_layers": 4, "embedding_size": 10}, 2, 11, "none"),
    ("albert", {**BERT, "embedding_size": 48}, 2, 11, "mlm"),
    ("electra", {**BERT, "embedding_size": 48}, 2, 11, "none"),
    ("electra", {**BERT, "embedding_size": 10}, 2, 11, "mlm"),
    ("distilbert", {"vocab_size": 101, "dim": 48, "hidden_dim": 60, "n_layers": 3, "n_heads": 3}, 2,
     11, "mlm"),
    ("mixtral", {**LLAMA, "num_local_experts": 5, "num_experts_per_tok": 3}, 2, 9, "lm"),
    ("mixtral", {**LLAMA, "num_local_experts": 1, "num_experts_per_tok": 1,
                 "num_hidden_layers": 1}, 1, 3, "lm"),
    ("qwen2_moe", {**MOE, "head_dim": 8, "num_experts": 5,
                   "shared_expert_intermediate_size": 22}, 2, 9, "lm"),
    ("qwen2_moe", {**MOE, "head_dim": 8, "num_experts": 5, "num_hidden_layers": 5, "decoder_sparse_step": 2,
                   "qkv_bias": False}, 2, 9, "lm"),
    ("qwen3_moe", {**MOE, "num_experts": 7, "num_hidden_layers": 3, "mlp_only_layers": [0]}, 2, 9, "lm"),
    ("deepseek_v2", LATENT, 2, 9, "lm"),
    ("deepseek_v2", {**LATENT, "q_lora_rank": None, "first_k_dense_replace": 0}, 2, 9, "lm"),
    ("deepseek_v3", {**LATENT, **GROUPS}, 2, 9, "lm"),
    ("deepseek_v3", {**LATENT, **GROUPS, "num_hidden_layers": 3, "first_k_dense_replace": 2,
                     "attention_bias": True}, 1, 9, "lm"),
    ("gpt_oss", {**LLAMA, "num_local_experts": 5, "num_experts_per_tok": 3, "num_hidden_layers": 3,
                 "sliding_window": 4}, 2, 9, "lm"),
    ("gpt_oss", {**LLAMA, "num_local_experts": 4, "num_experts_per_tok": 1,
                 "attention_bias": False}, 1, 5, "lm"),
]  # fmt: skip


@pytest.mark.every(4)
@pytest.mark.parametrize(("family", "fields", "batch", "seq", "head"), CASES)
def test_equals_transformers(family, fields, batch, seq, head):
    real = hf.build(family, fields, head)
    _, config = hf_config.read({"model_type": family, **fields, "architectures": [type(real).__name__]})
    assert ours(config, batch, seq) == hf.step(real, batch, seq, head)


CACHED = [
    ("gpt2", GPT2),
    ("llama", LLAMA),
    ("falcon", {**SMALL, "num_attention_heads": 6}),
    ("bloom", {"vocab_size": 101, "hidden_size": 60, "n_layer": 3, "n_head": 5}),
    ("mistral", {**LLAMA, "sliding_window": 4}),
    ("gemma2", {**LLAMA, "num_hidden_layers": 3, "sliding_window": 4}),
    ("cohere2", {**LLAMA, "head_dim": 8, "num_hidden_layers": 4, "sliding_window": 4, "pad_token_id": 0}),
    ("mixtral", {**LLAMA, "num_local_experts": 5}),
    ("deepseek_v3", {**LATENT, **GROUPS}),
]


@pytest.mark.parametrize(("family", "fields"), CACHED)
def test_prefill_and_decode_equal_transformers(family, fields):
    module, (_, config) = hf.build(family, fields), hf_config.read({"model_type": family, **fields})
    seq, batch = 9, 2
    ids = torch.zeros(batch, seq, dtype=torch.long, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        cache = module(input_ids=ids[:, : seq - 1], logits_to_keep=1).past_key_values  # as generate() does
    assert _forward(counter) == flops(build(config, Workload("prefill", batch, seq - 1))).forward
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(input_ids=ids[:, :1], past_key_values=cache)
    model = build(config, Workload("decode", batch, seq))
    assert _forward(counter) == flops(model).forward
    kept = sum(
        times * elements(t, o.sizes) for o, times in walk(model.nodes) for t in o.outs if t.role == CACHE
    )
    slides = any(config.windows)  # transformers keeps one token less than a window: the next one comes anyway
    found = sum(t.numel() for layer in cache.layers for t in (layer.keys, layer.values))
    assert kept == found if not slides else kept > found


def _forward(counter):
    rotary = (ops for name, ops in counter.get_flop_counts().items() if name.endswith("rotary_emb"))
    return counter.get_total_flops() - sum(sum(ops.values()) for ops in rotary)


def test_the_window_bounds_the_cache():
    full, slid = Config(layers=4), Config(layers=4, windows=(100, 0))
    kept = [
        sum(times * elements(t, o.sizes) for o, times in walk(m.nodes) for t in o.outs if t.role == CACHE)
        for m in (build(c, Workload("decode", 1, 1000)) for c in (full, slid))
    ]
    assert kept == [4 * 2 * 768 * 1000, 2 * 2 * 768 * (1000 + 100)]


@pytest.mark.parametrize("mode", ["train", "prefill", "decode"])
def test_arrays_equal_single_answers(mode):
    widths, batches = np.array([48.0, 96.0, 144.0]), np.array([1.0, 5.0, 2.0])
    settings = {"heads": 6, "kv_heads": 3, "layers": 3, "gated": True, "positions": "rotary"}
    many = flops(backward(build(Config(d_model=widths, **settings), Workload(mode, batches, 7))))
    for i, (width, batch) in enumerate(zip(widths, batches, strict=True)):
        one = flops(backward(build(Config(d_model=int(width), **settings), Workload(mode, int(batch), 7))))
        assert [total[i] if np.ndim(total) else total for total in many] == list(one)


def test_symbols_give_the_closed_form():
    names = b, s, d, h, f, n, v = sympy.symbols("b s d h f n v", positive=True)
    config = Config(layers=n, d_model=d, heads=h, d_ff=f, vocab=v)
    formula = flops(build(config, Workload("forward", b, s))).forward
    assert sympy.expand(formula - (n * b * s * (8 * d**2 + 4 * d * f + 4 * d * s) + 2 * b * s * d * v)) == 0
    values = dict(zip(names, (1, 1024, 768, 12, 3072, 12, 50257), strict=True))
    assert formula.subs(values) == 291_648_307_200  # torch's own counter's, of GPT-2


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"heads": 7}, "heads"),
        ({"heads": 12, "kv_heads": 5}, "kv_heads"),
        ({"experts": 4, "active_experts": 5}, "active_experts"),
        ({"layers": 2, "dense_layers": 3}, "dense_layers"),
        ({"rotary_fraction": 1.5}, "rotary_fraction"),
        ({"kv_latent": 8, "rope_head_dim": 65}, "rope_head_dim"),
        ({"windows": ()}, "windows"),
        ({"windows": (4, -1)}, "windows"),
        ({"norm": "batch"}, "norm"),
        ({"layers": 0}, "layers"),
        ({"softcap": float("nan")}, "softcap"),
        ({"softcap": 10**400}, "softcap"),
    ],
)
def test_bad_settings(settings, field):
    with pytest.raises(InputError) as error:
        make(Config, settings)
    assert error.value.field == field


def test_positions_bound_the_length():
    with pytest.raises(InputError, match="at most context, 1024"):
        build(Config(), Workload("train", 1, 1025))
    build(Config(positions="rotary"), Workload("train", 1, 1025))


def test_an_encoder_does_not_decode():
    with pytest.raises(InputError, match="mode"):
        build(Config(kind="encoder"), Workload("decode"))
