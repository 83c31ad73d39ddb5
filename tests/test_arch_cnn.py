"""Convolutional networks: parameters and FLOPs equal to torch's, whatever the image's size."""

import numpy as np
import pytest
import sympy
import torch
from oracles import convnets as nets
from oracles import mobilenets
from oracles.flops import count_flops, count_params
from oracles.resnet import Basic, Bottleneck, resnet
from oracles.unet import UNet
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from budget import estimate
from budget.arch import load
from budget.config import Workload, make
from budget.errors import InputError
from budget.fold.count import flops, params
from budget.plan.backward import backward
from budget.read import preset

VGG11 = (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M")
VGG13 = (64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M")
VGG19 = (64, 64, "M", 128, 128, "M", *((256,) * 4), "M", *((512,) * 4), "M", *((512,) * 4), "M")
UNET_3D = {"axes": 3, "c": 3, "classes": 3, "depth": 3}
UNET_PAPER = {"padding": False, "bias": True, "up_bias": False, "affine": False, "widen_late": True}

# preset, torch's module, side of the image, batch
PRESETS = [
    ("alexnet", nets.alexnet, 224, 1),
    ("alexnet", nets.alexnet, 131, 3),
    ("vgg11", lambda: nets.vgg(VGG11), 224, 1),
    ("vgg13-bn", lambda: nets.vgg(VGG13, norm=True), 97, 2),
    ("vgg19-bn", lambda: nets.vgg(VGG19, norm=True), 224, 1),
    ("resnet18", lambda: resnet(Basic, (2, 2, 2, 2)), 224, 1),
    ("resnet34", lambda: resnet(Basic, (3, 4, 6, 3)), 99, 2),
    ("resnet50", lambda: resnet(Bottleneck, (3, 4, 6, 3)), 224, 1),
    ("resnet50", lambda: resnet(Bottleneck, (3, 4, 6, 3)), 33, 3),
    ("resnet152", lambda: resnet(Bottleneck, (3, 8, 36, 3)), 224, 1),
    ("resnext50-32x4d", lambda: resnet(Bottleneck, (3, 4, 6, 3), 32, 4), 225, 1),
    ("wide-resnet50-2", lambda: resnet(Bottleneck, (3, 4, 6, 3), 1, 128), 224, 1),
    ("seresnet50", lambda: resnet(Bottleneck, (3, 4, 6, 3), squeeze=16), 96, 2),
    ("inception-v3", nets.Inception, 299, 2),
    ("inception-v3", nets.Inception, 341, 1),
    ("densenet121", lambda: nets.densenet((6, 12, 24, 16)), 224, 1),
    ("densenet161", lambda: nets.densenet((6, 12, 36, 24), 48, 96), 101, 1),
    ("mobilenet-v2", mobilenets.mobilenet_v2, 224, 1),
    ("mobilenet-v2", mobilenets.mobilenet_v2, 77, 3),
    ("mobilenet-v3-small", lambda: mobilenets.mobilenet_v3(mobilenets.V3_SMALL, 1024), 224, 1),
    ("mobilenet-v3-large", lambda: mobilenets.mobilenet_v3(mobilenets.V3_LARGE, 1280), 113, 2),
    ("mnasnet-1.0", mobilenets.mnasnet, 224, 1),
    ("mnasnet-0.5", lambda: mobilenets.mnasnet(0.5), 97, 1),
    ("mnasnet-1.3", lambda: mobilenets.mnasnet(1.3), 32, 2),
    ("efficientnet-b0", mobilenets.efficientnet, 224, 1),
    ("efficientnet-b7", lambda: mobilenets.efficientnet(2.0, 3.1), 600, 1),
    ("efficientnet-v2-s", mobilenets.efficientnet_v2_s, 129, 1),
    ("convnext-tiny", nets.convnext, 224, 1),
    ("convnext-base", lambda: nets.convnext((3, 3, 27, 3), (128, 256, 512, 1024)), 93, 2),
    ("squeezenet-1.0", lambda: nets.squeezenet("1_0"), 224, 1),
    ("squeezenet-1.1", nets.squeezenet, 90, 2),
    ("shufflenet-v2-x1.0", nets.shufflenet, 224, 1),
    ("shufflenet-v2-x2.0", lambda: nets.shufflenet((244, 488, 976), 2048), 75, 2),
    ("unet-2d", lambda: UNet(norm="none", bias=True, padding=False), 572, 1),
    ("unet-3d", lambda: UNet(**UNET_3D, **UNET_PAPER), 132, 1),
]

# architecture, its settings, torch's module, side of the image, batch
ODD = [
    ("resnet", {"depths": (1, 2), "widths": (64, 128), "block": "basic", "classes": 3, "in_channels": 1},
     lambda: resnet(Basic, (1, 2), classes=3, in_channels=1), 7, 5),
    ("resnet", {"depths": (1,), "widths": (256,), "classes": 1},
     lambda: resnet(Bottleneck, (1,), classes=1), 1, 1),
    ("resnet", {"depths": (1,), "widths": (64,), "block": "basic", "squeeze": 4, "classes": 3},
     lambda: resnet(Basic, (1,), squeeze=4, classes=3), 40, 2),
    ("convnext", {"depths": (1, 1), "widths": (6, 10), "kernel": 3, "classes": 7},
     lambda: nets.convnext((1, 1), (6, 10), 3, 7), 19, 2),
    ("densenet", {"depths": (2, 1), "growth": 3, "stem": 5, "classes": 2},
     lambda: nets.densenet((2, 1), 3, 5, classes=2), 35, 2),
    ("inception", {"aux": False, "classes": 5}, lambda: nets.Inception(aux=False, classes=5), 75, 1),
    ("unet", {}, UNet, 64, 2),
    ("unet", {}, UNet, 53, 1),
    ("unet", {"axes": 3, "width": 5, "depth": 2, "norm": "instance", "affine": False, "in_channels": 4},
     lambda: UNet(axes=3, c=4, width=5, depth=2, norm="instance", affine=False), 13, 2),
    ("unet", {"width": 6, "depth": 1, "padding": False, "bias": True, "classes": 4},
     lambda: UNet(width=6, depth=1, padding=False, bias=True, classes=4), 22, 1),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("name", "module", "image", "batch"), PRESETS)
def test_presets_equal_torch(name, module, image, batch):
    _equal(_preset(name, image, batch), module, image, batch)


@pytest.mark.parametrize(("arch", "config", "module", "image", "batch"), ODD)
def test_odd_networks_equal_torch(arch, config, module, image, batch):
    _equal(_build(arch, config, image, batch), module, image, batch)


def test_a_plain_network_equals_torch():
    def module():
        return nn.Sequential(
            *(nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1), nn.MaxPool2d(2)),
            *(nn.Conv2d(32, 64, 3, padding=1), nn.Conv2d(64, 64, 3, padding=1), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(64 * 64, 128), nn.Linear(128, 10)),
        )

    _equal(_build("cnn", {}, 0, 4), module, 32, 4)


def test_golden():
    ours = _preset("resnet50", 0, 1)
    assert params(ours).total == 25_557_032
    assert (flops(ours).forward, sum(flops(ours)[:2])) == (8_178_368_512, 24_299_077_632)
    assert params(_preset("unet-3d", 0, 1)).total == 19_069_955  # as the paper says


def test_the_auxiliary_head_is_for_training():
    def build(mode):
        return load("inception").build(make(load("inception").Config, {}), Workload(mode))

    assert params(build("train")).total == 27_161_264
    assert params(build("forward")).total == 23_834_568


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "inception-v3", "efficientnet-b0", "unet-2d"])
def test_arrays_equal_single_answers(name):
    sides, batches = np.array([332.0, 572.0, 300.0]), np.array([1.0, 64.0, 7.0])
    many = flops(_preset(name, sides, batches))
    for i, (side, batch) in enumerate(zip(sides, batches, strict=True)):
        one = flops(_preset(name, int(side), int(batch)))
        assert [float(total[i]) for total in many[:4]] == [float(total) for total in one[:4]]


