"""Hugging Face configs of decoders at odd settings: parameters and FLOPs equal to those of transformers."""

import pytest
import torch
from oracles import hf
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText
from transformers import AutoModelForSeq2SeqLM as Speech

from budget import arch as architectures
from budget import estimate
from budget.config import Workload
from budget.errors import InputError
from budget.fold.count import flops, params
from budget.ir import walk
from budget.plan.backward import backward
from budget.read import hf_config, hf_families, preset
from budget.read.hf_towers import wholes

SMALL = {"vocab_size": 101, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2}
HEADS = {**SMALL, "num_attention_heads": 6, "num_key_value_heads": 2, "pad_token_id": 0}
WIDE = {**HEADS, "head_dim": 10}
TIED = {"tie_word_embeddings": True}
EXPERTS = {"num_local_experts": 5, "num_experts_per_tok": 3}
SHARED = {
    "n_routed_experts": 8, "num_experts_per_tok": 3, "n_shared_experts": 2, "moe_intermediate_size": 14,
    "n_group": 4, "topk_group": 2,
}  # fmt: skip
ERNIE = {"moe_num_experts": 7, "moe_k": 3, "moe_intermediate_size": 14}
FULL, SLIDING = "full_attention", "sliding_attention"

CASES = [
    ("apertus", {**WIDE, "attention_bias": True, **TIED}),
    ("arcee", {**HEADS, "head_dim": 10, "mlp_bias": True, "attention_bias": True}),
    ("codegen", {"vocab_size": 97, "n_embd": 60, "n_layer": 3, "n_head": 4, "rotary_dim": 4, "n_inner": 70}),
    ("cohere", {**HEADS, "use_qk_norm": True, "tie_word_embeddings": False}),
    ("cohere2", {**HEADS, "num_hidden_layers": 7, "sliding_window": 4, "attention_bias": True}),
    ("cohere2", {**HEADS, "layer_types": [FULL, SLIDING], "sliding_window": 5}),
    ("dots1", {**WIDE, **SHARED, "first_k_dense_replace": 1, "norm_topk_prob": True, "attention_bias": True}),
    ("dots1", {**WIDE, **SHARED, "num_hidden_layers": 3, "max_window_layers": 1, "sliding_window": 4}),
    ("ernie4_5", {**WIDE, "use_bias": True, "tie_word_embeddings": False}),
    ("ernie4_5_moe", {**WIDE, **ERNIE, "num_hidden_layers": 5, "moe_layer_interval": 2}),
    ("ernie4_5_moe", {**HEADS, **ERNIE, "moe_num_shared_experts": 0, "moe_layer_start_index": 0}),
    ("exaone4", {**WIDE, "num_hidden_layers": 6, "sliding_window": 4, **TIED}),
    ("exaone4", {**WIDE, "sliding_window": None, "layer_types": [FULL, FULL]}),
    ("glm", {**WIDE, "attention_bias": False, "partial_rotary_factor": 0.8}),
    ("glm4", {**WIDE, "num_key_value_heads": 3, **TIED}),
    ("glm4_moe", {**WIDE, **SHARED, "num_hidden_layers": 3, "first_k_dense_replace": 2, "use_qk_norm": True,
                  "attention_bias": True}),
    ("granitemoe", {**HEADS, **EXPERTS, "attention_bias": True, **TIED}),
    ("granitemoeshared", {**HEADS, **EXPERTS, "shared_intermediate_size": 22}),
    ("helium", {**HEADS, "head_dim": 8, "attention_bias": True, "mlp_bias": True}),
    ("hunyuan_v1_dense", {**WIDE, "attention_bias": True, **TIED}),
    ("hunyuan_v1_moe", {**WIDE, "num_experts": 5, "moe_topk": 3, "attention_bias": True, **TIED}),
    ("hunyuan_v1_moe", {**WIDE, "num_experts": 5, "moe_topk": [2, 2]}),
    ("ministral", {**WIDE, "layer_types": [SLIDING, FULL], "sliding_window": 4}),
    ("ministral3", {**WIDE, "sliding_window": 4, **TIED}),
    ("nemotron", {**WIDE, "attention_bias": True, "mlp_bias": True, "hidden_act": "gelu"}),
    ("olmo2", {**HEADS, "attention_bias": True, **TIED}),
    ("olmo3", {**HEADS, "num_hidden_layers": 6, "sliding_window": 4}),
    ("olmoe", {**HEADS, "num_experts": 7, "num_experts_per_tok": 2, "attention_bias": True}),
    ("persimmon", {**SMALL, "num_attention_heads": 3, "pad_token_id": 0, "qk_layernorm": False, **TIED}),
    ("phimoe", {**HEADS, "num_local_experts": 5, "attention_bias": True, "lm_head_bias": True,
                "sliding_window": 4}),
    ("seed_oss", {**WIDE, "attention_bias": False, "attention_out_bias": True, "mlp_bias": True}),
    ("smollm3", {**HEADS, "num_hidden_layers": 3, "no_rope_layers": [0, 1, 1]}),
    ("solar_open", {**WIDE, **SHARED, "attention_bias": True, **TIED}),
    ("stablelm", {**HEADS, "qk_layernorm": True, "partial_rotary_factor": 0.5}),
]  # fmt: skip


