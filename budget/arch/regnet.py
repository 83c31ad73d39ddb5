"""RegNet X and Y: residual networks of grouped convolutions, Y with squeeze and excite."""

from __future__ import annotations

from collections.abc import Generator

from ..config import Settings, Workload, as_many, setting
from ..errors import wrong
from ..ir import Model, Node, model
from ._conv import Features, Piece, add, classifier, conv_norm, each_element, image, scope
from ._inverted import Squeeze, squeeze_excite


class Config(Settings):
    """RegNetY of 400 million multiply-adds."""

    depths: tuple[int, ...] = setting((1, 3, 6, 6), "blocks in each stage")
    widths: tuple[int, ...] = setting((48, 104, 208, 440), "channels of each stage, multiples of group_width")
    group_width: int = setting(8, "channels of each group of the 3 x 3 convolutions")
    squeeze: float = setting(
        0.25, "width of squeeze and excite, as a part of a block's input; 0: none", least=0
    )
    stem: int = setting(32, "channels of the first convolution")
    first_stage_stride: int = setting(2, "stride of the first stage")
    inplace: bool = setting(
        True, "activations overwrite their input (torchvision does, transformers doesn't)"
    )
    classes: int = setting(1000, "outputs; 0: no head", least=0)
    in_channels: int = setting(3, "channels of the image")
    image: int = setting(224, "side of the image")

    def __post_init__(self) -> None:
        as_many("widths", self.widths, "depths", self.depths)
        for width in self.widths:
            if width % self.groups(width):
                raise wrong("widths", width, f"multiples of group_width {self.group_width}")

    def groups(self, width: int) -> int:
        """Groups of a stage's 3 x 3 convolutions."""
        return max(1, width // self.group_width)

    @property
    def act(self) -> str:
        """Kind of the activations."""
        return "relu_" if self.inplace else "relu"


def build(c: Config, w: Workload) -> Model:
    """Images to logits [b, classes], with a cross-entropy loss in training."""
    return model("regnet", c, w, _nodes(c, w), {"b": w.batch}, samples=w.batch)


def _nodes(c: Config, w: Workload) -> Generator[Node, None, None]:
    x = image(w, c.in_channels, c.image)
    x = yield from conv_norm("stem", x, c.stem, 3, stride=2, act=c.act, to="x")
    for i, (depth, width) in enumerate(zip(c.depths, c.widths, strict=True), 1):
        stride = 2 if i > 1 else c.first_stage_stride
        x = yield from scope(f"stage{i}.0", _block(c, x, width, stride))
        x = yield from scope(f"stage{i}", _block(c, x, width, 1), depth - 1)
    yield from classifier(x, c.classes, w)


def _block(c: Config, x: Features, f: int, stride: int) -> Piece:
    y = yield from conv_norm("conv1", x, f, 1, act=c.act)
    y = yield from conv_norm("conv2", y, f, 3, stride, groups=c.groups(f), act=c.act)
    if c.squeeze:
        y = yield from squeeze_excite(y, Squeeze(max(1, round(x.c * c.squeeze))))
    y = yield from conv_norm("conv3", y, f, 1)
    if stride > 1 or x.c != f:
        x = yield from conv_norm("shortcut", x, f, 1, stride)
    y = yield from add("add", y, x, "add" if c.inplace else "add_")
    return (yield from each_element("act", y, c.act, to="x"))
