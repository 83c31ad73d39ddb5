"""Hugging Face configs of encoder-decoders, vision transformers, Whisper and state spaces."""

import differential_counts
import differential_inputs
import pytest
import torch
import transformers as hf
from differential import judge
from hypothesis import given
from hypothesis import strategies as st
from oracles.flops import count_params
from small_configs import base
from transformers import AutoConfig

from budget import arch as architectures
from budget import estimate
from budget.config import Workload
from budget.errors import InputError
from budget.fold.count import flops, params
from budget.ir.verify import verify
from budget.read import hf_config, hf_families

FEW = {"num_layers": 2}
STACKS = {"encoder_layers": 2, "decoder_layers": 1}
LAYERS = {"num_hidden_layers": 5}
FAMILIES = {
    "t5": (hf.T5ForConditionalGeneration, FEW),
    "mt5": (hf.MT5ForConditionalGeneration, FEW),
    "bart": (hf.BartForConditionalGeneration, STACKS),
    "mbart": (hf.MBartForConditionalGeneration, STACKS),
    "whisper": (hf.WhisperForConditionalGeneration, STACKS),
    "vit": (hf.ViTForImageClassification, LAYERS),
    "deit": (hf.DeiTForImageClassification, LAYERS),
    "dinov2": (hf.Dinov2Model, LAYERS),
    "clip_vision_model": (hf.CLIPVisionModel, LAYERS),
    "siglip_vision_model": (hf.SiglipVisionModel, LAYERS),
    "mamba": (hf.MambaForCausalLM, LAYERS),
    "mamba2": (hf.Mamba2ForCausalLM, LAYERS),
    "jamba": (hf.JambaForCausalLM, LAYERS),
    "lfm2": (hf.Lfm2ForCausalLM, LAYERS),
    "bamba": (hf.BambaForCausalLM, {**LAYERS, "attn_layer_indices": [3]}),
}
NAMES = {
    family: sorted({*hf_families.load(family)["defaults"], "attn_layer_indices", "tie_word_embeddings"})
    for family in FAMILIES
}


def counted(table):
    arch, config = hf_config.read(table)
    model = architectures.load(arch).build(config, Workload("forward", seq=9))
    return params(model).total, flops(model).forward


