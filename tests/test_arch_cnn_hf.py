"""Convolutional networks of transformers, from their own configs; and what others published."""

import contextlib
import csv
from pathlib import Path

import pytest
import torch
from oracles.flops import count_params
from test_arch_cnn import count_grouped
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    ConvNextV2Config,
    ConvNextV2ForImageClassification,
    EfficientNetConfig,
    EfficientNetForImageClassification,
    MobileNetV2Config,
    MobileNetV2ForImageClassification,
    RegNetConfig,
    RegNetForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    SwinConfig,
    SwinForImageClassification,
    Swinv2Config,
    Swinv2ForImageClassification,
)

from budget.arch import load
from budget.config import Workload, make
from budget.errors import InputError
from budget.fold.count import flops, params
from budget.ir import elements, walk
from budget.plan.backward import backward
from budget.read import hf_config, preset

MODELS = {
    "resnet": (ResNetConfig, ResNetForImageClassification),
    "regnet": (RegNetConfig, RegNetForImageClassification),
    "swin": (SwinConfig, SwinForImageClassification),
    "swinv2": (Swinv2Config, Swinv2ForImageClassification),
    "convnext": (ConvNextConfig, ConvNextForImageClassification),
    "convnextv2": (ConvNextV2Config, ConvNextV2ForImageClassification),
    "mobilenet_v2": (MobileNetV2Config, MobileNetV2ForImageClassification),
    "efficientnet": (EfficientNetConfig, EfficientNetForImageClassification),
}
SMALL = {"width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280}
TINY = {"depths": [1, 2], "hidden_sizes": [32, 64]}
TINY_SWIN = {
    "depths": [1, 3],
    "num_heads": [1, 5],
    "embed_dim": 10,
    "window_size": 3,
    "patch_size": 5,
    "image_size": 50,
}

# model_type, fields that differ from the family's defaults, side of the image, batch
CASES = [
    ("resnet", {}, 224, 1),
    ("resnet", {**TINY, "layer_type": "basic", "embedding_size": 20, "num_labels": 7}, 61, 2),
    ("resnet", {**TINY, "downsample_in_first_stage": True, "downsample_in_bottleneck": True}, 45, 2),
    ("resnet", {**TINY, "hidden_act": "gelu", "num_channels": 1, "num_labels": 1}, 32, 1),
    ("regnet", {}, 224, 1),
    ("regnet", {**TINY, "groups_width": 16, "layer_type": "x", "embedding_size": 9}, 51, 2),
    ("regnet", {**TINY, "groups_width": 99, "downsample_in_first_stage": False, "num_labels": 3}, 33, 2),
    ("convnext", {}, 224, 1),
    (
        "convnext",
        {**TINY, "num_stages": 2, "layer_scale_init_value": 0.0, "patch_size": 3, "num_labels": 4},
        49,
        3,
    ),
    ("convnextv2", {}, 224, 1),
    ("convnextv2", {**TINY, "num_stages": 2, "patch_size": 3, "num_labels": 4}, 49, 3),
    ("mobilenet_v2", {}, 224, 1),
    ("mobilenet_v2", {"depth_multiplier": 0.35, "num_labels": 1001}, 95, 2),
    ("mobilenet_v2", {"depth_multiplier": 1.4, "output_stride": 16}, 96, 1),
    ("mobilenet_v2", {"depth_multiplier": 0.75, "output_stride": 8, "finegrained_output": False}, 64, 1),
    ("swin", {}, 224, 1),
    ("swin", {**TINY_SWIN, "mlp_ratio": 2.5, "num_labels": 3}, 61, 2),
    ("swin", {**TINY_SWIN, "qkv_bias": False, "num_channels": 1, "use_absolute_embeddings": True}, 50, 1),
    ("swinv2", {"image_size": 256, "window_size": 16}, 256, 1),
    ("swinv2", {**TINY_SWIN, "mlp_ratio": 2.5, "qkv_bias": False, "num_channels": 1, "num_labels": 3}, 50, 2),
    ("efficientnet", SMALL, 224, 1),
    ("efficientnet", SMALL, 75, 2),
    ("efficientnet", {**SMALL, "depthwise_padding": [5, 11]}, 75, 2),
]


@pytest.mark.every(3)
@pytest.mark.parametrize(("kind", "fields", "image", "batch"), CASES)
def test_equals_transformers(kind, fields, image, batch):
    config, network = MODELS[kind]
    with torch.device("meta"):
        real = network(config(**fields, attn_implementation="eager")).eval()
        expected = count_grouped(real, torch.empty(batch, fields.get("num_channels", 3), image, image))
    arch, settings = hf_config.read({"model_type": kind, **fields})
    ours = backward(load(arch).build(settings, Workload(batch=batch, image=image)))
    assert params(ours).total == count_params(real)
    assert flops(ours)[:2] == expected


@pytest.mark.parametrize("kind", MODELS)
def test_defaults_are_the_family_s(kind):
    config, _ = MODELS[kind]
    named = hf_config.read({**config().to_dict(), "model_type": kind})
    assert named == hf_config.read({"model_type": kind})


def test_labels_count_as_classes():
    _, settings = hf_config.read({"model_type": "resnet", "id2label": {str(i): "" for i in range(21)}})
    assert settings.classes == 21


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("resnet", "layer_type", "dense"),
        ("resnet", "downsample_in_first_stage", 1),
        ("regnet", "hidden_sizes", [200, 192, 512, 1088]),
        ("regnet", "layer_type", "z"),
        ("convnext", "image_size", [224, 192]),
        ("convnext", "num_stages", 3),
        ("convnext", "layer_scale_init_value", "small"),
        ("convnextv2", "num_stages", 3),
        ("swinv2", "patch_size", [4, 2]),
        ("swin", "num_heads", [3, 6, 12]),
        ("swin", "num_heads", [3, 6, 12, 25]),
        ("mobilenet_v2", "depth_multiplier", 0),
        ("mobilenet_v2", "expand_ratio", 5.5),
        ("mobilenet_v2", "hidden_act", "tanh"),
        ("mobilenet_v2", "first_layer_is_expansion", False),
        ("efficientnet", "in_channels", [1, 2]),
        ("efficientnet", "kernel_sizes", [4]),
        ("efficientnet", "depthwise_padding", 3),
    ],
)
def test_what_is_wrong_or_not_covered_is_an_error(kind, field, value):
    with pytest.raises(InputError) as error:
        hf_config.read({"model_type": kind, field: value})
    assert error.value.field == field


