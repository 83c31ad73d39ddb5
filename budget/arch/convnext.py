"""ConvNeXt and ConvNeXt-v2: large depthwise convolutions, layer norm and a pointwise MLP in each block."""

from __future__ import annotations

from collections.abc import Generator

from ..config import Settings, Workload, as_many, setting
from ..errors import wrong
from ..ir import ACTIVATION_OF_MLP, DOWN, Model, Node, model, op
from ..size import Size
from ._conv import Features, Piece, add, classifier, conv, each_element, image, mean, scope


class Config(Settings):
    """ConvNeXt-T."""

    depths: tuple[int, ...] = setting((3, 3, 9, 3), "blocks in each stage")
    widths: tuple[int, ...] = setting((96, 192, 384, 768), "channels of each stage")
    patch: int = setting(4, "side of the first convolution's kernel, and its stride")
    kernel: int = setting(7, "side of the depthwise kernels, an odd number")
    expand: int = setting(4, "width of the pointwise MLP, as a multiple of the channels")
    layer_scale: bool = setting(True, "each block's output is scaled, channel by channel")
    response_norm: bool = setting(
        False, "inside the MLP, each channel's response is set against the others' (v2)"
    )
    activation: str = setting("gelu", "of the MLP", choices=("gelu", "gelu_tanh", "relu", "silu"))
    inplace: bool = setting(True, "residuals are added in place (torchvision does, transformers doesn't)")
    classes: int = setting(1000, "outputs; 0: no head", least=0)
    in_channels: int = setting(3, "channels of the image")
    image: int = setting(224, "side of the image")

    def __post_init__(self) -> None:
        as_many("widths", self.widths, "depths", self.depths)
        if self.kernel % 2 == 0:
            raise wrong("kernel", self.kernel, "odd numbers")


def build(c: Config, w: Workload) -> Model:
    """Images to logits [b, classes], with a cross-entropy loss in training."""
    return model("convnext", c, w, _nodes(c, w), {"b": w.batch}, samples=w.batch)


def _nodes(c: Config, w: Workload) -> Generator[Node, None, None]:
    x = image(w, c.in_channels, c.image)
    x = yield from conv("stem.conv", x, c.widths[0], c.patch, c.patch, 0, bias=True)
    x = yield from _norm("stem", x)
    for i, (depth, width) in enumerate(zip(c.depths, c.widths, strict=True)):
        if i:
            x = yield from _norm(f"down{i}", x)
            x = yield from conv(f"down{i}.conv", x, width, 2, 2, 0, bias=True, to="x")
        x = yield from scope(f"stage{i}", _block(c, x), depth)
    x = yield from mean("head.pool", x)
    x = yield from each_element("head.norm", x, "layer_norm", ", *c, +*c")
    yield from classifier(x, c.classes, w)


def _norm(name: str, x: Features) -> Piece:
    """Layer norm over the channels, which are the last axis while it runs."""
    yield op(f"{name}.last", f"{x.name}: {x.dims} -> n: b y x c", "view", **x.sizes)
    yield op(f"{name}.norm", "n: b y x c, *c, +*c -> n: b y x c", "layer_norm", **x.sizes)
    yield op(f"{name}.first", f"n: b y x c -> x: {x.dims}", "view", **x.sizes)
    return x._replace(name="x")


def _block(c: Config, x: Features) -> Piece:
    wide: dict[str, Size] = {**x.sizes, "f": c.expand * x.c}
    y = yield from conv("depthwise", x, x.c, c.kernel, groups=x.c, bias=True)
    yield op("last", f"{y.name}: {y.dims} -> n: b y x c", "view", **y.sizes)
    yield op("norm", "n: b y x c, *c, +*c -> n: b y x c", "layer_norm", **y.sizes)
    yield op("mlp.up", "n: b y x c, *f c, +*f -> u: b y x f", **wide)
    yield op("mlp.act", "u: b y x f -> u: b y x f", c.activation, ACTIVATION_OF_MLP, **wide)
    if c.response_norm:
        yield op("mlp.norm", "u: b y x f, *f, +*f -> u: b y x f", "response_norm", **wide)
    yield op("mlp.down", "u: b y x f, *c f, +*c -> y: b y x c", tag=DOWN, **wide)
    if c.layer_scale:
        yield op("scale", "y: b y x c, *c -> y: b y x c", "mul", **y.sizes)
    yield op("first", f"y: b y x c -> y: {y.dims}", "view", **y.sizes)
    return (yield from add("add", y._replace(name="y"), x, "add_" if c.inplace else "add", to="x"))