@pytest.mark.parametrize("name", ["resnet18", "convnext-tiny", "vgg11"])
def test_symbols_give_a_formula(name):
    side, batch = sympy.symbols("side batch", integer=True, positive=True)
    formula = flops(_preset(name, side, batch)).forward
    assert formula.subs({side: 97, batch: 3}) == flops(_preset(name, 97, 3)).forward


@pytest.mark.parametrize(
    ("name", "image"), [("alexnet", 20), ("inception-v3", 74), ("unet-2d", 100), ("densenet121", 16)]
)
def test_too_small_an_image_is_an_error(name, image):
    with pytest.raises(InputError, match="image: too small"):
        _preset(name, image, 1)


@pytest.mark.parametrize(
    ("arch", "config", "field"),
    [
        ("cnn", {"kernels": (3, 5)}, "kernels"),
        ("resnet", {"depths": (1, 2)}, "widths"),
        ("resnet", {"block": "basic", "groups": 2}, "groups"),
        ("resnet", {"width_per_group": 1, "widths": (64, 64, 64, 64)}, "widths"),
        ("convnext", {"kernel": 4}, "kernel"),
        ("convnext", {"depths": (1,)}, "widths"),
        ("mobilenet", {"strides": (1, 2)}, "strides"),
        ("efficientnet", {"width": 0.0}, "width"),
        ("efficientnet", {"fused": (1, 0)}, "fused"),
        ("efficientnet", {"kernels": (4,)}, "kernels"),
        ("regnet", {"widths": (48, 104, 208, 441)}, "widths"),
        ("regnet", {"depths": (1,)}, "widths"),
        ("shufflenet", {"widths": (116, 232, 465)}, "widths"),
        ("shufflenet", {"depths": (1,)}, "widths"),
        ("unet", {"axes": 4}, "axes"),
    ],
)
def test_settings_that_contradict_each_other_are_errors(arch, config, field):
    with pytest.raises(InputError) as error:
        make(load(arch).Config, config)
    assert error.value.field == field


