"""DenseNet: every layer reads the outputs of all layers before it, concatenated."""

from __future__ import annotations

from collections.abc import Generator

from ..config import Settings, Workload, setting
from ..ir import Model, Node, model
from ._conv import Features, Piece, batch_norm, classifier, concat, conv, conv_norm, each_element, image, pool


class Config(Settings):
    """DenseNet-121."""

    depths: tuple[int, ...] = setting((6, 12, 24, 16), "layers in each dense block")
    growth: int = setting(32, "channels that each layer adds")
    bottleneck: int = setting(4, "channels inside a layer, as a multiple of growth")
    stem: int = setting(64, "channels of the first convolution")
    classes: int = setting(1000, "outputs")
    in_channels: int = setting(3, "channels of the image")
    image: int = setting(224, "side of the image")


def build(c: Config, w: Workload) -> Model:
    """Images to logits [b, classes], with a cross-entropy loss in training."""
    return model("densenet", c, w, _nodes(c, w), {"b": w.batch}, samples=w.batch)


def _nodes(c: Config, w: Workload) -> Generator[Node, None, None]:
    x = image(w, c.in_channels, c.image)
    x = yield from conv_norm("stem", x, c.stem, 7, stride=2, act="relu_")
    x = yield from pool("max_pool", "stem.pool", x, 3, stride=2, padding=1)
    for i, depth in enumerate(c.depths):
        if i:
            x = yield from _norm_relu_conv(f"down{i}", x, x.c // 2, 1)
            x = yield from pool("avg_pool", f"down{i}.pool", x, 2, stride=2)
        x = yield from _dense(c, f"dense{i}", x, depth)
    x = yield from batch_norm("head.norm", x)
    x = yield from each_element("head.act", x, "relu_")
    yield from classifier(x, c.classes, w)


def _dense(c: Config, name: str, x: Features, depth: int) -> Piece:
    parts = [x]
    for j in range(depth):
        y = yield from concat(f"{name}.{j}.cat", parts)
        y = yield from _norm_relu_conv(f"{name}.{j}.1", y, c.bottleneck * c.growth, 1)
        parts.append((yield from _norm_relu_conv(f"{name}.{j}.2", y, c.growth, 3)))
    return (yield from concat(f"{name}.cat", parts))


def _norm_relu_conv(name: str, x: Features, f: int, kernel: int) -> Piece:
    x = yield from batch_norm(f"{name}.norm", x)
    x = yield from each_element(f"{name}.act", x, "relu_")
    return (yield from conv(f"{name}.conv", x, f, kernel))
