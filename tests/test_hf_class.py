"""What no family covers: transformers' own class, captured, against transformers itself on the CPU."""

import pytest
import torch
import transformers
from small_towers import SEEING
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from budget import estimate
from budget.errors import InputError
from budget.read import hf_class
from budget.read.hf_classes import UncoveredError

pytestmark = pytest.mark.usefixtures("quiet")

SMALL = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
         "vocab_size": 99, "max_position_embeddings": 40}  # fmt: skip
T5GEMMA = {**SMALL, "num_key_value_heads": 2, "head_dim": 12}
GEMMA3N = {**SMALL, "num_key_value_heads": 2, "head_dim": 12, "num_kv_shared_layers": 0,
           "vocab_size_per_layer_input": 99, "hidden_size_per_layer_input": 8, "laurel_rank": 4,
           "intermediate_size": [64, 64], "layer_types": ["sliding_attention", "full_attention"]}  # fmt: skip
CASES = [
    ("bert-generation", "BertGenerationEncoder", SMALL),
    ("bert", "BertModel", {**SMALL, "is_decoder": True}),
    ("bart", "BartForCausalLM", {"d_model": 48, "decoder_layers": 1, "decoder_attention_heads": 4,
                                 "encoder_attention_heads": 4, "vocab_size": 99}),
    ("xlnet", "XLNetModel", {"d_model": 48, "n_layer": 1, "n_head": 4, "d_inner": 64, "vocab_size": 99}),
    ("t5gemma", "T5GemmaModel", {"encoder": T5GEMMA, "decoder": T5GEMMA}),
    ("gemma3n_text", "Gemma3nForCausalLM", {**GEMMA3N, "activation_sparsity_pattern": [0.9, 0.0]}),
    ("zamba2", "Zamba2ForCausalLM", {**SMALL, "layers_block_type": ["mamba", "hybrid"], "n_mamba_heads": 8,
                                     "mamba_ngroups": 2, "mamba_d_state": 6, "mamba_expand": 2,
                                     "num_mem_blocks": 1, "adapter_rank": 4, "num_key_value_heads": 4}),
    ("aria_text", "AriaTextForCausalLM", {**SMALL, "num_key_value_heads": 2, "moe_num_experts": 4,
                                          "moe_topk": 2}),
    ("vit", "ViTForMaskedImageModeling", {**SMALL, "image_size": 32, "patch_size": 8, "encoder_stride": 8}),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name", "fields"), CASES)
def test_equals_transformers(kind, name, fields):
    table = {"model_type": kind, "architectures": [name], **fields, "auto_map": {"AutoModel": "evil.Code"}}
    images = kind == "vit"
    found = estimate(table, mode="forward", batch=2, **({} if images else {"seq": 9}))
    config = CONFIG_MAPPING[kind](**fields)
    config.use_cache = False
    real = getattr(transformers, name)._from_config(config, attn_implementation="eager").eval()
    shown = torch.zeros(2, 3, 32, 32) if images else torch.zeros(2, 9, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        real(shown, **({"decoder_input_ids": shown} if kind == "t5gemma" else {}))
    assert found.params.total == sum(p.numel() for p in real.parameters())
    assert found.flops.forward == counter.get_total_flops()
    assert found.to_dict()["provenance"]["counts"] == "captured"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "fields", "shape"),
    [
        ("audio-spectrogram-transformer", {"max_length": 64, "num_mel_bins": 32}, (2, 64, 32)),
        ("videomae", {"image_size": 32, "patch_size": 8, "num_frames": 4}, (2, 4, 3, 32, 32)),
        ("dac", {"n_codebooks": 2, "codebook_size": 8}, (2, 1, 16_000)),
    ],
)
def test_spectrograms_videos_and_channels_of_sound(kind, fields, shape):
    fields = {**fields, **({"encoder_hidden_size": 4} if kind == "dac" else SMALL)}
    found = estimate({"model_type": kind, **fields}, mode="forward", batch=2)
    eager = {} if kind == "dac" else {"attn_implementation": "eager"}  # it has none
    cls = getattr(transformers, found.model.config["class"])
    real = cls._from_config(CONFIG_MAPPING[kind](**fields), **eager).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        real(torch.zeros(shape))
    assert found.params.total == sum(p.numel() for p in real.parameters())
    assert found.flops.forward == counter.get_total_flops()


