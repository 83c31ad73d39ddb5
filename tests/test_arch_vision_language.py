"""Text with a picture among the words: transformers' own classes on the processor, parameters and FLOPs."""

from copy import deepcopy

import pytest
import torch
import transformers
from differential import families, judge
from differential_counts import counted
from differential_inputs import BATCH, GRID, SEQ, among_words, sees
from small_configs import base
from small_towers import CHUNKS, DRAWING, EYES, QFORMER, SAM, WORDS
from transformers.image_processing_utils import select_best_resolution
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from budget import estimate
from budget.arch._tiles import resolution
from budget.errors import InputError
from budget.read import hf_class
from budget.read.hf_classes import UncoveredError

SEEING = [kind for kind in families() if sees(kind)]
TEXT = {"hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 3, "num_attention_heads": 8,
        "num_key_value_heads": 4, "vocab_size": 3000, "max_position_embeddings": 2048}  # fmt: skip
VISION = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 4, "num_attention_heads": 6,
          "image_size": 224, "patch_size": 14}  # fmt: skip
LARGE = {
    "llava": {"text_config": {**TEXT, "model_type": "llama"}, "image_token_index": 2999,
              "vision_config": {**VISION, "model_type": "clip_vision_model"}},
    "gemma3": {"text_config": {**TEXT, "head_dim": 64}, "mm_tokens_per_image": 64, "image_token_index": 2999,
               "vision_config": {**VISION, "vision_use_head": False}},
}  # fmt: skip


@pytest.mark.every(4)
@pytest.mark.parametrize("kind", SEEING)
def test_equals_transformers(kind):
    assert judge(kind, "", base(kind), train=True) == ("equal", "")


TOWERS = [  # other settings of what a config has
    ("llava", {"vision_config": {**EYES, "model_type": "pixtral"}, "vision_feature_layer": -1,
               "vision_feature_select_strategy": "full"}),
    ("internvl", {"vision_config": {**EYES, "use_mean_pooling": False, "attention_bias": True},
                  "vision_feature_layer": -2}),
    ("internvl", {"vision_config": {**EYES, "use_absolute_position_embeddings": False}}),
    ("mistral3", {"spatial_merge_size": 3, "multimodal_projector_bias": True}),
    ("llava", {"vision_feature_layer": [-1, 1]}),
    ("llava", {"vision_feature_layer": 1}),  # two layers run that nobody reads
    ("idefics2", {"perceiver_config": {"resampler_n_latents": 3, "resampler_depth": 1}}),
    ("vipllava", {"vision_feature_layers": 2}),
    ("llava_next", {"image_grid_pinpoints": [[48, 144], [48, 48]], "vision_feature_layer": [2, -3]}),
    ("llava_next", {"image_grid_pinpoints": [[96, 96]], "vision_feature_select_strategy": "full",
                    "vision_config": {**EYES, "model_type": "siglip_vision_model"}}),
    ("llava_onevision", {"image_grid_pinpoints": [[144, 48]], "vision_feature_select_strategy": "default",
                         "vision_config": {**EYES, "model_type": "clip_vision_model"}}),
    ("llava_onevision", {"tie_word_embeddings": True}),
    ("llava_onevision", {"text_config": {**WORDS, "model_type": "qwen2", "tie_word_embeddings": True}}),
    ("blip-2", {"qformer_config": {**QFORMER, "cross_attention_frequency": 3, "num_hidden_layers": 4}}),
    ("instructblip", {"qformer_config": {**QFORMER, "cross_attention_frequency": 1, "vocab_size": 200}}),
    ("instructblip", {"text_config": base("blip-2")["text_config"], "num_query_tokens": 2}),
    ("blip-2", {"vision_config": {**EYES, "qkv_bias": False}, "num_query_tokens": 1}),
    ("got_ocr2", {"vision_config": {**SAM, "use_rel_pos": False, "window_size": 5, "qkv_bias": False}}),
    ("got_ocr2", {"vision_config": {**SAM, "use_abs_pos": False, "global_attn_indexes": []}}),
    ("deepseek_vl_hybrid", {"high_res_vision_config": {**SAM, "window_size": 0}}),
    ("qwen2_5_omni_thinker", {"audio_config": {**CHUNKS, "n_window": 40}}),
    ("qwen3_omni_moe_thinker", {"audio_config": {**CHUNKS, "n_window_infer": 400, "num_mel_bins": 16}}),
    ("janus", {"vq_config": {**DRAWING, "double_latent": True, "num_res_blocks": 2, "num_hidden_layers": 4,
                             "channel_multiplier": [2, 1, 2], "in_channels": 4, "out_channels": 1}}),
    ("llama4", {"tie_word_embeddings": True}),  # what the config inside says counts
]  # fmt: skip


@pytest.mark.every(3)
@pytest.mark.parametrize(("kind", "change"), TOWERS)
def test_other_settings_of_towers(kind, change):
    assert judge(kind, "", {**base(kind), **change}, train=True) == ("equal", "")


@pytest.mark.parametrize(("kind", "inner"), [("colpali", "paligemma"), ("colqwen2", "qwen2_vl")])
def test_a_vector_for_each_token(kind, inner):
    """Its width is 128; what is inside has its tower."""
    table = {"model_type": kind, "vlm_config": {"model_type": inner, **base(inner)}}
    cls = transformers.AutoModelForPreTraining._model_mapping[CONFIG_MAPPING[kind]]
    config = CONFIG_MAPPING[kind](vlm_config=deepcopy(table["vlm_config"]))
    config.vlm_config.get_text_config().use_cache = False
    real = cls._from_config(config, attn_implementation="eager").eval()
    given = among_words(real.vlm)
    side = {"paligemma": 48, "qwen2_vl": GRID * 16}[inner]
    found = estimate(table, mode="train", batch=BATCH, seq=SEQ, image=side, dtype="fp32")
    if kind == "colqwen2":  # which pads the patches of each picture
        given["pixel_values"] = given["pixel_values"].reshape(BATCH, -1, given["pixel_values"].shape[-1])
    counts = counted(real, given, True, ("embeddings",))
    assert (found.flops.forward, found.flops.backward) == counts
    assert found.params.total == sum(p.numel() for p in real.parameters())


