"""Text with sound before the words: transformers' own classes, parameters and FLOPs."""

import pytest
import torch
import transformers
from differential import families, judge
from differential_counts import counted
from differential_inputs import hears
from small_configs import base
from small_towers import EARS, NAMED_EARS
from small_towers import HEARING as HEARING_OF
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from budget import estimate
from budget.errors import InputError

HEARING = [kind for kind in families() if hears(kind)]


@pytest.mark.every(3)
@pytest.mark.parametrize("kind", HEARING)
def test_equals_transformers(kind):
    assert judge(kind, "", base(kind), train=True) == ("equal", "")


TOWERS = [  # clips, windows and blocks of other lengths: the last one is whole, or in part
    ("qwen2_audio", {"audio_config": {**EARS, "max_source_positions": 31}}),
    ("audioflamingo3", {"audio_config": {**NAMED_EARS, "max_source_positions": 57}, "projector_bias": False}),
    ("voxtral", {"audio_config": {**NAMED_EARS, "max_source_positions": 48, "intermediate_size": 64}}),
    ("qwen3_asr", {"audio_config": {**HEARING_OF["qwen3_asr"]["audio_config"], "n_window": 52}}),
    ("qwen3_asr", {"audio_config": {**HEARING_OF["qwen3_asr"]["audio_config"], "n_window_infer": 100}}),
    ("granite_speech", {"window_size": 8, "downsample_rate": 4}),
    ("granite_speech", {"projector_config": {**HEARING_OF["granite_speech"]["projector_config"],
                                             "cross_attention_frequency": 1}}),
    ("granite_speech", {"encoder_config": {**HEARING_OF["granite_speech"]["encoder_config"], "num_layers": 1,
                                           "context_size": 24}}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "change"), TOWERS)
def test_other_settings_of_towers(kind, change):
    assert judge(kind, "", {**base(kind), **change}, train=True) == ("equal", "")


@pytest.mark.usefixtures("quiet")
def test_without_sound_the_tower_is_stored():
    kind = "voxtral"
    config = CONFIG_MAPPING[kind](**base(kind))
    config.text_config.use_cache = False
    real = transformers.VoxtralForConditionalGeneration._from_config(config, attn_implementation="eager")
    e = estimate({"model_type": kind, **base(kind)}, mode="train", batch=2, seq=9)
    ids = torch.ones(2, 9, dtype=torch.long)
    assert (e.flops.forward, e.flops.backward) == counted(real, {"input_ids": ids}, True, ("logits",))
    assert e.params.total == sum(p.numel() for p in real.parameters())
    assert e.model.uncounted == ("audio tower, which no input reaches",)


def test_sound_in_the_cache():
    """Tokens are decoded behind the sound's and the words: its tower does not run."""
    table = {"model_type": "voxtral", **base("voxtral")}
    e = estimate(table, mode="decode", batch=2, seq=9, sound=1)
    longer = estimate(table, mode="decode", batch=2, seq=9 + 15)  # three clips of 20 positions, four a token
    assert (e.flops, e.memory.peak, e.params) == (longer.flops, longer.memory.peak, longer.params)


@pytest.mark.parametrize(
    ("kind", "change", "sizes", "field"),
    [
        ("qwen2_audio", {}, {"image": 48}, "image"),
        ("qwen2_audio", {}, {"sound": 90}, "sound"),  # more tokens than the text model takes
        ("qwen2_audio", {"audio_config": {"d_model": 9}}, {}, "audio_config.encoder_attention_heads"),
        ("llama", {}, {"sound": 1}, "sound"),
    ],
)
def test_what_is_refused(kind, change, sizes, field):
    with pytest.raises(InputError) as error:
        estimate({"model_type": kind, **base(kind), **change}, mode="forward", batch=2, **sizes)
    assert error.value.field == field


def test_another_tower_leaves_the_text_alone():
    table = {
        "model_type": "voxtral",
        **base("voxtral"),
        "audio_config": {**NAMED_EARS, "intermediate_size": 70},
    }
    e = estimate(table, mode="forward", seq=9)
    assert e.model.uncounted == ("audio tower", "projector of its output")
