"""MaxViT: convolutions, attention within windows, and attention across them alternate."""

from __future__ import annotations

from collections.abc import Generator, Iterator

from ..config import Settings, Workload, as_many, divides, setting
from ..ir import HEAD, Model, Node, model, op
from ..size import floor_div
from ._attention import Attention, attention
from ._conv import Features, Piece, add, batch_norm, conv, conv_norm, each_element, image, mean, pool, scope
from ._inverted import Squeeze, squeeze_excite
from ._layers import mlp, norm, sized
from ._loss import cross_entropy
from ._windows import relative_bias, window_sizes


class Config(Settings):
    """MaxViT-T as torchvision has it."""

    depths: tuple[int, ...] = setting((2, 2, 5, 2), "layers in each stage")
    widths: tuple[int, ...] = setting((64, 128, 256, 512), "channels of each stage, multiples of head_dim")
    stem: int = setting(64, "channels of the first convolutions")
    expand: int = setting(4, "width inside the convolutions, as a multiple of the stage's")
    squeeze: int = setting(4, "a stage's channels over those inside squeeze and excite")
    window: int = setting(7, "side of a window, and how many tokens one in the grid has along each axis")
    head_dim: int = setting(32, "channels of an attention head")
    mlp_ratio: int = setting(4, "hidden width of the MLPs, as a multiple of the stage's")
    outer_bias: bool = setting(False, "the first convolution and the classifier have a bias")
    plain_shortcut: bool = setting(False, "shortcuts are convolutions only where the channels change")
    classes: int = setting(1000, "outputs")
    in_channels: int = setting(3, "channels of the image")
    image: int = setting(224, "side of the image")

    def __post_init__(self) -> None:
        as_many("widths", self.widths, "depths", self.depths)
        for width in self.widths:
            divides("head_dim", self.head_dim, "each of widths", width)


def build(c: Config, w: Workload) -> Model:
    """Images to logits [b, classes], with a cross-entropy loss in training.

    Raises InputError where windows do not fill a stage's grid.
    """
    return model("maxvit", c, w, _nodes(c, w), {"b": w.batch}, samples=w.batch)


def _nodes(c: Config, w: Workload) -> Generator[Node, None, None]:
    x = image(w, c.in_channels, c.image)
    x = yield from conv("stem1.conv", x, c.stem, 3, stride=2, bias=c.outer_bias)
    x = yield from batch_norm("stem1.norm", x)
    x = yield from each_element("stem1.act", x, "gelu")
    x = yield from conv("stem2", x, c.stem, 3, bias=True, to="x")
    for i, (depth, width) in enumerate(zip(c.depths, c.widths, strict=True), 1):
        x = yield from scope(f"stage{i}.0", _layer(c, w, x, width, 2))
        x = yield from scope(f"stage{i}", _layer(c, w, x, width, 1), depth - 1)
    yield from _head(c, w, x)


def _layer(c: Config, w: Workload, x: Features, f: int, stride: int) -> Piece:
    x = yield from _convolve(c, x, f, stride)
    # Tokens of a window are neighbours; those of a grid lie one window apart.
    for name in ("window", "grid"):
        yield from _attend(c, w, name, x)
    return x


def _convolve(c: Config, x: Features, f: int, stride: int) -> Piece:
    """An inverted residual block with a norm before it and none behind."""
    wide = c.expand * f
    y = yield from batch_norm("norm", x)
    y = yield from conv_norm("expand", y, wide, 1, act="gelu")
    y = yield from conv_norm("depthwise", y, wide, 3, stride, groups=wide, act="gelu")
    y = yield from squeeze_excite(y, Squeeze(f // c.squeeze, "silu"))
    y = yield from conv("project", y, f, 1, bias=True)
    if stride > 1:
        x = yield from pool("avg_pool", "shortcut.pool", x, 3, stride, 1)
    if x.c != f or (stride > 1 and not c.plain_shortcut):
        x = yield from conv("shortcut", x, f, 1, bias=True)
    return (yield from add("add", x, y, "add", to="x"))


def _attend(c: Config, w: Workload, name: str, x: Features) -> Iterator[Node]:
    """Tokens are sorted into groups, with attention within each group and an MLP, then back into an image."""
    side, _ = x.extents
    divides("window", c.window, "the side of each stage's grid, here", side)
    groups = floor_div(side, c.window) * floor_div(side, c.window)
    sizes = {**window_sizes(c.window, x.c, x.c // c.head_dim), "b": w.batch * groups, "f": c.mlp_ratio * x.c}
    whole = {**x.sizes, "s": side * side, "d": x.c}
    yield op(f"{name}.sort", f"x: {x.dims} -> x: b s d", "copy", **whole)
    yield from sized([norm(f"{name}.norm1", "layer_norm"), *relative_bias(name)], **sizes)
    a = Attention(position="relative: h r s t", upcast=False)
    yield from sized(attention(f"{name}.attention", a, "train"), **sizes)
    yield op(f"{name}.add1", "x:, a: -> x:", "add", **sizes)
    yield from sized([norm(f"{name}.norm2", "layer_norm"), *mlp(f"{name}.mlp", "gelu")], **sizes)
    yield op(f"{name}.add2", "x:, m: -> x:", "add", **sizes)
    yield op(f"{name}.unsort", f"x: b s d -> x: {x.dims}", "copy", **whole)


def _head(c: Config, w: Workload, x: Features) -> Iterator[Node]:
    x = yield from mean("head.pool", x)
    x = yield from each_element("head.norm", x, "layer_norm", ", *c, +*c", to="x")
    yield op("head.linear", "x: b c, *f c, +*f -> x: b f", c=x.c, f=x.c)
    yield op("head.tanh", "x: -> x:", "tanh")
    bias = ", +*f" if c.outer_bias else ""
    yield op("head.classifier", f"x: b c, *f c{bias} -> logits: b f", tag=HEAD, c=x.c, f=c.classes)
    if w.mode == "train":
        yield from cross_entropy("logits")