@pytest.mark.every(4)
@pytest.mark.parametrize(("family", "fields"), CASES)
def test_equals_transformers(family, fields):
    _, config = hf_config.read({"model_type": family, **fields})
    model = backward(architectures.load("transformer").build(config, Workload("train", 2, 9)))
    total = flops(model)
    assert (params(model).total, total.forward, total.backward) == hf.step(hf.build(family, fields), 2, 9)


NESTED = {
    "aya_vision": "cohere2", "gemma3": "gemma3_text", "idefics3": "llama", "internvl": "qwen2",
    "llava": "mistral", "llava_next": "llama", "mistral3": "ministral3", "paligemma": "gemma2",
    "qwen2_vl": "qwen2_vl_text", "qwen2_5_vl": "qwen2_5_vl_text", "qwen3_vl": "qwen3_vl_text",
    "qwen3_vl_moe": "qwen3_vl_moe_text", "smolvlm": "llama",
    "cohere2_vision": "cohere2", "cosmos3_omni": "qwen3_vl_text", "exaone4_5": "exaone4", "fuyu": "persimmon",
    "idefics2": "mistral", "llava_next_video": "llama", "llava_onevision": "qwen2", "qianfan_ocr": "qwen3",
    "video_llama_3": "qwen2", "video_llava": "llama", "vipllava": "llama", "deepseek_vl": "llama",
    "deepseek_vl_hybrid": "llama", "got_ocr2": "qwen2", "janus": "llama", "lighton_ocr": "qwen3",
    "qwen3_asr": "qwen3", "granite_speech": "granite", "glmasr": "llama", "kimi_k25": "deepseek_v3",
}  # fmt: skip
BILLIONS = {  # as their cards and papers round them
    "olmo-2-1b": 1.48, "olmo-2-7b": 7.3, "olmo-2-13b": 13.7, "olmo-2-32b": 32.2, "olmoe-1b-7b": 6.92,
    "glm-4-9b": 9.4, "glm-4-9b-0414": 9.4, "command-r-35b": 35, "command-r-plus-104b": 104,
    "command-r7b": 8.03,
    "mistral-small-24b": 23.6, "nemotron-4-340b": 341, "phi-3.5-moe": 41.9, "seed-oss-36b": 36.2,
    "apertus-8b": 8.05, "exaone-4.0-32b": 32.0,
    "falcon3-1b": 1.67, "falcon3-3b": 3.23, "falcon3-7b": 7.46, "falcon3-10b": 10.3, "codellama-7b": 6.74,
    "codellama-13b": 13.0, "codellama-70b": 69.0, "mistral-7b-v0.3": 7.25, "mistral-large-123b": 123,
    "phi-4": 14.7, "phi-4-mini": 3.84, "phi-3.5-mini": 3.82, "qwq-32b": 32.8, "olmo-1b": 1.18,
    "olmo-7b": 6.89, "stablelm-3b-4e1t": 2.80, "salamandra-2b": 2.25, "salamandra-7b": 7.77,
    "starcoder2-3b": 3.03, "modernbert-base": 0.149, "mpnet-base": 0.109, "minimax-m2": 229,
    "baichuan2-7b": 7.51, "internlm-7b": 7.32,
    "internlm-20b": 20.1, "glm-4.7-flash": 30,
    "ernie-4.5-21b-a3b": 21.8, "mixtral-8x22b": 140.6, "solar-open-100b": 102.6,
}  # fmt: skip


@pytest.mark.parametrize("name", BILLIONS)
def test_presets_have_the_size_that_they_are_known_for(name):
    _, config = hf_config.read(preset.find(name))
    total = params(architectures.load("transformer").build(config, Workload("forward", 1, 9))).total
    assert total / 1e9 == pytest.approx(BILLIONS[name], rel=0.005)


UNTIED = {"tie_word_embeddings": False}
TIES = (({}, {}), ({}, TIED), ({}, UNTIED), (TIED, {}), (UNTIED, {}), (TIED, UNTIED), (UNTIED, TIED))


def _towered(family: str, arch: str) -> bool:
    return arch in wholes(hf_families.load(family)).values()