IDS = torch.ones(2, 9, dtype=torch.long)
SOUND = {**SMALL, "num_mel_bins": 16, "subsampling_conv_channels": 8, "conv_kernel_size": 3}
PATCHES = {"hidden_size": 48, "intermediate_size": 64, "patch_size": 4, "spatial_merge_size": 2}
T5 = {"d_model": 48, "num_layers": 1, "num_heads": 4, "d_kv": 12, "d_ff": 64, "vocab_size": 99}
TOWER = {**SMALL, "image_size": 32, "patch_size": 8}
EOS = {"eos_token_id": 1, "bos_token_id": 0, "pad_token_id": 2}
VIDEO = {**TOWER, "num_frames": 3, "mit_hidden_size": 16, "mit_intermediate_size": 16,
         "mit_num_hidden_layers": 1, "mit_num_attention_heads": 4}  # fmt: skip
OTHERS = [  # numbers that are looked at, places on a page, a picture that is no square, an inner config
    ("xlm", {"emb_dim": 48, "n_layers": 2, "n_heads": 4, "vocab_size": 99}, {"input_ids": IDS}),
    ("encodec", {"num_filters": 4, "hidden_size": 8, "codebook_dim": 8, "codebook_size": 16},
     {"input_values": torch.zeros(2, 1, 9)}),
    ("bros", {**SMALL, "hidden_size": 64}, {"input_ids": IDS, "bbox": torch.ones(2, 9, 4)}),
    ("udop", {"d_model": 48, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 4, "d_kv": 12, "d_ff": 64,
              "vocab_size": 99}, {"input_ids": IDS, "decoder_input_ids": IDS, "bbox": torch.ones(2, 9, 4)}),
    ("vitpose", {"backbone_config": {"model_type": "vitpose_backbone", **SMALL, "image_size": [32, 48],
                                     "patch_size": [16, 16]}}, {"pixel_values": torch.zeros(2, 3, 32, 48)}),
    ("parakeet_ctc", {"encoder_config": SOUND, "vocab_size": 99}, {"input_features": torch.zeros(2, 9, 16)}),
    ("patchtst", {"d_model": 16, "num_attention_heads": 2, "num_input_channels": 3, "context_length": 9,
                  "patch_length": 3, "patch_stride": 3}, {"past_values": torch.zeros(2, 9, 3)}),
    # packed patches and their grid, states and what was done in them, frames without words
    ("qwen3_vl_vision", {**PATCHES, "depth": 1, "num_heads": 4, "out_hidden_size": 32,
                         "temporal_patch_size": 2, "num_position_embeddings": 16,
                         "deepstack_visual_indexes": [0]},
     {"hidden_states": torch.zeros(32, 96), "grid_thw": torch.tensor([[1, 4, 4]] * 2)}),
    ("siglip2_vision_model", {**SMALL, "patch_size": 4, "num_patches": 16},
     {"pixel_values": torch.zeros(2, 16, 48), "pixel_attention_mask": torch.ones(2, 16, dtype=torch.long),
      "spatial_shapes": torch.full((2, 2), 4)}),
    ("decision_transformer", {"hidden_size": 48, "n_layer": 1, "n_head": 4, "state_dim": 5, "act_dim": 3},
     {"states": torch.zeros(2, 9, 5), "actions": torch.zeros(2, 9, 3), "rewards": torch.zeros(2, 9, 1),
      "returns_to_go": torch.zeros(2, 9, 1), "timesteps": torch.ones(2, 9, dtype=torch.long)}),
    ("timesfm", {**SMALL, "context_length": 64, "horizon_length": 8, "head_dim": 12},
     {"past_values": torch.ones(2, 64), "past_values_padding": torch.zeros(2, 64, dtype=torch.long),
      "freq": torch.zeros(2, 1, dtype=torch.long)}),
    # sound in codebooks behind words; a picture and a mask of the words that see it
    ("musicgen", {"text_encoder": {"model_type": "t5", **T5}, "audio_encoder": {"model_type": "encodec"},
                  "decoder": {**SMALL, "ffn_dim": 64}},
     {"input_ids": IDS, "decoder_input_ids": IDS.repeat(4, 1)}),
    ("idefics", {**SMALL, "ffn_dim": 64, "cross_layer_interval": 1, "use_resampler": False,
                 "additional_vocab_size": 0, "vision_config": {**TOWER, "embed_dim": 48}},
     {"input_ids": IDS, "pixel_values": torch.zeros(2, 1, 3, 32, 32),
      "image_attention_mask": torch.ones(2, 9, 1)}),
    ("speecht5_hifigan", {"model_in_dim": 8, "upsample_initial_channel": 16},
     {"spectrogram": torch.zeros(2, 9, 8)}),
    # regions of a detector beside words, a video beside words and alone, tiles of a picture and their shape
    ("lxmert", {**SMALL, "l_layers": 1, "r_layers": 1, "x_layers": 1, "visual_feat_dim": 8},
     {"input_ids": IDS, "visual_feats": torch.ones(2, 36, 8), "visual_pos": torch.ones(2, 36, 4)}),
    ("xclip", {"projection_dim": 16, "prompt_num_attention_heads": 4, "text_config": {**SMALL, **EOS},
               "vision_config": VIDEO},
     {"input_ids": IDS, "pixel_values": torch.zeros(2, 3, 3, 32, 32)}),
    ("xclip_vision_model", VIDEO, {"pixel_values": torch.zeros(6, 3, 32, 32)}),
    ("mllama_vision_model", {"hidden_size": 48, "num_hidden_layers": 1, "num_global_layers": 1,
                             "attention_heads": 4, "intermediate_size": 64, "image_size": 32, "patch_size": 8,
                             "intermediate_layers_indices": [0], "vision_output_dim": 96},
     {"pixel_values": torch.zeros(2, 1, 4, 3, 32, 32), "aspect_ratio_ids": torch.ones(2, 1, dtype=torch.long),
      "aspect_ratio_mask": torch.ones(2, 1, 4, dtype=torch.long)}),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "fields", "given"), OTHERS)
