"""RepVGG: in training three branches a block, which deployment merges into one plain convolution."""

from __future__ import annotations

from collections.abc import Generator

from ..config import Settings, Workload, as_many, setting
from ..errors import wrong
from ..ir import Model, Node, model
from ._conv import Features, Piece, add, batch_norm, classifier, conv, conv_norm, each_element, image, scope


class Config(Settings):
    """RepVGG-B0 as it is trained."""

    depths: tuple[int, ...] = setting((4, 6, 16, 1), "blocks in each stage")
    widths: tuple[int, ...] = setting((64, 128, 256, 1280), "channels of each stage")
    stem: int = setting(64, "channels of the first block")
    groups: int = setting(1, "groups of the convolutions of every second block")
    merged: bool = setting(False, "each block's branches are one convolution with a bias (deployment)")
    classes: int = setting(1000, "outputs")
    in_channels: int = setting(3, "channels of the image")
    image: int = setting(224, "side of the image")

    def __post_init__(self) -> None:
        as_many("widths", self.widths, "depths", self.depths)
        if any(width % self.groups for width in (self.stem, *self.widths)):
            raise wrong("groups", self.groups, "divisors of stem and widths")


def build(c: Config, w: Workload) -> Model:
    """Images to logits [b, classes], with a cross-entropy loss in training."""
    return model("repvgg", c, w, _nodes(c, w), {"b": w.batch}, samples=w.batch)


def _nodes(c: Config, w: Workload) -> Generator[Node, None, None]:
    x = yield from scope("stem", _block(c, image(w, c.in_channels, c.image), c.stem, 2))
    for i, (depth, width) in enumerate(zip(c.depths, c.widths, strict=True)):
        for j in range(depth):
            is_second = (sum(c.depths[:i]) + j) % 2
            block = _block(c, x, width, 1 if j else 2, c.groups if is_second else 1)
            x = yield from scope(f"stage{i + 1}.{j}", block)
    yield from classifier(x, c.classes, w)


def _block(c: Config, x: Features, f: int, stride: int, groups: int = 1) -> Piece:
    if c.merged:
        y = yield from conv("conv", x, f, 3, stride, groups=groups, bias=True)
        return (yield from each_element("act", y, "relu_", to="x"))
    y = yield from conv_norm("three", x, f, 3, stride, groups=groups)
    one = yield from conv_norm("one", x, f, 1, stride, groups=groups)
    y = yield from add("add", y, one, "add")
    if stride == 1 and x.c == f:
        same = yield from batch_norm("same", x)
        y = yield from add("add.same", y, same, "add")
    return (yield from each_element("act", y, "relu_", to="x"))
