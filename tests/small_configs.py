"""Small configs of transformers' families, for tests: what a family's class takes of SMALL, then its own."""

from __future__ import annotations

from functools import cache
from typing import Any

from small_towers import DELTA, GLM_MOE, ROTATED, SAM, SEEING
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

SMALL = {
    "vocab_size": 101, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3,
    "num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "head_dim": 10, "n_embd": 48, "n_layer": 3, "n_head": 6,
    "n_positions": 64, "sliding_window": 4, "num_experts": 5, "num_local_experts": 5,
    "num_experts_per_tok": 2, "moe_intermediate_size": 14, "shared_expert_intermediate_size": 22,
    "shared_intermediate_size": 22, "n_routed_experts": 8, "n_shared_experts": 2, "n_group": 4,
    "topk_group": 2, "d_model": 48, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 6,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 70, "decoder_ffn_dim": 90, "num_layers": 3,
    "num_heads": 6, "d_kv": 10, "d_ff": 70, "relative_attention_num_buckets": 8, "ffn_dim": 80,
    "type_vocab_size": 3, "embedding_size": 24, "n_layers": 3, "n_heads": 6, "dim": 48, "hidden_dim": 80,
    "max_seq_len": 64, "image_size": 32, "patch_size": 8, "q_lora_rank": 20, "kv_lora_rank": 16,
    "qk_nope_head_dim": 6, "qk_rope_head_dim": 4, "v_head_dim": 8, "first_k_dense_replace": 1,
    "state_size": 5, "conv_kernel": 4, "max_source_positions": 20, "max_target_positions": 32,
    "num_mel_bins": 8, "moe_num_experts": 7, "moe_k": 3, "classifier_proj_size": 12,
    "decoder_start_token_id": 2, "mlp_ratio": 2,
}  # fmt: skip
SWIN = {
    "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4], "patch_size": 4, "window_size": 4,
    "mlp_ratio": 2.0,
}  # fmt: skip
SOUND = {
    "num_attention_heads": 4, "conv_dim": [12, 16, 20], "conv_kernel": [10, 3, 2], "conv_stride": [5, 2, 2],
    "num_feat_extract_layers": 3, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4,
    "head_dim": None, "vocab_size": 31, "num_codevectors_per_group": 8,
}  # fmt: skip
OWN: dict[str, dict[str, Any]] = {  # where the general small config is not one
    "gpt_neo": {"num_layers": 3, "attention_types": [[["global", "local"], 1], [["global"], 1]],
                "window_size": 4, "intermediate_size": None},
    "persimmon": {"num_attention_heads": 3},
    "codegen": {"n_head": 4, "rotary_dim": 4}, "gptj": {"rotary_dim": 4}, "helium": {"head_dim": 8},
    "minicpm3": {"num_key_value_heads": 6, "head_dim": None},
    "youtu": {"num_key_value_heads": 6, "head_dim": None},
    "gemma3_text": {"num_hidden_layers": 7}, "cohere2": {"num_hidden_layers": 5},
    "deepseek_v3": {"num_key_value_heads": 6, "head_dim": None},
    "deepseek_v2": {"num_key_value_heads": 6, "head_dim": None},
    "deepseek_v32": {"num_key_value_heads": 6, "head_dim": None, "index_n_heads": 3, "index_head_dim": 10},
    "glm4_moe_lite": {"num_key_value_heads": 6, "head_dim": None},
    "glm_moe_dsa": {"num_key_value_heads": 6, "head_dim": None, "index_n_heads": 3, "index_head_dim": 10},
    "convnext": {"hidden_sizes": [16, 24], "depths": [2, 1], "patch_size": 4, "num_stages": 2},
    "convnextv2": {"hidden_sizes": [16, 24], "depths": [2, 1], "patch_size": 4, "num_stages": 2},
    "resnet": {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [2, 1]},
    "regnet": {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [2, 1], "groups_width": 8},
    "swin": SWIN, "swinv2": SWIN,
    "wav2vec2": SOUND, "hubert": SOUND, "unispeech": SOUND, "unispeech-sat": SOUND,
    "segformer": {"num_encoder_blocks": 3, "depths": [2, 1, 1], "sr_ratios": [4, 2, 1],
                  "hidden_sizes": [12, 16, 24], "patch_sizes": [7, 3, 3], "strides": [4, 2, 2],
                  "num_attention_heads": [1, 2, 3], "mlp_ratios": [2, 3, 2], "decoder_hidden_size": 20},
    "mobilenet_v2": {"depth_multiplier": 0.5, "image_size": 64},
    "efficientnet": {"width_coefficient": 1.0, "depth_coefficient": 1.0, "image_size": 64,
                     "hidden_dim": 1280},
    "jamba": {"num_hidden_layers": 8, "num_experts": 4, "attn_layer_period": 4, "attn_layer_offset": 2,
              "head_dim": None, "mamba_d_state": 5, "mamba_dt_rank": 3, "use_mamba_kernels": False},
    "bamba": {"num_hidden_layers": 4, "mamba_n_heads": 8, "mamba_d_head": 12, "mamba_n_groups": 2,
              "head_dim": None,
              "mamba_d_state": 6, "mamba_chunk_size": 4, "attn_layer_indices": [1]},
    "granitemoehybrid": {"num_hidden_layers": 3, "mamba_n_heads": 8, "mamba_d_head": 12, "mamba_n_groups": 2,
                         "mamba_d_state": 6, "mamba_chunk_size": 4, "head_dim": None,
                         "layer_types": ["linear_attention", "full_attention", "linear_attention"]},
    "nemotron_h": {"layers_block_type": ["mamba", "moe", "attention", "mlp", "mamba"], "mamba_num_heads": 8,
                   "mamba_head_dim": 10, "n_groups": 2, "ssm_state_size": 6, "chunk_size": 4,
                   "moe_shared_expert_intermediate_size": 22, "moe_latent_size": 24,
                   "num_hidden_layers": None},
    "falcon_h1": {"mamba_d_ssm": 64, "mamba_n_heads": 8, "mamba_n_groups": 2, "mamba_d_state": 6,
                  "mamba_chunk_size": 4, "head_dim": 16},
    "llama4_text": {"intermediate_size_mlp": 70, "attention_chunk_size": 4},
    "gemma4_text": {"num_hidden_layers": 8, "num_kv_shared_layers": 3, "global_head_dim": 12,
                    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2
                    + ["sliding_attention", "full_attention"], "use_double_wide_mlp": True,
                    "hidden_size_per_layer_input": 6, "vocab_size_per_layer_input": 90},
    "qwen3_next": DELTA, "qwen3_5_text": DELTA, "qwen3_5_moe_text": DELTA,
    "pixtral": {"head_dim": None}, "sam_vision_model": {**SAM, "mlp_ratio": None},
    "glm4v_text": {"rope_parameters": ROTATED["rope_parameters"], "head_dim": None},
    "glm_ocr_text": {"rope_parameters": ROTATED["rope_parameters"], "head_dim": 8},
    "glm4v_moe_text": {"rope_parameters": GLM_MOE["rope_parameters"], "head_dim": 8},
    "lfm2": {"layer_types": ["conv", "full_attention", "conv"], "block_multiple_of": 8, "head_dim": None},
    "mamba": {"time_step_rank": 3, "expand": 2, "intermediate_size": None},
    "mamba2": {"num_heads": 8, "head_dim": 12, "n_groups": 2, "chunk_size": 4, "expand": 2},
    "dinov2": {"image_size": 32, "patch_size": 8},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "share_att_key": True,
                   "position_buckets": 6, "norm_rel_ebd": "layer_norm", "position_biased_input": False},
    "albert": {}, "whisper": {"num_hidden_layers": None}, "smollm3": {},
}  # fmt: skip


@cache
def base(kind: str) -> dict[str, Any]:
    """A small config of a family: the fields of the table above that its config class has."""
    if kind in SEEING:
        return SEEING[kind]
    config_class = CONFIG_MAPPING[kind]
    has = set(config_class().to_dict())
    spelled = set(config_class.attribute_map)
    fields = {k: v for k, v in SMALL.items() if k in has and k not in spelled}
    own = OWN.get(kind, {})
    return {k: v for k, v in {**fields, **own}.items() if v is not None or k not in own}