def test_inputs_of_other_kinds(kind, fields, given):
    patches = given.keys() & {"grid_thw", "spatial_shapes"}
    words = "pixel_values" not in given or "input_ids" in given
    words = words and "past_values_padding" not in given  # of a length that the class fixes
    sizes = {"image": 16} if patches else {"seq": 9} if words else {}
    found = estimate({"model_type": kind, **fields}, mode="forward", batch=2, **sizes)
    cls = getattr(transformers, found.model.config["class"])
    none = ("encodec", "speecht5_hifigan")  # they have no attention
    eager = {} if kind in none else {"attn_implementation": "eager"}
    real = cls._from_config(CONFIG_MAPPING[kind](**fields), **eager).eval()
    real.config.use_cache = False
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        real(**given)
    assert found.params.total == sum(p.numel() for p in real.parameters())
    assert found.flops.forward == counter.get_total_flops()


def test_a_limit_of_positions_of_minus_one_is_none():
    """XLNet's."""
    fields = {"d_model": 48, "n_layer": 1, "n_head": 4, "d_inner": 64, "vocab_size": 99}
    found = estimate({"model_type": "xlnet", **fields}, mode="forward", batch=1)
    assert found.model.config["inputs"] == {"input_ids": [1, 512]}


@pytest.mark.slow
def test_a_training_step_runs_the_layers_that_layer_drop_may_skip():
    fields = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 48,
              "conv_dim": [16, 16], "conv_kernel": [10, 4], "conv_stride": [8, 4], "layerdrop": 0.99,
              "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}  # fmt: skip
    found = estimate({"model_type": "wavlm", **fields}, mode="train", batch=2, seq=400)
    real = transformers.WavLMModel(transformers.WavLMConfig(**fields)).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        real(torch.zeros(2, 400))
    assert found.flops.forward == counter.get_total_flops()
    assert found.params.trainable == found.params.total
    assert "inputs      input_values 2x400" in str(found)


@pytest.mark.slow
def test_what_no_input_reaches_is_named():
    """A class for text and images runs on text; one that wraps its text model is not taken for that."""
    text = {**SMALL, "num_key_value_heads": 2, "head_dim": 12}
    e = estimate({"model_type": "ovis2", "text_config": text}, mode="forward", seq=9)
    assert e.model.config["class"] == "Ovis2ForConditionalGeneration"
    assert "model.vision_tower, which no input reaches" in e.model.uncounted
    assert not estimate({"model_type": "siglip"}, mode="forward", seq=9).model.uncounted


