"""Wav2Vec2 and its kin against transformers on the meta device."""

import pytest
import torch
from differential import classes, judge
from oracles.flops import count_params
from small_configs import base
from transformers import Wav2Vec2Config, Wav2Vec2Model

from budget import estimate
from budget.errors import InputError

KINDS = ("wav2vec2", "hubert", "unispeech", "unispeech-sat")
LARGE = {
    "do_stable_layer_norm": True,
    "feat_extract_norm": "layer",
    "conv_bias": True,
    "num_conv_pos_embeddings": 7,
}


@pytest.mark.every(3)
@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in KINDS for name in classes(kind)])
@pytest.mark.parametrize("fields", [{}, LARGE])
def test_equals_transformers(kind, name, fields):
    assert judge(kind, name, {**base(kind), **fields}, train=True) == ("equal", "")


def test_hubert_with_a_batch_norm_before_positions():
    fields = {**base("hubert"), "conv_pos_batch_norm": True, "feat_proj_layer_norm": False,
              "feat_extract_activation": "xielu"}  # fmt: skip
    assert judge("hubert", "HubertForCTC", fields, train=True) == ("equal", "")


def test_the_default_is_transformers():
    answer = estimate("wav2vec2", mode="forward", batch=2, seq=16_000)
    with torch.device("meta"):
        assert answer.params.total == count_params(Wav2Vec2Model(Wav2Vec2Config()))
    assert answer.model.sound == 1


@pytest.mark.parametrize(
    ("fields", "sizes", "field"),
    [
        ({}, {"seq": 20}, "seq"),
        ({"num_feat_extract_layers": 4}, {}, "num_feat_extract_layers"),
        ({"feat_extract_norm": "batch"}, {}, "feat_extract_norm"),
        ({"conv_kernel": [3]}, {}, "conv_kernel"),
    ],
)
def test_what_is_refused(fields, sizes, field):
    with pytest.raises(InputError) as error:
        estimate({"model_type": "wav2vec2", **base("wav2vec2"), **fields}, mode="forward", **sizes)
    assert error.value.field == field
