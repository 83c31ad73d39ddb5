"""Plain convolutional networks: convolutions and pooling in a row, linear layers behind them.

VGG (with and without batch norm) and AlexNet are presets of it.
"""

from __future__ import annotations

from collections.abc import Generator

from ..config import Settings, Workload, setting
from ..errors import InputError
from ..ir import HEAD, Model, Node, model, op
from ._conv import Features, Piece, adaptive_pool, batch_norm, conv, each_element, image, pool
from ._loss import cross_entropy


class Config(Settings):
    """A small network for 32 x 32 images in ten classes."""

    channels: tuple[int, ...] = setting(
        (32, 32, 0, 64, 64, 0), "output channels of each convolution; 0 is a max pooling", least=0
    )
    kernels: tuple[int, ...] = setting((3,), "side of each convolution's kernel, or one for all")
    strides: tuple[int, ...] = setting((1,), "stride of each convolution, or one for all")
    paddings: tuple[int, ...] = setting((1,), "padding of each convolution, or one for all", least=0)
    norm: str = setting("none", "behind each convolution, which keeps its bias", choices=("none", "batch"))
    pool: int = setting(2, "side of a pooling's window")
    pool_stride: int = setting(2, "stride of a pooling")
    pooled: int = setting(0, "side to which the last feature map is averaged; 0 leaves it", least=0)
    hidden: tuple[int, ...] = setting(
        (128,), "widths of the linear layers before the last; 0 is none", least=0
    )
    classes: int = setting(10, "outputs")
    in_channels: int = setting(3, "channels of the image")
    image: int = setting(32, "side of the image")

    def __post_init__(self) -> None:
        convs = sum(f > 0 for f in self.channels)
        for field in ("kernels", "strides", "paddings"):
            got = len(getattr(self, field))
            if got not in (1, convs):
                raise InputError(
                    field, f"got {got} values; allowed: 1, or {convs}, as there are convolutions"
                )


def build(c: Config, w: Workload) -> Model:
    """Images to logits [b, classes], with a cross-entropy loss in training."""
    return model("cnn", c, w, _nodes(c, w), {"b": w.batch}, samples=w.batch)


def _nodes(c: Config, w: Workload) -> Generator[Node, None, None]:
    x = image(w, c.in_channels, c.image)
    x = yield from _features(c, x)
    if c.pooled:
        x = yield from adaptive_pool("head.pool", x, c.pooled)
    operand, fan_in = f"{x.name}: {x.dims}, *f {x.dims.removeprefix('b ')}", x.sizes
    for i, width in enumerate((*(h for h in c.hidden if h), c.classes)):
        hidden = i < sum(h > 0 for h in c.hidden)
        yield op(
            f"head.linear{i}", f"{operand}, +*f -> x: b f", tag="" if hidden else HEAD, **fan_in, f=width
        )
        operand, fan_in = "x: b c, *f c", {"c": width}
        if hidden:
            yield op(f"head.relu{i}", "x: -> x:", "relu_")
    if w.mode == "train":
        yield from cross_entropy("x")


def _features(c: Config, x: Features) -> Piece:
    n = 0
    for i, f in enumerate(c.channels):
        if f == 0:
            x = yield from pool("max_pool", f"features.pool{i}", x, c.pool, c.pool_stride)
            continue
        kernel, stride, padding = (v[n % len(v)] for v in (c.kernels, c.strides, c.paddings))
        x = yield from conv(f"features.conv{i}", x, f, kernel, stride, padding, bias=True)
        if c.norm == "batch":
            x = yield from batch_norm(f"features.norm{i}", x)
        x = yield from each_element(f"features.relu{i}", x, "relu_")
        n += 1
    return x
