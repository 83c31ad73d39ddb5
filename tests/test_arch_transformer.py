"""Transformers against transformers: parameters and FLOPs equal to the last digit."""

import csv
from pathlib import Path

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
from budget.read import hf_config, preset

ROWS = {
    row["model"]: row
    for row in csv.DictReader(
        (Path(__file__).parent / "data/params_flops.csv").read_text("utf-8").splitlines()
    )
}


def ours(config, batch, seq):
    model = backward(build(config, Workload("train", batch, seq)))
    counted = flops(model)
    return params(model).total, counted.forward, counted.backward


def of_preset(name):
    table = {k: v for k, v in preset.find(name).items() if k not in preset.ABOUT}
    if "model_type" in table:
        return hf_config.read(table)[1]
    table.pop("arch")
    return make(Config, table)


GOLDEN = [  # preset, seq, parameters, forward, step: FlopCounterMode on the meta device, eager attention
    ("gpt2", 1024, 124_439_808, 291_648_307_200, 874_944_921_600),
    ("llama-2-7b", 4096, 6_738_415_616, 62_921_270_886_400, 188_763_812_659_200),
    ("llama-3-70b", 8192, 70_553_706_496, 1_314_637_949_698_048, 3_943_913_849_094_144),
    ("mixtral-8x7b", 4096, 46_702_792_704, 113_232_517_791_744, 339_697_553_375_232),
    ("bert-base", 512, 109_482_240, 96_637_943_808, 289_911_472_128),
]


@pytest.mark.parametrize(("name", "seq", "total", "forward", "step"), GOLDEN)
def test_golden(name, seq, total, forward, step):
    counted = ours(of_preset(name), 1, seq)
    assert (counted[0], counted[1], counted[1] + counted[2]) == (total, forward, step)


def test_default_is_gpt2():
    assert ours(Config(), 1, 0) == (124_439_808, 291_648_307_200, 874_944_921_600 - 291_648_307_200)


PUBLISHED = {  # a row of params_flops.csv: the preset that it is of
    "GPT-2 124M": "gpt2", "GPT-2 large": "gpt2-large", "BERT-base-uncased": "bert-base",
    "RoBERTa-large": "roberta-large", "ALBERT-base-v2": "albert-base-v2",
    "LLaMA-7B / Llama-2-7B": "llama-2-7b",
    "LLaMA-33B": "llama-33b", "Llama-2-70B": "llama-2-70b", "Llama-3-70B": "llama-3-70b",
    "CodeLlama-34B": "codellama-34b", "SmolLM2-1.7B (untied? tied)": "smollm2-1.7b",
    "Llama-3.2-3B": "llama-3.2-3b", "Mixtral-8x7B": "mixtral-8x7b", "Phi-2": "phi-2", "Gemma-2B": "gemma-2b",
    "Gemma-2-9B": "gemma-2-9b", "Qwen2.5-0.5B": "qwen2.5-0.5b", "Qwen2.5-3B": "qwen2.5-3b",
    "Qwen2.5-14B": "qwen2.5-14b", "Qwen2.5-72B": "qwen2.5-72b", "Qwen3-30B-A3B": "qwen3-30b-a3b",
    "DeepSeek-V3 (main, no MTP)": "deepseek-v3", "GPT-OSS-20B": "gpt-oss-20b", "OPT-125M": "opt-125m",
    "OPT-6.7B": "opt-6.7b", "OPT-30B": "opt-30b", "BLOOM-560M": "bloom-560m", "BLOOM-7b1": "bloom-7b1",
    "Pythia-70M": "pythia-70m", "Pythia-410M": "pythia-410m", "Pythia-1.4B": "pythia-1.4b",
    "Pythia-6.9B": "pythia-6.9b", "GPT-NeoX-20B": "gpt-neox-20b", "GPT-Neo-125M": "gpt-neo-125m",
    "MPT-7B": "mpt-7b", "MPT-125m": "llm-foundry-125m", "MPT-350m": "llm-foundry-350m",
    "MPT-760m": "llm-foundry-760m", "MPT-1b": "llm-foundry-1b", "MPT-3b": "llm-foundry-3b",
    "MPT-7b": "llm-foundry-7b", "MPT-13b": "llm-foundry-13b", "MPT-30b": "llm-foundry-30b",
    "MPT-70b": "llm-foundry-70b",
}  # fmt: skip


@pytest.mark.parametrize(("row", "name"), PUBLISHED.items())
def test_published_parameters(row, name):
    model = build(of_preset(name), Workload("forward"))
    assert params(model).total == int(ROWS[row]["params"])


def test_published_parameters_of_a_masked_bert():
    _, config = hf_config.read({"model_type": "bert", "architectures": ["BertForMaskedLM"]})
    assert params(build(config, Workload("forward"))).total == int(ROWS["BERT-base ForMaskedLM"]["params"])


ROUNDED = [
    ("gpt3-175b", 174.6),
    ("llama-3-405b", 405.9),
    ("opt-175b", 174.6),
    ("bloom-176b", 176.2),
    ("mixtral-8x22b", 140.6),
]


@pytest.mark.parametrize(("name", "billions"), ROUNDED)
def test_parameters_as_the_papers_round_them(name, billions):
    assert round(params(build(of_preset(name), Workload("forward"))).total / 1e9, 1) == billions


@pytest.mark.parametrize(
    ("name", "billions"), [("mixtral-8x7b", 12.9), ("deepseek-v3", 37.6), ("qwen3-235b-a22b", 22.2)]
)
def test_active_parameters(name, billions):
    assert round(params(build(of_preset(name), Workload("forward"))).active / 1e9, 1) == billions


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
    assert formula.subs(values) == GOLDEN[0][3]


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