FVCORE = {"batch_norm": 2, "layer_norm": 5, "mean": 1}  # what it counts for an element
PUBLISHED = Path(__file__).parent / "data" / "params_flops.csv"
FAMILIES = ("vision classification", "vision quantization", "vision timm", "vision video")


def _rows():
    with PUBLISHED.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["family"] not in FAMILIES:
                continue
            name = row["model"].removesuffix(" (quantized)")
            with contextlib.suppress(InputError):
                found, _ = preset.look_up(name)
                yield pytest.param(row, found, id=f"{row['id']}-{found}")


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("RegNet_Y_1_6GF", "regnet-y-1.6gf"),
        ("regnet_y_16gf", "regnet-y-16gf"),
        ("Wide ResNet50-2", "wide-resnet50-2"),
        ("resnet-50", "resnet50"),
        ("mnasnet1_0", "mnasnet-1.0"),
        ("swin_v2_t", "swin-v2-tiny"),
        ("regnety_032", "regnet-y-3.2gf"),
    ],
)
def test_names_as_people_tell_them(told, name):
    assert preset.look_up(told)[0] == name


def test_a_name_that_could_be_two_is_an_error():
    with pytest.raises(InputError, match="regnet"):
        preset.look_up("regnety1.60gf")


@pytest.mark.parametrize(("row", "name"), list(_rows()))
def test_published_figures(row, name):
    """torchvision counts multiply-adds; timm's tool (fvcore) adds norms and the final pooling."""
    table = {k: v for k, v in preset.find(name).items() if k not in preset.ABOUT}
    module = load(table.pop("arch"))

    def build(mode):
        return module.build(make(module.Config, table), Workload(mode, 1, 0, int(row["input_size"])))

    total, macs = params(build("train")).total, flops(build("forward")).forward / 2
    if row["family"] != "vision timm":
        assert total == int(row["params"])
        assert macs / 1e9 == pytest.approx(float(row["gmacs"]), abs=0.00051, rel=5e-6)
        return
    for o, times in walk(build("forward").nodes):
        if o.kind != "mean" or o.name == "head.pool":
            macs += FVCORE.get(o.kind, 0) * elements(o.ins[0], o.sizes) * times
    assert total / 1e6 == pytest.approx(float(row["params_m"]), abs=0.0051)
    assert macs / 1e9 == pytest.approx(float(row["gmacs"]), abs=0.0051, rel=0.002)  # Swin: 0.13 % more
