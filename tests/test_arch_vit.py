"""ViT and DeiT against transformers."""

import pytest
import torch
from oracle import count_flops, count_params
from transformers import (
    DeiTConfig,
    DeiTForImageClassification,
    Dinov2Config,
    Dinov2ForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

from budget.arch.vit import Config, build
from budget.config import Workload
from budget.errors import InputError
from budget.fold.count import flops, params
from budget.plan.backward import backward

SMALL = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}
OURS = {"d_model": 48, "layers": 2, "heads": 3, "d_ff": 40}
DINOV2 = {"classes": 7, "patch": 14, "layer_scale": True, "mask_token": True, "patch_mean": True}
ODD = {"image_size": 51, "patch_size": 8, "num_channels": 1, "qkv_bias": False, "num_labels": 2}


@pytest.mark.parametrize(
    ("settings", "cls", "hf", "config", "batch"),
    [
        (ViTConfig, ViTForImageClassification, {"num_labels": 7}, {"classes": 7}, 2),
        (
            ViTConfig,
            ViTForImageClassification,
            ODD,
            {"classes": 2, "image": 51, "patch": 8, "channels": 1, "qkv_bias": False},
            1,
        ),
        (DeiTConfig, DeiTForImageClassification, {"num_labels": 7}, {"classes": 7, "extra_tokens": 2}, 2),
        (Dinov2Config, Dinov2ForImageClassification, {"num_labels": 7}, {**DINOV2, "d_ff": 192}, 2),
        (
            Dinov2Config,
            Dinov2ForImageClassification,
            {"num_labels": 7, "use_swiglu_ffn": True, "use_mask_token": False},
            {**DINOV2, "d_ff": 128, "gated": True, "activation": "silu", "mask_token": False},
            2,
        ),
    ],
)
def test_equals_transformers(settings, cls, hf, config, batch):
    with torch.device("meta"):
        real = cls(settings(**SMALL, **hf, attn_implementation="eager")).eval()
        images = torch.empty(batch, real.config.num_channels, *2 * [real.config.image_size])
        expected = count_flops(real, images, labels=torch.empty(batch, dtype=torch.long))
    ours = backward(build(Config(**{**OURS, **config}), Workload(batch=batch)))
    assert params(ours).total == count_params(real)
    assert flops(ours)[:2] == expected


def test_without_a_head_equals_transformers():
    with torch.device("meta"):
        real = ViTModel(ViTConfig(**SMALL, attn_implementation="eager"), add_pooling_layer=False).eval()
        expected = count_flops(real, torch.empty(2, 3, 224, 224))
    ours = backward(build(Config(**OURS, classes=0), Workload(batch=2)))
    assert params(ours).total == count_params(real)
    assert flops(ours)[:2] == expected


def test_image_of_the_workload():
    table = params(build(Config(), Workload(image=384))).total - params(build(Config(), Workload())).total
    assert table == 768 * (24 * 24 - 14 * 14)


def test_bad_input_names_the_field():
    with pytest.raises(InputError, match="heads"):
        Config(heads=7)
    with pytest.raises(InputError, match="patch"):
        build(Config(), Workload(image=15))