def test_a_mixture_that_is_captured_says_that_all_experts_count_as_active():
    class Experts(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.empty(4, 32, 64, dtype=torch.bfloat16))

        def forward(self, x):
            ends = torch.arange(8, 40, 8, dtype=torch.int32, device=x.device)
            return torch._grouped_mm(x, self.weight, ends)

    found = estimate(Experts(), mode="forward", inputs=torch.empty(32, 32, dtype=torch.bfloat16))
    assert found.params.active == found.params.total == 4 * 32 * 64
    assert any("params.active is all" in line for line in found.model.uncounted)


@pytest.mark.slow
def test_a_part_whose_way_depends_on_data_names_its_whole():
    table = {**SEEING["qwen3_asr"]["audio_config"], "n_window_infer": 800}  # the last window is shorter
    with pytest.raises(InputError, match="allowed: the config of qwen3_asr, which it is a part of"):
        estimate({**table, "model_type": "qwen3_asr_encoder"}, mode="forward")


@pytest.mark.slow
def test_detr_with_the_backbone_that_timm_would_make():
    """facebookresearch/detr prints the number of its trained parameters: the backbone's last three stages."""
    table = {"model_type": "detr", "architectures": ["DetrForObjectDetection"], "num_labels": 91}
    found = estimate(table, mode="train", image=128)
    trained, boxes = 41_302_368, 132_612  # the loss here is of the classes alone
    assert found.params.total == trained + 9_408 + 212_992  # the first convolution and stage
    assert found.params.trainable == trained - boxes


@pytest.mark.slow
def test_clap_hears_and_reads():
    found = estimate({"model_type": "clap"}, mode="forward")
    real = transformers.ClapModel._from_config(CONFIG_MAPPING["clap"]()).eval()
    text = torch.ones(1, 512, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        real(input_ids=text, input_features=torch.zeros(1, 1, 1001, 64))
    assert found.params.total == sum(p.numel() for p in real.parameters())
    assert found.flops.forward == counter.get_total_flops()


@pytest.mark.slow
def test_a_text_model_alone_where_its_tower_is_timms():
    text = {**GEMMA3N, "activation_sparsity_pattern": [0.9, 0.0]}
    found = estimate({"model_type": "gemma3n", "text_config": text}, mode="forward", seq=9)
    alone = estimate({"model_type": "gemma3n_text", **text}, mode="forward", seq=9)
    assert found.flops == alone.flops
    assert "timm is not installed" in found.model.uncounted[-1]


def test_an_image_among_the_words():
    """LLaVA's own class on the processor: its vision tower, its projector, and a token for each patch."""
    vision = {"model_type": "clip_vision_model", **SMALL, "image_size": 56, "patch_size": 14}
    text = {"model_type": "llama", **SMALL}
    table = {"model_type": "llava", "vision_config": vision, "text_config": text, "image_token_index": 98}
    why = UncoveredError("image", "as of a family without a tower")
    found = estimate(hf_class.program(table, why, mode="forward", dtype="", image=56, seq=9), mode="forward")
    config = transformers.LlavaConfig(vision_config=vision, text_config=text, image_token_index=98)
    real = transformers.LlavaForConditionalGeneration._from_config(config, attn_implementation="eager").eval()
    ids = torch.tensor([[98] * 16 + [1] * 9])
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        real(input_ids=ids, pixel_values=torch.zeros(1, 3, 56, 56))
    assert found.params.total == sum(p.numel() for p in real.parameters())
    assert found.flops.forward == counter.get_total_flops()
    assert not found.model.uncounted


def test_a_config_that_no_auto_class_has_is_that_of_a_public_class():
    """A tower alone, and a text model of a pair."""
    for kind, name in (
        ("clipseg_vision_model", "CLIPSegVisionModel"),
        ("align_text_model", "AlignTextModel"),
    ):
        config = CONFIG_MAPPING[kind](num_hidden_layers=1)
        e = estimate({**config.to_dict(), "architectures": None}, mode="forward", batch=1)
        with torch.device("meta"):
            made = getattr(transformers, name)(config)
        assert e.params.total == sum(p.numel() for p in made.parameters())
        assert e.flops.forward > 0 and e.model.config["class"] == name
