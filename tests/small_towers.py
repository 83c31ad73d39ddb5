"""Small configs of transformers' families that have towers for pictures or sound, and of their texts."""

from __future__ import annotations

from typing import Any

WORDS = {
    "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 6,
    "num_key_value_heads": 2, "vocab_size": 101, "max_position_embeddings": 512, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
EYES = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
    "image_size": 48, "patch_size": 8,
}  # fmt: skip
BARE_EYES = {**EYES, "vision_use_head": False}
ROTATED = {
    **WORDS,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 2, 1]},
}
DEEP = {
    "depth": 4, "hidden_size": 32, "intermediate_size": 60, "num_heads": 4, "patch_size": 8,
    "out_hidden_size": 48, "num_position_embeddings": 36, "deepstack_visual_indexes": [0, 2],
}  # fmt: skip
LATENT = {
    **WORDS, "num_key_value_heads": 6, "n_routed_experts": 8, "num_experts_per_tok": 2, "n_group": 4,
    "topk_group": 2, "moe_intermediate_size": 14, "first_k_dense_replace": 1, "q_lora_rank": 20,
    "kv_lora_rank": 16, "qk_nope_head_dim": 6, "qk_rope_head_dim": 4, "v_head_dim": 8,
}  # fmt: skip
GLM = {
    "depth": 3, "hidden_size": 32, "intermediate_size": 60, "num_heads": 4, "patch_size": 8, "image_size": 48,
    "out_hidden_size": 48,
}  # fmt: skip
GLM_MOE = {
    **WORDS, "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 14,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 0],
                        "partial_rotary_factor": 0.5},
}  # fmt: skip
SEEING: dict[str, dict[str, Any]] = {  # text with a tower of images
    "gemma3": {"text_config": {**WORDS, "head_dim": 10}, "vision_config": BARE_EYES, "mm_tokens_per_image": 9,
               "image_token_index": 99},
    "paligemma": {"text_config": {**WORDS, "model_type": "gemma", "head_dim": 10}, "projection_dim": 48,
                  "vision_config": {**BARE_EYES, "model_type": "siglip_vision_model"},
                  "image_token_index": 99},
    "llava": {"text_config": {**WORDS, "model_type": "llama"}, "image_token_index": 99,
              "vision_config": {**EYES, "model_type": "clip_vision_model"}},
    "llava_next": {"text_config": {**WORDS, "model_type": "llama"}, "image_token_index": 99,
                   "image_grid_pinpoints": [[48, 96], [96, 48], [144, 48]],
                   "vision_config": {**EYES, "model_type": "clip_vision_model"}},
    "llava_onevision": {"text_config": {**WORDS, "model_type": "qwen2"}, "image_token_index": 99,
                        "vision_aspect_ratio": "anyres_max_2",
                        "image_grid_pinpoints": [[48, 96], [96, 96], [144, 96]],
                        "vision_config": {**BARE_EYES, "model_type": "siglip_vision_model"}},
    "vipllava": {"text_config": {**WORDS, "model_type": "llama"}, "image_token_index": 99,
                 "vision_feature_layers": [-2, 1, -2],
                 "vision_config": {**EYES, "model_type": "clip_vision_model"}},
    "idefics2": {"text_config": {**WORDS, "model_type": "mistral"}, "image_token_id": 99,
                 "vision_config": EYES,
                 "perceiver_config": {"resampler_n_latents": 5, "resampler_depth": 2, "resampler_n_heads": 6,
                                      "resampler_head_dim": 10, "num_key_value_heads": 3}},
    "idefics3": {"text_config": {**WORDS, "model_type": "llama"}, "vision_config": EYES, "scale_factor": 3,
                 "image_token_id": 99},
    "smolvlm": {"text_config": {**WORDS, "model_type": "llama"}, "vision_config": EYES, "image_token_id": 99},
    "qwen2_vl": {"text_config": ROTATED, "image_token_id": 99,
                 "vision_config": {"depth": 3, "embed_dim": 32, "hidden_size": 48, "num_heads": 4,
                                   "patch_size": 8}},
    "qwen3_vl": {"text_config": {**ROTATED, "num_hidden_layers": 3, "head_dim": 8}, "image_token_id": 99,
                 "vision_config": DEEP},
    "qwen3_vl_moe": {"text_config": {**ROTATED, "head_dim": 8, "num_experts": 5, "num_experts_per_tok": 2,
                                     "moe_intermediate_size": 14}, "image_token_id": 99,
                     "vision_config": DEEP},
    "qwen2_5_vl": {"text_config": ROTATED, "image_token_id": 99,
                   "vision_config": {"depth": 5, "hidden_size": 32, "intermediate_size": 60, "num_heads": 4,
                                     "patch_size": 8, "window_size": 64, "out_hidden_size": 48,
                                     "fullatt_block_indexes": [1, 3]}},
    "deepseek_vl": {"text_config": {**WORDS, "model_type": "llama"}, "image_token_id": 99,
                    "vision_config": {**EYES, "model_type": "siglip_vision_model"}},
    "internvl": {"text_config": {**WORDS, "model_type": "qwen2"}, "image_token_id": 99,
                 "vision_config": {**EYES, "use_qk_norm": True, "norm_type": "rms_norm"}},
    "aya_vision": {"text_config": {**WORDS, "model_type": "cohere2"}, "image_token_index": 99,
                   "alignment_intermediate_size": 22,
                   "vision_config": {**BARE_EYES, "model_type": "siglip_vision_model"}},
    "cohere2_vision": {"text_config": {**WORDS, "model_type": "cohere2"}, "image_token_id": 99,
                       "alignment_intermediate_size": 22,
                       "vision_config": {**BARE_EYES, "model_type": "siglip_vision_model"}},
    "mistral3": {"text_config": {**WORDS, "model_type": "mistral"}, "image_token_index": 99,
                 "vision_config": {**EYES, "model_type": "pixtral"}},
    "lighton_ocr": {"text_config": {**WORDS, "model_type": "qwen3", "head_dim": 10}, "image_token_id": 99,
                    "vision_config": {**EYES, "model_type": "pixtral"}},
    "llama4": {"text_config": {**WORDS, "num_local_experts": 5, "intermediate_size_mlp": 70, "head_dim": 8,
                               "attention_chunk_size": 600}, "image_token_index": 99,
               "vision_config": {**EYES, "intermediate_size": 128, "projector_input_dim": 20,
                                 "projector_output_dim": 20, "vision_output_dim": 20}},
}  # fmt: skip
SEEING |= {
    "llava_next_video": SEEING["llava_next"],
    "exaone4_5": {"text_config": {**WORDS, "model_type": "exaone4", "head_dim": 8}, "image_token_id": 99,
                  "vision_config": {**SEEING["qwen2_5_vl"]["vision_config"], "num_key_value_heads": 2}},
    "qianfan_ocr": {"text_config": {**WORDS, "model_type": "qwen3", "head_dim": 10}, "image_token_id": 99,
                    "vision_config": EYES},
    "kimi_k25": {"text_config": {**LATENT, "model_type": "deepseek_v3"}, "image_token_id": 99,
                 "video_token_id": 98, "projection_hidden_size": 32,
                 "vision_config": {**EYES, "pos_emb_height": 6, "pos_emb_width": 6}},
    "glm4v": {"text_config": ROTATED, "image_token_id": 99, "video_token_id": 98, "vision_config": GLM},
    "glm46v": {"text_config": {**ROTATED, "model_type": "glm4v_text"}, "image_token_id": 99,
               "video_token_id": 98, "vision_config": GLM},
    "glm4v_moe": {"text_config": GLM_MOE, "image_token_id": 99, "video_token_id": 98, "vision_config": GLM},
    "cosmos3_omni": {**SEEING["qwen3_vl"], "video_token_id": 98},
    "gemma4": {"text_config": {**WORDS, "head_dim": 10, "global_head_dim": 12, "num_hidden_layers": 6,
                               "hidden_size_per_layer_input": 6, "vocab_size_per_layer_input": 90},
               "image_token_id": 99, "video_token_id": 98, "audio_token_id": 97, "audio_config": None,
               "vision_config": {**EYES, "num_key_value_heads": 2, "head_dim": 12, "pooling_kernel_size": 2,
                                 "position_embedding_size": 40}},
    "mllama": {"text_config": {**WORDS, "num_hidden_layers": 5, "cross_attention_layers": [1, 3, 4]},
               "image_token_index": 99,
               "vision_config": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3,
                                 "attention_heads": 4, "image_size": 48, "patch_size": 8,
                                 "num_global_layers": 2, "vision_output_dim": 96,
                                 "intermediate_layers_indices": [0, 1]}},
    "video_llama_3": {"text_config": {**WORDS, "model_type": "qwen2"}, "image_token_id": 99,
                      "video_token_id": 98, "vision_config": EYES},
    "glm_ocr": {"text_config": {**ROTATED, "head_dim": 8}, "image_token_id": 99, "video_token_id": 98,
                "vision_config": GLM},
}  # fmt: skip
DELTA = {
    "num_hidden_layers": 4, "linear_key_head_dim": 6, "linear_value_head_dim": 8, "linear_num_key_heads": 2,
    "linear_num_value_heads": 4, "head_dim": 16,
}  # fmt: skip
HYBRID = {
    **ROTATED,
    **DELTA,
    "rope_parameters": {**ROTATED["rope_parameters"], "partial_rotary_factor": 0.25},
}
SEEING["qwen3_5"] = {"text_config": HYBRID, "image_token_id": 99, "vision_config": DEEP}
SEEING["qwen3_5_moe"] = {
    "text_config": {**HYBRID, "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 14,
                    "shared_expert_intermediate_size": 22},
    "image_token_id": 99, "vision_config": DEEP,
}  # fmt: skip
EARS = {
    "d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 64,
    "num_mel_bins": 8, "max_source_positions": 20,
}  # fmt: skip
NAMED_EARS = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128,
    "num_mel_bins": 8, "max_source_positions": 20,
}  # fmt: skip
HEARING: dict[str, dict[str, Any]] = {  # text with a tower of sound
    "qwen2_audio": {"text_config": WORDS, "audio_token_index": 99, "audio_config": EARS},
    "audioflamingo3": {"text_config": WORDS, "audio_token_id": 99, "audio_config": NAMED_EARS},
    "voxtral": {"text_config": {**WORDS, "head_dim": 10}, "audio_token_id": 99, "audio_config": NAMED_EARS},
    "glmasr": {"text_config": WORDS, "audio_token_id": 99,
               "audio_config": {k: v for k, v in NAMED_EARS.items() if k != "max_source_positions"}},
}  # fmt: skip
SEEING |= HEARING
SEEING["granite_speech"] = HEARING["granite_speech"] = {
    "text_config": {**WORDS, "model_type": "granite"}, "audio_token_index": 99, "window_size": 6,
    "downsample_rate": 2,
    "encoder_config": {"input_dim": 10, "num_layers": 3, "hidden_dim": 32, "num_heads": 4, "context_size": 20,
                       "max_pos_emb": 24, "output_dim": 7, "feedforward_mult": 2, "conv_kernel_size": 5},
    "projector_config": {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4,
                         "intermediate_size": 40, "encoder_hidden_size": 32},
}  # fmt: skip
SEEING["qwen3_asr"] = HEARING["qwen3_asr"] = {
    "text_config": {**WORDS, "head_dim": 10}, "audio_token_id": 99,
    "audio_config": {"d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 64,
                     "num_mel_bins": 9, "output_dim": 48, "downsample_hidden_size": 6, "n_window_infer": 200},
}  # fmt: skip
CHUNKS = {**SEEING["qwen3_asr"]["audio_config"], "num_mel_bins": 9}
SEEING["qwen2_5_omni_thinker"] = {
    **SEEING["qwen2_5_vl"], "audio_token_index": 97, "video_token_index": 98, "image_token_index": 99,
    "audio_config": {k: v for k, v in CHUNKS.items() if "downsample" not in k and "infer" not in k},
}  # fmt: skip
SEEING["qwen2_5_omni_thinker"].pop("image_token_id")
SEEING["qwen3_omni_moe_thinker"] = {
    "text_config": {**ROTATED, "num_hidden_layers": 4, "head_dim": 8, "num_experts": 5,
                    "num_experts_per_tok": 2, "moe_intermediate_size": 14},
    "vision_config": DEEP, "audio_config": CHUNKS, "audio_token_id": 97, "video_token_id": 98,
    "image_token_id": 99,
}  # fmt: skip
SEEING["video_llava"] = {**SEEING["llava"], "video_token_index": 98}
SEEING["fuyu"] = {"text_config": {**WORDS, "num_attention_heads": 3, "model_type": "persimmon"},
                  "hidden_size": 48, "patch_size": 8, "image_token_id": 99}  # fmt: skip