def total(table):
    return counted(table)[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_defaults_with_few_layers_equal_transformers(family):
    cls, fields = FAMILIES[family]
    with torch.device("meta"):
        real = cls(AutoConfig.for_model(family, **fields))
    assert total({"model_type": family, **fields}) == count_params(real)


@pytest.mark.parametrize("family", FAMILIES)
def test_missing_fields_are_the_familys_defaults(family):
    whole = AutoConfig.for_model(family).to_dict()
    del whole["architectures"]
    if family in ("t5", "mt5"):
        whole["tie_word_embeddings"] = True
    assert counted(whole) == counted({"model_type": family})


@pytest.mark.parametrize(
    ("table", "cls"),
    [
        ({"model_type": "t5", "num_layers": 1, "num_decoder_layers": 3, "feed_forward_proj": "gated-gelu",
          "tie_word_embeddings": False}, hf.T5ForConditionalGeneration),
        ({"model_type": "vit", "num_hidden_layers": 1, "image_size": [96, 96],
          "id2label": {0: "a", 1: "b", 2: "c"}}, hf.ViTForImageClassification),
        ({"model_type": "dinov2", "num_hidden_layers": 2, "hidden_size": 96, "use_swiglu_ffn": True,
          "mlp_ratio": 3, "architectures": ["Dinov2ForImageClassification"]},
         hf.Dinov2ForImageClassification),
        ({"model_type": "jamba", "num_hidden_layers": 4, "num_experts": 1},
         hf.JambaForCausalLM),
        ({"model_type": "mamba", "num_hidden_layers": 1, "time_step_rank": 7}, hf.MambaForCausalLM),
    ],
)  # fmt: skip
def test_fields_that_take_a_computation(table, cls):
    fields = {k: v for k, v in table.items() if k != "model_type"}
    with torch.device("meta"):
        real = cls(AutoConfig.for_model(table["model_type"], **fields))
    assert total(table) == count_params(real)


ODD = {"num_hidden_layers": 1, "intermediate_size": 70, "num_attention_heads": 3, "hidden_act": "gelu"}
CLASSES = [
    ("clip_text_model", "CLIPTextModel", ODD),
    ("clip_text_model", "CLIPTextModelWithProjection", {**ODD, "projection_dim": 20}),
    ("clip_vision_model", "CLIPVisionModel", {**ODD, "image_size": 39}),
    ("clip_vision_model", "CLIPVisionModelWithProjection", {"projection_dim": 20, "num_channels": 1}),
    ("siglip_text_model", "SiglipTextModel", {}),
    ("siglip_text_model", "SiglipTextModel", {**ODD, "projection_size": 20}),
    ("siglip_vision_model", "SiglipVisionModel", {**ODD, "patch_size": 5}),
    ("siglip_vision_model", "SiglipVisionModel", {"vision_use_head": False}),
    ("deepseek_v32", "", {"attention_bias": True, "index_n_heads": 4}),
    ("deepseek_v32", "DeepseekV32Model", {"mlp_layer_types": ["dense", "dense", "sparse"]}),
    ("glm4_moe_lite", "Glm4MoeLiteForCausalLM", {"attention_bias": True}),
    ("glm4_moe_lite", "Glm4MoeLiteModel", {"mlp_layer_types": ["dense", "dense", "sparse"]}),
    ("glm_moe_dsa", "GlmMoeDsaForCausalLM", {"index_head_dim": 16, "tie_word_embeddings": True}),
    ("modernbert", "ModernBertForMaskedLM", {"classifier_bias": True, "decoder_bias": False}),
    ("modernbert", "ModernBertForMaskedLM", {"num_hidden_layers": 1, "tie_word_embeddings": False}),
    ("modernbert", "ModernBertModel", {"norm_bias": True, "attention_bias": True, "mlp_bias": True}),
    ("modernbert", "", {"num_hidden_layers": 7, "local_attention": 4, "global_attn_every_n_layers": 2}),
    ("granitemoehybrid", "GraniteMoeHybridForCausalLM", {"position_embedding_type": "rope"}),
    ("granitemoehybrid", "GraniteMoeHybridForCausalLM", {"num_local_experts": 0, "num_experts_per_tok": 0}),
    ("granitemoehybrid", "GraniteMoeHybridModel", {"layer_types": ["attention", "mamba", "mamba"]}),
    ("lfm2", "Lfm2ForCausalLM", {"conv_bias": True, "tie_word_embeddings": False}),
    ("lfm2", "Lfm2ForCausalLM", {"layer_types": None, "full_attn_idxs": [2], "conv_L_cache": 5}),
    ("lfm2", "Lfm2Model", {"block_ffn_dim_multiplier": 1.3, "block_ff_dim": 91}),
    ("qwen3_next", "Qwen3NextForCausalLM", {"decoder_sparse_step": 2, "mlp_only_layers": [3]}),
    ("qwen3_next", "Qwen3NextForTokenClassification", {"linear_num_key_heads": 4, "attention_bias": True}),
    ("qwen3_next", "", {"layer_types": ["full_attention"] * 2 + ["linear_attention"] * 2, "num_experts": 0}),
    ("qwen3_5_text", "Qwen3_5ForCausalLM", {"linear_conv_kernel_dim": 3, "full_attention_interval": 2}),
    ("qwen3_5_text", "Qwen3_5TextForSequenceClassification", {"tie_word_embeddings": True}),
    ("qwen3_5_moe_text", "Qwen3_5MoeForCausalLM", {"num_key_value_heads": 3}),
    ("nemotron_h", "NemotronHForCausalLM", {"use_bias": True, "mlp_bias": True}),
    (
        "nemotron_h",
        "NemotronHModel",
        {"layers_block_type": ["moe", "mlp", "attention"], "moe_latent_size": None},
    ),
    (
        "nemotron_h",
        "",
        {"layers_block_type": None, "hybrid_override_pattern": "M-M*E", "use_conv_bias": False},
    ),
    ("falcon_h1", "FalconH1ForCausalLM", {"mamba_rms_norm": True, "projectors_bias": True}),
    ("falcon_h1", "FalconH1Model", {"mamba_d_ssm": None, "attention_bias": True, "mamba_proj_bias": True}),
    ("llama4_text", "Llama4ForCausalLM", {"interleave_moe_layer_step": 2, "no_rope_layer_interval": 2}),
    ("llama4_text", "Llama4TextModel", {"num_experts_per_tok": 2, "use_qk_norm": False}),
    (
        "gemma4_text",
        "Gemma4ForCausalLM",
        {"attention_k_eq_v": True, "num_global_key_value_heads": 3, "use_bidirectional_attention": "vision"},
    ),
    (
        "gemma4_text",
        "Gemma4ForCausalLM",
        {
            "enable_moe_block": True,
            "num_experts": 5,
            "top_k_experts": 2,
            "moe_intermediate_size": 14,
            "final_logit_softcapping": 30.0,
        },
    ),
    ("gemma4_text", "Gemma4TextModel", {"hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0}),
    ("lfm2", "", {"block_auto_adjust_ff_dim": False, "layer_types": ["conv"] * 3}),
]


@pytest.mark.every(4)
@pytest.mark.parametrize(("kind", "name", "fields"), CLASSES)
def test_a_class_equals_transformers(kind, name, fields):
    """Parameters, forward and backward FLOPs."""
    assert judge(kind, name, {**base(kind), **fields}, train=True) == ("equal", "")


LONG = ("qwen3_next", 200, {}), ("qwen3_5_text", 64, {"linear_num_key_heads": 4})


@pytest.mark.parametrize(("kind", "seq", "fields"), LONG)
def test_states_pass_from_chunk_to_chunk(kind, seq, fields, monkeypatch):
    """With several chunks of 64, the first one's state needs no gradient, the last one's has none."""
    for module in (differential_counts, differential_inputs):
        monkeypatch.setattr(module, "SEQ", seq)
    assert judge(kind, "", {**base(kind), **fields}, train=True) == ("equal", "")


def test_a_recurrence_is_spread_over_devices():
    """The gradient of what chunks are written into passes through their block unchanged."""
    table = {"model_type": "qwen3_next", **base("qwen3_next")}
    found = estimate(table, batch=4, seq=200, layout="pp=2,dp=2")
    assert found.memory.peak > 0


@pytest.mark.parametrize("mode", ["train", "prefill", "decode"])
@pytest.mark.parametrize(
    "kind",
    [
        "granitemoehybrid",
        "lfm2",
        "deepseek_v32",
        "clip_text_model",
        "qwen3_next",
        "falcon_h1",
        "nemotron_h",
        "gemma4_text",
    ],
)
def test_a_network_is_sound_in_every_mode(kind, mode):
    arch, config = hf_config.read({"model_type": kind, **base(kind)})
    model = architectures.load(arch).build(config, Workload(mode, 2, 9))
    verify(model)
    assert flops(model).forward > 0


@pytest.mark.parametrize(
    ("table", "field"),
    [
        ({"model_type": "t5", "feed_forward_proj": "gated-"}, "feed_forward_proj"),
        ({"model_type": "t5", "d_kv": 0.5}, "d_kv"),
        ({"model_type": "bart", "encoder_attention_heads": 7}, "encoder_attention_heads"),
        ({"model_type": "whisper", "activation_function": "sine"}, "activation_function"),
        ({"model_type": "whisper", "use_weighted_layer_sum": True}, "use_weighted_layer_sum"),
        ({"model_type": "t5", "is_decoder": True}, "is_decoder"),
        ({"model_type": "efficientnet", "hidden_dim": 640}, "hidden_dim"),
        ({"model_type": "regnet", "layer_type": "y", "embedding_size": 2}, "embedding_size"),
        ({"model_type": "vit", "image_size": [9, 8]}, "image_size"),
        ({"model_type": "mamba", "time_step_rank": "a"}, "time_step_rank"),
        ({"model_type": "mamba2", "head_dim": 63}, "head_dim"),
        ({"model_type": "jamba", "attn_layer_offset": 8}, "attn_layer_offset"),
        ({"model_type": "jamba", "num_key_value_heads": 5}, "num_key_value_heads"),
        ({"model_type": "bamba", "attn_layer_indices": [32]}, "attn_layer_indices"),
        ({"model_type": "bamba", "num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"model_type": "lfm2", "layer_types": ["conv"]}, "layer_types"),
        ({"model_type": "lfm2", "head_dim": 7}, "head_dim"),
        ({"model_type": "deepseek_v32", "mlp_layer_types": ["sparse", "dense"]}, "mlp_layer_types"),
        ({"model_type": "glm4_moe_lite", "mlp_layer_types": ["sparse", "dense"]}, "mlp_layer_types"),
        ({"model_type": "glm_moe_dsa", "indexer_types": ["full", "shared"]}, "indexer_types"),
        ({"model_type": "glm_moe_dsa", "index_n_heads": 0}, "index_n_heads"),
        ({"model_type": "deepseek_v32", "q_lora_rank": None}, "q_lora_rank"),
        ({"model_type": "lfm2", "block_ffn_dim_multiplier": "a"}, "block_ffn_dim_multiplier"),
        ({"model_type": "granitemoehybrid", "num_experts_per_tok": 9}, "num_experts_per_tok"),
        ({"model_type": "qwen3_next", "linear_num_key_heads": 5}, "linear_num_key_heads"),
        ({"model_type": "nemotron_h", "hybrid_override_pattern": "MAM"}, "hybrid_override_pattern"),
        ({"model_type": "nemotron_h", "layers_block_type": ["conv"]}, "layers_block_type"),
        ({"model_type": "falcon_h1", "mamba_n_heads": 5}, "mamba_n_heads"),
        ({"model_type": "llama4_text", "moe_layers": [1, 2]}, "moe_layers"),
        ({"model_type": "gemma4_text", "per_layer_config": {"1": {"head_dim": 8}}}, "per_layer_config"),
        ({"model_type": "gemma4_text", "num_kv_shared_layers": 29}, "num_kv_shared_layers"),
        ({"model_type": "llama4_text", "no_rope_layers": [1, 2]}, "no_rope_layers"),
    ],
)
def test_what_is_wrong_is_named(table, field):
    with pytest.raises(InputError, match=rf"^{field}: "):
        hf_config.read(table)


@given(family=st.sampled_from(sorted(FAMILIES)), data=st.data())
def test_any_value_is_read_or_named(family, data):
    name = data.draw(st.sampled_from(NAMES[family]))
    values = st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
        st.lists(st.one_of(st.integers(), st.none(), st.text(max_size=2)), max_size=3), st.just({}),
    )  # fmt: skip
    try:
        arch, config = hf_config.read({"model_type": family, name: data.draw(values)})
    except InputError as error:
        assert name in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert isinstance(config, architectures.load(arch).Config)


def test_a_number_where_llama_4_has_a_flag_is_taken_for_its_truth():
    """The files of April 2025 have 4 there, as the class of that time had."""
    tables = ({"model_type": "llama4_text", "attn_temperature_tuning": value} for value in (4, 0, True))
    assert [hf_config.read(table)[1].temperature for table in tables] == [True, False, True]


def test_layers_heads_as_transformers_writes_them():
    """With ten layers and more, layers are called "05", ..., "29"."""
    written = AutoConfig.for_model("gemma4_text").to_dict()
    arch, config = hf_config.read(written)
    assert (arch, config.full_head_dim) == ("gemma4", written["per_layer_config"]["05"]["head_dim"])