def _preset(name, image, batch):
    table = {k: v for k, v in preset.find(name).items() if k not in preset.ABOUT}
    return _build(table.pop("arch"), table, image, batch)


def _build(arch, config, image, batch):
    module = load(arch)
    return backward(module.build(make(module.Config, config), Workload(batch=batch, image=image)))


def _equal(ours, module, image, batch):
    with torch.device("meta"):
        real = module().eval()
        first = next(m for m in real.modules() if isinstance(m, nn.Conv2d | nn.Conv3d))
        x = torch.empty(batch, first.in_channels, *(image,) * len(first.kernel_size))
        grouped = any(getattr(m, "groups", 1) > 1 for m in real.modules())
        expected = count_grouped(real, x) if grouped else count_flops(real, x)
    assert params(ours).total == count_params(real)
    assert flops(ours)[:2] == expected


def count_grouped(real, x):
    """torch's counter multiplies a grouped convolution's weight gradient by the number of groups;
    here both of its gradients count what the forward pass does."""

    def convolution_backward(grad, x, w, _b, _s, _p, _d, transposed, _o, _groups, mask, *, out_shape, **_):
        return conv_flop_count(x, w, grad, transposed) * sum(mask[:2])

    with FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten.convolution_backward: convolution_backward}
    ) as counter:
        out = real(x)
        forward = counter.get_total_flops()
        getattr(out, "logits", out).sum().backward()
    return forward, counter.get_total_flops() - forward


def test_lenet_5_as_it_is_taught():
    """Six and sixteen maps of 5 x 5, then 400-120-84-10, by hand."""
    network = estimate("lenet-5", mode="forward")
    sums = 28 * 28 * 6 * 25 + 10 * 10 * 16 * 6 * 25 + 400 * 120 + 120 * 84 + 84 * 10
    assert (network.params.total, network.flops.forward) == (61_706, 2 * sums)
