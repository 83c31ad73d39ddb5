"""Residual networks for video: convolutions over space and time, together or factorized."""

from __future__ import annotations

from collections.abc import Generator

from ..config import Settings, Workload, as_many, setting
from ..ir import Model, Node, model
from ..size import or_else
from ._conv import Features, Piece, add, classifier, conv_norm, each_element, scope

TAKES = ("batch", "seq", "image")


class Config(Settings):
    """R3D-18 as torchvision has it. MC3 and R(2+1)D are presets."""

    depths: tuple[int, ...] = setting((2, 2, 2, 2), "blocks in each stage")
    widths: tuple[int, ...] = setting((64, 128, 256, 512), "channels of each stage")
    temporal: int = setting(
        4, "stages whose convolutions span three frames; further ones span one (MC3: 1)", least=0
    )
    split: bool = setting(False, "each convolution is one over space and one over time (R(2+1)D)")
    stem: int = setting(64, "channels of the first convolution")
    stem_split: int = setting(45, "channels between its two parts, where it is split")
    classes: int = setting(400, "outputs")
    in_channels: int = setting(3, "channels of the image")
    frames: int = setting(16, "frames of a clip, unless the workload has others (--seq)")
    image: int = setting(112, "side of the image")

    def __post_init__(self) -> None:
        as_many("widths", self.widths, "depths", self.depths)


def build(c: Config, w: Workload) -> Model:
    """Clips [b, c, z, y, x] to logits [b, classes], with a cross-entropy loss in training."""
    return model("video_resnet", c, w, _nodes(c, w), {"b": w.batch}, samples=w.batch)


def _nodes(c: Config, w: Workload) -> Generator[Node, None, None]:
    side = or_else(w.image, c.image)
    x = Features("!clip", c.in_channels, (or_else(w.seq, c.frames), side, side))
    x = yield from _stem(c, x)
    for i, (depth, width) in enumerate(zip(c.depths, c.widths, strict=True)):
        span = 3 if i < c.temporal else 1
        x = yield from scope(f"stage{i + 1}.0", _block(c, x, width, span, 2 if i else 1))
        x = yield from scope(f"stage{i + 1}", _block(c, x, width, span, 1), depth - 1)
    yield from classifier(x, c.classes, w)


def _stem(c: Config, x: Features) -> Piece:
    if c.split:
        x = yield from conv_norm("stem.space", x, c.stem_split, (1, 7, 7), (1, 2, 2), act="relu_")
        return (yield from conv_norm("stem.time", x, c.stem, (3, 1, 1), act="relu_", to="x"))
    return (yield from conv_norm("stem", x, c.stem, (3, 7, 7), (1, 2, 2), act="relu_", to="x"))


def _block(c: Config, x: Features, f: int, span: int, stride: int) -> Piece:
    """Two convolutions, each over `span` frames; a stride divides the frames where they span several."""
    strides = (stride if span > 1 else 1, stride, stride)
    between = x.c * f * 27 // (x.c * 9 + f * 3) if c.split else 0
    y = yield from _conv_norm("conv1", x, f, between, span, strides, "relu_")
    y = yield from _conv_norm("conv2", y, f, between, span, (1, 1, 1))
    if stride > 1 or x.c != f:
        x = yield from conv_norm("shortcut", x, f, 1, strides)
    y = yield from add("add", y, x)
    return (yield from each_element("act", y, "relu_", to="x"))


def _conv_norm(
    name: str, x: Features, f: int, between: int, span: int, strides: tuple[int, ...], act: str = ""
) -> Piece:
    """span x 3 x 3, or 1 x 3 x 3 to `between` channels and span x 1 x 1 behind it.

    `between` is chosen so that both ways have equally many weights.
    """
    time, *space = strides
    if between:
        x = yield from conv_norm(f"{name}.space", x, between, (1, 3, 3), (1, *space), act="relu_")
        return (yield from conv_norm(f"{name}.time", x, f, (span, 1, 1), (time, 1, 1), act=act))
    return (yield from conv_norm(name, x, f, (span, 3, 3), strides, act=act))