SAM = {
    "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "image_size": 72, "patch_size": 8,
    "window_size": 4, "mlp_dim": 60, "output_channels": 10, "global_attn_indexes": [1, 3],
}  # fmt: skip
SEEING["got_ocr2"] = {"text_config": {**WORDS, "model_type": "qwen2"}, "image_token_index": 99,
                      "vision_config": SAM}  # fmt: skip
SEEING["deepseek_vl_hybrid"] = {**SEEING["deepseek_vl"], "high_res_vision_config": SAM}
DRAWING = {"base_channels": 32, "channel_multiplier": [1, 3], "num_res_blocks": 1, "latent_channels": 10,
           "num_embeddings": 70, "projection_dim": 24, "image_token_embed_dim": 48}  # fmt: skip
SEEING["janus"] = {"text_config": {**WORDS, "model_type": "llama"}, "image_token_id": 99,
                   "vision_config": {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
                                     "image_size": 48, "patch_size": 8, "projection_dim": 48},
                   "vq_config": DRAWING}  # fmt: skip
QFORMER = {
    "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 40,
}  # fmt: skip
SEEING["blip-2"] = {
    "text_config": {"model_type": "opt", "hidden_size": 48, "ffn_dim": 80, "num_hidden_layers": 2,
                    "num_attention_heads": 6, "vocab_size": 101, "max_position_embeddings": 128,
                    "word_embed_proj_dim": 48, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    "vision_config": EYES, "qformer_config": QFORMER, "num_query_tokens": 5, "image_token_index": 99,
}  # fmt: skip
SEEING["instructblip"] = {
    **SEEING["blip-2"], "text_config": {**WORDS, "model_type": "llama"},
    "qformer_config": {**QFORMER, "vocab_size": 90, "max_position_embeddings": 30},
}  # fmt: skip
