"""ViT and DeiT against transformers."""

from collections import Counter

import pytest
import torch
from oracles.flops import count_flops, count_params
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    DeiTConfig,
    DeiTForImageClassification,
    Dinov2Config,
    Dinov2ForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

from budget import estimate
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


class Calls(TorchDispatchMode):
    """Counts the calls that torch dispatches."""

    def __init__(self):
        super().__init__()
        self.made = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.made[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["vit-b-16", "vit_base_patch16_224", "google/vit-base-patch16-224"])
def test_whose_layers_have_one_projection(name):
    """Those of torchvision and timm do, as torch's own layer does, and transformers' do not."""
    fused = not name.startswith("google")
    with torch.device("meta"), Calls() as calls:
        x = torch.empty(2, 9, 48)
        if fused:
            torch.nn.TransformerEncoderLayer(48, 3, 40, norm_first=True, batch_first=True)(x)
        else:
            ViTModel(ViTConfig(**SMALL | {"num_hidden_layers": 1}), add_pooling_layer=False).layers[0](x)
    ours = [k.work for k in estimate(name, mode="forward", dtype="fp16", stack="torch-1").times.kernels]
    products = [w for w in ours if w.op.startswith("layers") and w.form == "matmul" and w.weights]
    assert len(products) == calls.made["addmm"] + calls.made["mm"] == (4 if fused else 6)
    assert any(w.own == "cast" for w in ours) != fused
    assert estimate(name).params == estimate("vit-base").params