@pytest.mark.every(4)
@pytest.mark.parametrize(
    ("inside", "tie"), [t if t in TIES[:2] else pytest.param(*t, marks=pytest.mark.slow) for t in TIES]
)
@pytest.mark.parametrize("family", NESTED)
def test_a_nested_language_model_is_counted_with_its_head(family, inside, tie):
    text = {"model_type": NESTED[family], **HEADS, "head_dim": 8, **inside}
    width = HEADS["hidden_size"]  # of what projectors make
    vision = {"num_attention_heads": 16, "hidden_size": width, "out_hidden_size": width, "patch_size": 14}
    fields = {"text_config": text, "vision_config": vision, "projection_dim": width, **tie}
    config = AutoConfig.for_model(family, **fields)
    auto = (
        AutoModelForImageTextToText if type(config) in AutoModelForImageTextToText._model_mapping else Speech
    )
    with torch.device("meta"):
        module = auto.from_config(config)
    module.tie_weights()
    language = {*module.get_decoder().parameters(), *module.get_output_embeddings().parameters()}
    arch, config = hf_config.read({"model_type": family, **fields})
    model = architectures.load(arch).build(config, Workload("forward", 1, 9))
    counted = {*module.parameters()} if _towered(family, arch) else language
    assert params(model).total == sum(p.numel() for p in counted)


@pytest.mark.parametrize("family", ["glmasr", "got_ocr2", "qwen3_asr"])
def test_a_nested_text_model_of_few_fields(family):
    """The rest is as transformers has it: the text model's own, or the family's."""
    fields = {"text_config": {"vocab_size": 101, "num_hidden_layers": 2, "pad_token_id": 0}, **TIED}
    arch, config = hf_config.read({"model_type": family, **fields})
    real = AutoConfig.for_model(family, **fields)
    with torch.device("meta"):
        module = AutoModel.from_config(real if _towered(family, arch) else real.get_text_config())
    model = architectures.load(arch).build(config, Workload("forward", 1, 9))
    assert params(model).total == sum(p.numel() for p in module.parameters())


def test_a_text_model_that_the_class_does_not_take_is_not_read():
    """gemma3 has one text model: whatever model_type says there, the class makes its own."""
    named = {"model_type": "gemma3", "text_config": {"model_type": "qwen3", **HEADS}}
    assert hf_config.read(named) == hf_config.read({"model_type": "gemma3", "text_config": HEADS})


def test_a_flat_config_says_the_same():
    flat, nested = {**HEADS, **TIED}, {"text_config": HEADS, **TIED}
    for family in ("qwen2_vl", "qwen2_5_vl"):
        assert hf_config.read({"model_type": family, **flat}) == hf_config.read(
            {"model_type": family, **nested}
        )


def rotating(family, **fields):
    """How many layers rotate their queries."""
    _, config = hf_config.read({"model_type": family, **HEADS, **fields})
    model = architectures.load("transformer").build(config, Workload("forward", 1, 9))
    return sum(times for o, times in walk(model.nodes) if o.name.endswith("attn.q_rope"))


@pytest.mark.parametrize(
    ("family", "fields", "layers"),
    [
        ("cohere2", {"num_hidden_layers": 9}, 7),
        ("exaone4", {"num_hidden_layers": 9}, 7),
        ("exaone4", {"sliding_window": None, "layer_types": [FULL, FULL]}, 2),
        ("smollm3", {"num_hidden_layers": 9}, 7),
        ("smollm3", {"num_hidden_layers": 3, "no_rope_layers": [0, 1, 0]}, 1),
    ],
)
def test_layers_that_rotate(family, fields, layers):
    assert rotating(family, **fields) == layers


def test_a_correction_of_the_choice_does_not_train():
    _, config = hf_config.read({"model_type": "ernie4_5_moe", **HEADS, **ERNIE})
    counted = params(backward(architectures.load("transformer").build(config, Workload("train", 1, 9))))
    module = hf.build("ernie4_5_moe", {**HEADS, **ERNIE})
    assert counted.trainable == sum(p.numel() for p in module.parameters() if p.requires_grad)
    assert counted.total - counted.trainable == ERNIE["moe_num_experts"]


def test_a_config_of_hunyuans_mixture_has_the_presets_size():
    """As it is published, with lists by layer; layers that differ are refused."""
    table = {
        "model_type": "hunyuan_v1_moe", "architectures": ["HunYuanMoEV1ForCausalLM"], "hidden_size": 4096,
        "num_attention_heads": 32, "num_key_value_heads": 8, "attention_head_dim": 128, "vocab_size": 128167,
        "intermediate_size": 3072, "num_experts": 64, "moe_topk": [8] * 32, "tie_word_embeddings": True,
    }  # fmt: skip
    assert estimate(table).params.total == estimate("hunyuan-a13b").params.total
    with pytest.raises(InputError, match=r"^moe_topk: .* allowed: the same for each layer"):
        hf_config.read({**table, "moe_topk": [8, 1]})
