"""ShuffleNet-v2: half of the channels skip the block, then the channels of both halves are shuffled."""

from __future__ import annotations

from collections.abc import Generator

from ..config import Settings, Workload, as_many, setting
from ..errors import wrong
from ..ir import Model, Node, model, op
from ._conv import Features, Piece, classifier, concat, conv_norm, each_element, image, pool, scope


class Config(Settings):
    """ShuffleNet-v2 of width 1."""

    depths: tuple[int, ...] = setting((4, 8, 4), "blocks in each stage")
    widths: tuple[int, ...] = setting((116, 232, 464), "channels of each stage, even numbers")
    stem: int = setting(24, "channels of the first convolution")
    head: int = setting(1024, "channels of the last convolution")
    classes: int = setting(1000, "outputs")
    in_channels: int = setting(3, "channels of the image")
    image: int = setting(224, "side of the image")

    def __post_init__(self) -> None:
        as_many("widths", self.widths, "depths", self.depths)
        if any(width % 2 for width in self.widths):
            raise wrong("widths", self.widths, "even numbers")


def build(c: Config, w: Workload) -> Model:
    """Images to logits [b, classes], with a cross-entropy loss in training."""
    return model("shufflenet", c, w, _nodes(c, w), {"b": w.batch}, samples=w.batch)


def _nodes(c: Config, w: Workload) -> Generator[Node, None, None]:
    x = image(w, c.in_channels, c.image)
    x = yield from conv_norm("stem", x, c.stem, 3, stride=2, act="relu_")
    x = yield from pool("max_pool", "stem.pool", x, 3, stride=2, padding=1, to="x")
    for i, (depth, width) in enumerate(zip(c.depths, c.widths, strict=True)):
        x = yield from scope(f"stage{i}.0", _strided(x, width // 2))
        x = yield from scope(f"stage{i}", _split(x), depth - 1)
    x = yield from conv_norm("head", x, c.head, 1, act="relu_")
    yield from classifier(x, c.classes, w)


def _strided(x: Features, half: int) -> Piece:
    left = yield from conv_norm("left1", x, x.c, 3, 2, groups=x.c)
    left = yield from conv_norm("left2", left, half, 1, act="relu_")
    right = yield from _branch(x, half, 2)
    return (yield from _shuffled(left, right))


def _split(x: Features) -> Piece:
    left, right = (Features(side, x.c // 2, x.extents) for side in ("left", "right"))
    half = left.dims.replace("c", "f")
    yield op("split", f"{x.name}: {x.dims} -> left: {half}, right: {half}", "slice", **x.sizes, f=left.c)
    right = yield from _branch(right, right.c, 1)
    return (yield from _shuffled(left, right))


def _branch(x: Features, f: int, stride: int) -> Piece:
    x = yield from conv_norm("right1", x, f, 1, act="relu_")
    x = yield from conv_norm("right2", x, f, 3, stride, groups=f)
    return (yield from conv_norm("right3", x, f, 1, act="relu_"))


def _shuffled(left: Features, right: Features) -> Piece:
    x = yield from concat("cat", (left, right))
    return (yield from each_element("shuffle", x, "copy", to="x"))
