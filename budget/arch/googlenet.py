"""GoogLeNet: four branches in each module, and two auxiliary heads in training."""

from __future__ import annotations

from collections.abc import Generator

from ..config import Settings, Workload, setting
from ..errors import wrong
from ..ir import Model, Node, model, op
from ._branches import chain
from ._conv import Features, Piece, adaptive_pool, classifier, concat, conv_norm, image, pool, scope

# Channels of each module's branches: 1 x 1; 1 x 1, then 3 x 3; 1 x 1, then wide; pooling, then 1 x 1.
# Source: torchvision-googlenet.
MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
POOLS = {"4a": 3, "5a": 2}  # side of the pooling's window before a module
HEADS = {"4a": "aux1.", "4d": "aux2."}  # auxiliary heads behind a module


class Config(Settings):
    """GoogLeNet as torchvision has it: batch norm behind each convolution."""

    aux: bool = setting(
        True, "the auxiliary heads, whose losses are added in training; else they are not run"
    )
    wide: int = setting(3, "side of the third branch's kernel, an odd number; the paper has 5")
    classes: int = setting(1000, "outputs")
    in_channels: int = setting(3, "channels of the image")
    image: int = setting(224, "side of the image")

    def __post_init__(self) -> None:
        if self.wide % 2 == 0:
            raise wrong("wide", self.wide, "odd numbers")


def build(c: Config, w: Workload) -> Model:
    """Images to logits [b, classes], with a cross-entropy loss for each head in training."""
    aux = (f"{branch}loss" for branch in HEADS.values())
    outputs = ("loss", *aux) if c.aux and w.mode == "train" else ()
    return model("googlenet", c, w, _nodes(c, w), {"b": w.batch}, samples=w.batch, outputs=outputs)


def _nodes(c: Config, w: Workload) -> Generator[Node, None, None]:
    x = yield from _stem(image(w, c.in_channels, c.image))
    for name, channels in MODULES.items():
        if name in POOLS:
            x = yield from pool("max_pool", f"pool{name}", x, POOLS[name], stride=2, ceil=True, to="x")
        x = yield from scope(f"inception{name}", _module(x, c.wide, channels))
        if c.aux and w.mode == "train" and name in HEADS:
            yield from _aux(c, x, w, HEADS[name])
    yield from classifier(x, c.classes, w)


def _stem(x: Features) -> Piece:
    x = yield from conv_norm("stem1", x, 64, 7, stride=2, act="relu_")
    x = yield from pool("max_pool", "stem1.pool", x, 3, stride=2, ceil=True)
    x = yield from chain("stem2", x, (64, 1), (192, 3))
    return (yield from pool("max_pool", "stem2.pool", x, 3, stride=2, ceil=True, to="x"))


def _module(x: Features, wide: int, f: tuple[int, ...]) -> Piece:
    a = yield from chain("a", x, (f[0], 1))
    b = yield from chain("b", x, (f[1], 1), (f[2], 3))
    c = yield from chain("c", x, (f[3], 1), (f[4], wide))
    d = yield from pool("max_pool", "d.pool", x, 3, stride=1, padding=1)
    d = yield from chain("d", d, (f[5], 1))
    return (yield from concat("cat", (a, b, c, d), to="x"))


def _aux(c: Config, x: Features, w: Workload, branch: str) -> Generator[Node, None, None]:
    x = yield from adaptive_pool(f"{branch}pool", x, 4)
    x = yield from conv_norm(f"{branch}conv", x, 128, 1, act="relu_")
    sizes = {**x.sizes, "f": 1024}
    yield op(f"{branch}linear", f"{x.name}: {x.dims}, *f c y x, +*f -> {branch}x: b f", **sizes)
    yield op(f"{branch}relu", f"{branch}x: -> {branch}x:", "relu_")
    yield from classifier(Features(f"{branch}x", 1024, ()), c.classes, w, branch)
