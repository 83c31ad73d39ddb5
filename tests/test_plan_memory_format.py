"""Channels first: the copies around convolutions, against what torch's convolutions are given and make."""

import pytest

import budget

torch = pytest.importorskip("torch")
from oracles import mobilenets  # noqa: E402
from oracles.resnet import Basic, Bottleneck, resnet  # noqa: E402

ASKED = {"batch": 2, "dtype": "fp16", "precision": "pure", "device": "3090", "stack": "timm"}
NETS = [
    ("resnet18", lambda: resnet(Basic, (2, 2, 2, 2))),
    ("resnext50-32x4d", lambda: resnet(Bottleneck, (3, 4, 6, 3), 32, 4)),
    ("mobilenet-v2", mobilenets.mobilenet_v2),
]


def copied(name, mode, form="channels_first", **changes):
    """Bytes that kernels of copies move, forward and backward."""
    found = budget.estimate(name, mode=mode, memory_format=form, **{**ASKED, **changes}).times.kernels
    own = [k.work for k in found if k.work.own in ("copy", "relaid", "bias")]
    return [sum(w.bytes * w.times for w in own if w.phase == phase) for phase in ("forward", "backward")]


@pytest.mark.parametrize(("name", "net"), NETS)
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
    for other in ({"form": "channels_last"}, {"stack": "torch-compile"}, {"dtype": "fp32", "device": "v100"}):
        assert copied("resnet18", "forward", **other) == [0, 0]


@pytest.mark.parametrize(("name", "net"), NETS[:2])
@pytest.mark.parametrize("mode", ["forward", "train"])
def test_a_captured_module_is_copied_as_the_network_itself(name, net, mode):
    """Its own copies apart, which the network has not: views that are made contiguous."""
    with torch.device("meta"):
        module, inputs = net(), torch.empty(2, 3, 224, 224)

    def own(form):
        return copied(module, mode, form, inputs=inputs, batch=None)

    first, last = own("channels_first"), own("channels_last")
    assert [a - b for a, b in zip(first, last, strict=True)] == copied(name, mode)


def test_gradients_of_depthwise_weights_are_made_by_a_kernel_of_its_own():
    """One for each of torch's convolutions of one channel a group, with pictures channels first only."""
    with torch.device("meta"):
        parts = [m for m in mobilenets.mobilenet_v2().modules() if isinstance(m, torch.nn.Conv2d)]

    def own(mode="train", form="channels_first", **changes):
        found = budget.estimate("mobilenet-v2", mode=mode, memory_format=form, **{**ASKED, **changes})
        kernels = [k.work for k in found.times.kernels if k.work.form == "conv_depthwise_weights"]
        assert {w.phase for w in kernels} <= {"backward"}
        return sum(w.times for w in kernels)

    assert own() == own(dtype="tf32") == sum(m.groups > 1 for m in parts)
    assert own("forward") == own(form="channels_last") == own(stack="torch-compile") == 0


def test_a_bias_is_added_by_a_kernel_of_its_own_but_in_depthwise_convolutions():
    """As torch adds it to what cuDNN has made, in either format; a compiler adds it where it is read next."""
    made = []
    layers = [torch.nn.Conv2d(8, 16, 3), torch.nn.Conv2d(16, 16, 3, groups=16), torch.nn.Conv2d(16, 4, 1)]
    for layer in (layers[0], layers[2]):
        layer.register_forward_hook(lambda module, given, out: made.append(out.numel()))
    net = torch.nn.Sequential(*layers).to("meta")
    net(inputs := torch.empty(2, 8, 20, 20, device="meta"))
    of = {"inputs": inputs, "batch": None, "form": "channels_last"}
    assert copied(net, "forward", **of) == [2 * 2 * sum(made), 0]
    assert copied(net, "forward", **of, stack="torch-compile") == [0, 0]


def test_a_processor_adds_a_bias_within_its_convolution():
    """As mkldnn_convolution takes it; nor does it copy for cuDNN."""
    for dtype in ("fp32", "bf16"):
        assert copied("vgg16", "forward", device="cpu", dtype=dtype, stack="torch-eager") == [0, 0]
