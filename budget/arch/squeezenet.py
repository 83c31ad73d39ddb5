"""SqueezeNet: fire modules, a narrow 1 x 1 convolution before wide 1 x 1 and 3 x 3 ones."""

from __future__ import annotations

from collections.abc import Generator

from ..config import Settings, Workload, setting
from ..ir import HEAD, Model, Node, model
from ._conv import Features, Piece, concat, conv, each_element, image, mean, pool
from ._loss import cross_entropy


class Config(Settings):
    """SqueezeNet 1.1."""

    squeeze: tuple[int, ...] = setting(
        (0, 16, 16, 0, 32, 32, 0, 48, 48, 64, 64),
        "narrow width of each fire module; 0 is a max pooling",
        least=0,
    )
    expand: int = setting(4, "width of each of its wide convolutions, as a multiple of the narrow one")
    stem: int = setting(64, "channels of the first convolution")
    stem_kernel: int = setting(3, "side of its kernel")
    classes: int = setting(1000, "outputs")
    in_channels: int = setting(3, "channels of the image")
    image: int = setting(224, "side of the image")


def build(c: Config, w: Workload) -> Model:
    """Images to logits [b, classes], with a cross-entropy loss in training."""
    return model("squeezenet", c, w, _nodes(c, w), {"b": w.batch}, samples=w.batch)


def _nodes(c: Config, w: Workload) -> Generator[Node, None, None]:
    x = image(w, c.in_channels, c.image)
    x = yield from _conv_relu("stem", x, c.stem, c.stem_kernel, stride=2, padding=0)
    for i, narrow in enumerate(c.squeeze):
        if narrow:
            x = yield from _fire(f"fire{i}", x, narrow, narrow * c.expand)
        else:
            x = yield from pool("max_pool", f"pool{i}", x, 3, stride=2, ceil=True)
    x = yield from _conv_relu("head", x, c.classes, 1, tag=HEAD)
    yield from mean("head.pool", x)
    if w.mode == "train":
        yield from cross_entropy()


def _fire(name: str, x: Features, narrow: int, wide: int) -> Piece:
    x = yield from _conv_relu(f"{name}.squeeze", x, narrow, 1)
    a = yield from _conv_relu(f"{name}.expand1", x, wide, 1)
    b = yield from _conv_relu(f"{name}.expand3", x, wide, 3)
    return (yield from concat(f"{name}.cat", (a, b)))


def _conv_relu(
    name: str, x: Features, f: int, kernel: int, stride: int = 1, padding: int | None = None, tag: str = ""
) -> Piece:
    x = yield from conv(f"{name}.conv", x, f, kernel, stride, padding, bias=True, tag=tag)
    return (yield from each_element(f"{name}.relu", x, "relu_"))
