"""Channels first: the copies around convolutions, against what torch's convolutions are given and make."""

import pytest

import budget

torch = pytest.importorskip("torch")
from oracles import mobilenets  # noqa: E402
from oracles.resnet import Basic, Bottleneck, resnet  # noqa: E402

ASKED = {"batch": 2, "dtype": "fp16", "precision": "pure", "device": "3090", "stack": "timm"}


def copied(name, mode, form="channels_first", **changes):
    """Bytes that kernels of copies move, forward and backward."""
    found = budget.estimate(name, mode=mode, memory_format=form, **{**ASKED, **changes}).times.kernels
    own = [k.work for k in found if k.work.own == "copy"]
    return [sum(w.bytes * w.times for w in own if w.phase == phase) for phase in ("forward", "backward")]


@pytest.mark.parametrize(
    ("name", "net"),
    [
        ("resnet18", lambda: resnet(Basic, (2, 2, 2, 2))),
        ("resnext50-32x4d", lambda: resnet(Bottleneck, (3, 4, 6, 3), 32, 4)),
        ("mobilenet-v2", mobilenets.mobilenet_v2),
    ],
)
def test_convolutions_of_several_taps_are_copied_to_and_fro(name, net):
    """Backward for two gradients, of the pictures' own for that of its weights alone."""
    elements = []

    def seen(module, given, made):
        if max(module.kernel_size) > 1 and module.weight.shape[1] > 1:  # not of one channel a group
            elements.append(given[0].numel() + made.numel())

    with torch.device("meta"):
        module = net()
        for part in module.modules():
            if isinstance(part, torch.nn.Conv2d):
                part.register_forward_hook(seen)
        module(torch.empty(2, 3, 224, 224))
    once = 2 * 2 * sum(elements)  # two bytes, read and written
    assert copied(name, "forward") == [once, 0]
    assert copied(name, "train") == [once, 2 * once - 2 * 2 * elements[0]]


def test_nothing_is_copied_channels_last_compiled_or_without_tensor_units():
    for other in ({"form": "channels_last"}, {"stack": "torch-compile"}, {"dtype": "fp32"}):
        assert copied("resnet18", "forward", **other) == [0, 0]
