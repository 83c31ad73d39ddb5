"""Networks of depthwise convolutions for small devices: MobileNet-v2, MobileNet-v3 and MNASNet."""

from __future__ import annotations

from collections.abc import Generator

from ..config import Settings, Workload, setting
from ..ir import Model, Node, model, op
from ..size import divisible
from ._conv import Features, classifier, conv_norm, image, mean, scope
from ._inverted import Squeeze, check, inverted_residual, stage


class Config(Settings):
    """MobileNet-v2 of width 1. Fields that describe stages have one value for each, or one for all."""

    channels: tuple[int, ...] = setting(
        (16, 24, 32, 64, 96, 160, 320), "outputs of each stage, before `width`"
    )
    repeats: tuple[int, ...] = setting((1, 2, 3, 4, 3, 3, 1), "blocks in each stage")
    strides: tuple[int, ...] = setting((1, 2, 2, 2, 1, 2, 1), "stride of each stage's first block")
    kernels: tuple[int, ...] = setting((3,), "side of the depthwise kernels")
    expand: tuple[int, ...] = setting(
        (1, 6, 6, 6, 6, 6, 6), "width inside a block, as a multiple of its input's"
    )
    expanded: tuple[int, ...] = setting(
        (0,), "the width itself, before `width`; 0 leaves it to `expand`", least=0
    )
    squeeze: tuple[int, ...] = setting((0,), "1: squeeze and excite with a quarter of the width", least=0)
    hardswish: tuple[int, ...] = setting((0,), "1: hardswish instead of `activation`", least=0)
    activation: str = setting("relu6", "behind the norms", choices=("relu", "relu6"))
    stem_activation: str = setting(
        "",
        "of the first and the last convolution; empty: `activation`",
        choices=("", "relu", "relu6", "hardswish"),
    )
    inplace: bool = setting(
        True, "activations overwrite their input (torchvision does, transformers doesn't)"
    )
    always_expand: bool = setting(
        False, "blocks behind the first stage expand even where nothing widens (transformers)"
    )
    padded: bool = setting(False, "zeros are added by an operator before each convolution (transformers)")
    width: float = setting(
        1.0, "multiplies all channels, which are then rounded to multiples of 8", least=0.01
    )
    stem: int = setting(32, "channels of the first convolution, before `width`")
    head: int = setting(1280, "channels of the last convolution, whatever `width` is")
    hidden: int = setting(0, "width of a linear layer before the classifier; 0 is none", least=0)
    classes: int = setting(1000, "outputs; 0: no head", least=0)
    in_channels: int = setting(3, "channels of the image")
    image: int = setting(224, "side of the image")

    def __post_init__(self) -> None:
        check(self, "repeats", "strides", "kernels", "expand", "expanded", "squeeze", "hardswish")

    def act(self, name: str) -> str:
        """Kind of an activation."""
        return f"{name}_" if self.inplace else name


def build(c: Config, w: Workload) -> Model:
    """Images to logits [b, classes], with a cross-entropy loss in training."""
    return model("mobilenet", c, w, _nodes(c, w), {"b": w.batch}, samples=w.batch)


def _nodes(c: Config, w: Workload) -> Generator[Node, None, None]:
    outer = c.act(c.stem_activation or c.activation)
    x = image(w, c.in_channels, c.image)
    stem = divisible(c.stem * c.width)
    x = yield from conv_norm("stem", x, stem, 3, stride=2, act=outer, same=c.padded, to="x")
    for i, channels in enumerate(c.channels):
        f = divisible(channels * c.width)
        act = c.act("hardswish" if stage(c.hardswish, i) else c.activation)
        for name, stride, count in (
            (f"stage{i}.0", stage(c.strides, i), 1),
            (f"stage{i}", 1, stage(c.repeats, i) - 1),
        ):
            inner = x.c * stage(c.expand, i)
            if explicit := stage(c.expanded, i):
                inner = divisible(explicit * c.width)
            piece = inverted_residual(
                x,
                f,
                inner,
                stage(c.kernels, i),
                stride,
                act=act,
                squeeze=Squeeze(divisible(inner // 4), gate="hardsigmoid") if stage(c.squeeze, i) else None,
                same=c.padded,
                expands=c.always_expand and i > 0,
            )
            x = yield from scope(name, piece, count)
    x = yield from conv_norm("head", x, c.head, 1, act=outer, same=c.padded)
    if c.hidden:
        x = yield from mean("head.pool", x)
        yield op("head.linear", f"{x.name}: b c, *f c, +*f -> x: b f", c=x.c, f=c.hidden)
        yield op("head.hardswish", "x: -> x:", c.act("hardswish"))
        x = Features("x", c.hidden, ())
    yield from classifier(x, c.classes, w)
