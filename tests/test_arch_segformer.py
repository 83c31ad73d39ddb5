"""SegFormer against transformers on the meta device."""

import pytest
import torch
from differential import classes, judge
from oracles.flops import count_params
from small_configs import base
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from budget import estimate
from budget.errors import InputError

ODD = {
    "sr_ratios": [3, 1, 2],
    "strides": [3, 2, 1],
    "mlp_ratios": [1, 2, 3],
    "num_attention_heads": [5, 3, 2],
}


@pytest.mark.parametrize("name", classes("segformer"))
@pytest.mark.parametrize("fields", [{}, ODD])
def test_equals_transformers(name, fields):
    assert judge("segformer", name, {**base("segformer"), **fields}, train=True) == ("equal", "")


def test_the_default_is_transformers_with_the_classes_of_ade20k():
    with torch.device("meta"):
        real = SegformerForSemanticSegmentation(SegformerConfig(num_labels=150))
    assert estimate("segformer", mode="forward").params.total == count_params(real)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"sr_ratios": [1, 2]}, "sr_ratios"),
        ({"num_attention_heads": [13, 2, 3]}, "num_attention_heads"),
        ({"decoder_hidden_size": 0}, "decoder_hidden_size"),
        ({"num_labels": 0}, "classes"),
    ],
)
def test_what_is_refused(fields, field):
    with pytest.raises(InputError) as error:
        estimate({"model_type": "segformer", **base("segformer"), **fields}, mode="forward")
    assert error.value.field == field