def test_a_tower_inside_that_is_not_covered_is_named():
    table = {"model_type": "paligemma", **base("paligemma"), "vision_config": {"model_type": "dinov2"}}
    e = estimate({"model_type": "colpali", "vlm_config": table}, mode="forward", seq=9)
    assert e.model.uncounted == ("vision tower", "projector of its output")


GRIDS = [
    [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
    [[384 * a, 384] for a in range(1, 7)],
]


@pytest.mark.parametrize("grid", GRIDS)
def test_the_resolution_that_a_picture_is_scaled_into(grid):
    flat = [side for pair in grid for side in pair]
    for image in range(1, 2000, 7):
        assert resolution(image, flat) == select_best_resolution((image, image), [tuple(p) for p in grid])


@pytest.mark.parametrize(
    "kind", ["llava", "llava_next", "qwen2_5_vl", "gemma4", "mllama", "deepseek_vl_hybrid"]
)
@pytest.mark.usefixtures("quiet")
def test_without_a_picture_the_tower_is_stored(kind):
    config = CONFIG_MAPPING[kind](**base(kind))
    config.use_cache = config.get_text_config().use_cache = False
    cls = transformers.AutoModelForImageTextToText._model_mapping[type(config)]
    real = cls._from_config(config, attn_implementation="eager").eval()
    table = {"model_type": kind, **base(kind)}
    e = estimate(table, mode="train", batch=2, seq=9, dtype="fp32")
    ids = torch.ones(2, 9, dtype=torch.long)
    assert (e.flops.forward, e.flops.backward) == counted(real, {"input_ids": ids}, True, ("logits",))
    assert e.params.total == sum(p.numel() for p in real.parameters())
    assert e.memory.gradients == sum(p.grad.nbytes for p in real.parameters() if p.grad is not None)
    assert e.model.uncounted == ("vision tower, which no input reaches",)


def test_a_picture_in_the_cache():
    """Tokens are decoded behind the picture's and the words': its tower does not run."""
    table = {"model_type": "llava", **base("llava")}
    e = estimate(table, mode="decode", batch=2, seq=9, image=48)
    longer = estimate(table, mode="decode", batch=2, seq=9 + 36)
    assert e.flops == longer.flops
    assert e.memory.peak == longer.memory.peak
    assert e.params == longer.params


def test_a_picture_in_the_cache_of_layers_that_attend_to_it():
    """Three layers of two key-value heads of eight hold four tiles of 36 patches and a class."""
    table = {"model_type": "mllama", **base("mllama")}
    e = estimate(table, mode="decode", batch=2, seq=9, image=48, dtype="bf16")
    blind = estimate(table, mode="decode", batch=2, seq=9, dtype="bf16")
    assert e.memory.kv_cache - blind.memory.kv_cache == 2 * 3 * (2 * 2 * 8) * 4 * 37 * 2
    assert e.params == blind.params


@pytest.mark.slow
@pytest.mark.parametrize("kind", LARGE)
@pytest.mark.usefixtures("quiet")
def test_memory_is_that_of_the_captured_class(kind):
    table, shape = {"model_type": kind, **LARGE[kind]}, {"batch": 4, "seq": 256, "image": 224}
    e = estimate(table, mode="train", execution="eager", attention="fused", precision="pure", **shape)
    program = hf_class.program(table, UncoveredError("", ""), mode="train", dtype="bf16", **shape)
    assert e.memory.peak == pytest.approx(estimate(program, execution="eager").memory.peak, rel=0.02)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("llava", {"vision_config": {"model_type": "dinov2"}}),
        ("paligemma", {"projection_dim": 12}),  # which the class cannot run either
        ("gemma3", {"mm_tokens_per_image": 4000}),
        ("llava_next", {"image_grid_pinpoints": [[48, 50]]}),
        ("llava_next", {"vision_feature_select_strategy": "full"}),
        ("llava_onevision", {"vision_aspect_ratio": "square"}),
        ("vipllava", {"vision_feature_layers": [0, -1]}),
    ],
)
def test_other_towers_leave_the_text_alone(kind, change):
    table = {"model_type": kind, **base(kind), **change}
    assert estimate(table, mode="forward", seq=9).model.uncounted == (
        "vision tower",
        "projector of its output",
    )


@pytest.mark.parametrize(
    ("kind", "change", "sizes", "field"),
    [
        ("llava", {}, {"image": 50}, "image"),
        ("llava_next", {}, {"image": [48, 50]}, "image"),
        ("llava_next", {"image_grid_pinpoints": [48, 48]}, {}, "image_grid_pinpoints"),
        ("qwen2_vl", {}, {"image": 40}, "image"),
        ("qwen2_vl", {}, {"image": 8000}, "image"),
        ("llava", {"vision_config": {"hidden_size": 9}}, {}, "vision_config.num_attention_heads"),
    ],
)
def test_what_is_refused(kind, change, sizes, field):
    with pytest.raises(InputError) as error:
        estimate({"model_type": kind, **base(kind), **change}, mode="forward", batch=2, **sizes)
    assert error.value.field == field
