"""Networks for images and video that transformers has not: parameters and FLOPs equal to torch's."""

import pytest
import torch
from oracles.flops import count_flops, count_params
from oracles.images import GoogLeNet, maxvit, mixer, repvgg, video_resnet

from budget.arch import load
from budget.config import Workload, make
from budget.errors import InputError
from budget.fold.count import flops, params
from budget.plan.backward import backward
from budget.read import preset

A0 = {"depths": (2, 4, 14, 1), "widths": (48, 96, 192, 1280), "stem": 48}

# preset, torch's module, the shape of its input
PRESETS = [
    ("googlenet", lambda: GoogLeNet(aux=False), (1, 3, 224, 224)),
    ("googlenet-aux", GoogLeNet, (2, 3, 231, 231)),
    ("repvgg-b0", repvgg, (1, 3, 224, 224)),
    ("repvgg-a0", lambda: repvgg(**A0), (2, 3, 61, 61)),
    ("repvgg-b1g4", lambda: repvgg(widths=(128, 256, 512, 2048), groups=4), (1, 3, 96, 96)),
    ("maxvit-t", maxvit, (1, 3, 224, 224)),
    ("mixer-b-16", mixer, (1, 3, 224, 224)),
    ("mixer-s-32", lambda: mixer(8, 512, 256, 2048, 32), (2, 3, 224, 224)),
    ("r3d-18", video_resnet, (1, 3, 16, 112, 112)),
    ("mc3-18", lambda: video_resnet(temporal=1), (2, 3, 13, 51, 51)),
    ("r2plus1d-18", lambda: video_resnet(is_split=True), (1, 3, 16, 112, 112)),
]

# architecture, its settings, torch's module, the shape of its input
ODD = [
    ("googlenet", {"wide": 5, "classes": 3}, lambda: GoogLeNet(wide=5, classes=3), (1, 3, 97, 97)),
    (
        "repvgg",
        {"depths": (3,), "widths": (64,), "groups": 2, "merged": True, "classes": 5},
        lambda: repvgg((3,), (64,), groups=2, merged=True, classes=5),
        (2, 3, 33, 33),
    ),
    (
        "maxvit",
        {"depths": (1, 2), "widths": (96, 128), "window": 3, "classes": 5},
        lambda: maxvit((1, 2), (96, 128), 3, 5),
        (2, 3, 48, 48),
    ),
    (
        "mixer",
        {"layers": 1, "d_model": 6, "d_tokens": 5, "d_ff": 7, "patch": 9, "in_channels": 1, "classes": 2},
        lambda: mixer(1, 6, 5, 7, 9, 40, 1, 2),
        (3, 1, 40, 40),
    ),
    (
        "video_resnet",
        {"depths": (1, 2), "widths": (64, 80), "temporal": 1, "split": True, "classes": 9},
        lambda: video_resnet(1, True, (1, 2), (64, 80), 9),
        (2, 3, 5, 30, 30),
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "module", "shape"), PRESETS)
def test_presets_equal_torch(name, module, shape):
    table = {k: v for k, v in preset.find(name).items() if k not in preset.ABOUT}
    _equal(table.pop("arch"), table, module, shape)


@pytest.mark.parametrize(("arch", "config", "module", "shape"), ODD)
def test_odd_networks_equal_torch(arch, config, module, shape):
    _equal(arch, config, module, shape)


def test_auxiliary_heads_are_for_training():
    def total(mode):
        return params(load("googlenet").build(make(load("googlenet").Config, {}), Workload(mode))).total

    assert (total("train"), total("forward")) == (13_004_888, 6_624_904)  # as torchvision says


@pytest.mark.parametrize(
    ("arch", "config", "field"),
    [
        ("googlenet", {"wide": 4}, "wide"),
        ("repvgg", {"depths": (1,)}, "widths"),
        ("repvgg", {"groups": 3}, "groups"),
        ("mixer", {"patch": 225}, "patch"),
        ("maxvit", {"depths": (1,)}, "widths"),
        ("maxvit", {"head_dim": 24}, "head_dim"),
        ("video_resnet", {"depths": (1,)}, "widths"),
    ],
)
def test_settings_that_contradict_each_other_are_errors(arch, config, field):
    with pytest.raises(InputError) as error:
        make(load(arch).Config, config)
    assert error.value.field == field


def test_windows_fill_the_grid():
    with pytest.raises(InputError, match="window"):
        load("maxvit").build(make(load("maxvit").Config, {}), Workload(image=256))


def _equal(arch, config, module, shape):
    with torch.device("meta"):
        real = module().eval()
        expected = count_flops(real, torch.empty(shape))
    batch, _, *frames, side, _ = shape
    workload = Workload(batch=batch, seq=frames[0] if frames else 0, image=side)
    ours = backward(load(arch).build(make(load(arch).Config, config), workload))
    assert params(ours).total == count_params(real)
    assert flops(ours)[:2] == expected
