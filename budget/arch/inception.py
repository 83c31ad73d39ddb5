"""Inception-v3: branches of convolutions of several shapes, concatenated."""

from __future__ import annotations

from collections.abc import Generator

from ..config import Settings, Workload, setting
from ..ir import Model, Node, model
from ._branches import chain
from ._conv import Features, Piece, classifier, concat, image, mean, pool, scope

ROW, COLUMN = (1, 7), (7, 1)


class Config(Settings):
    """Inception-v3 as torchvision has it."""

    aux: bool = setting(True, "the auxiliary head, whose loss is added in training; else it is not run")
    classes: int = setting(1000, "outputs")
    in_channels: int = setting(3, "channels of the image")
    image: int = setting(299, "side of the image")


def build(c: Config, w: Workload) -> Model:
    """Images to logits [b, classes], with a cross-entropy loss for each head in training."""
    outputs = ("loss", "aux.loss") if c.aux and w.mode == "train" else ()
    return model("inception", c, w, _nodes(c, w), {"b": w.batch}, samples=w.batch, outputs=outputs)


def _nodes(c: Config, w: Workload) -> Generator[Node, None, None]:
    x = yield from _stem(image(w, c.in_channels, c.image))
    for name, pooled in (("mixed5b", 32), ("mixed5c", 64), ("mixed5d", 64)):
        x = yield from scope(name, _mixed5(x, pooled))
    x = yield from scope("mixed6a", _reduce6(x))
    x = yield from scope("mixed6b", _mixed6(x, 128))
    x = yield from scope("mixed6cd", _mixed6(x, 160), 2)
    x = yield from scope("mixed6e", _mixed6(x, 192))
    if c.aux:
        yield from _aux(c, x, w)
    x = yield from scope("mixed7a", _reduce7(x))
    for name in ("mixed7b", "mixed7c"):
        x = yield from scope(name, _mixed7(x))
    yield from classifier(x, c.classes, w)


def _stem(x: Features) -> Piece:
    x = yield from chain("stem1", x, (32, 3, 2), (32, 3, 1), (64, 3))
    x = yield from pool("max_pool", "stem1.pool", x, 3, stride=2)
    x = yield from chain("stem2", x, (80, 1), (192, 3, 1))
    return (yield from pool("max_pool", "stem2.pool", x, 3, stride=2, to="x"))


def _mixed5(x: Features, pooled: int) -> Piece:
    a = yield from chain("a", x, (64, 1))
    b = yield from chain("b", x, (48, 1), (64, 5))
    c = yield from chain("c", x, (64, 1), (96, 3), (96, 3))
    d = yield from _averaged(x, pooled)
    return (yield from concat("cat", (a, b, c, d), to="x"))


def _reduce6(x: Features) -> Piece:
    a = yield from chain("a", x, (384, 3, 2))
    b = yield from chain("b", x, (64, 1), (96, 3), (96, 3, 2))
    c = yield from pool("max_pool", "c.pool", x, 3, stride=2)
    return (yield from concat("cat", (a, b, c), to="x"))


def _mixed6(x: Features, inner: int) -> Piece:
    a = yield from chain("a", x, (192, 1))
    b = yield from chain("b", x, (inner, 1), (inner, ROW), (192, COLUMN))
    c = yield from chain("c", x, (inner, 1), (inner, COLUMN), (inner, ROW), (inner, COLUMN), (192, ROW))
    d = yield from _averaged(x, 192)
    return (yield from concat("cat", (a, b, c, d), to="x"))


def _reduce7(x: Features) -> Piece:
    a = yield from chain("a", x, (192, 1), (320, 3, 2))
    b = yield from chain("b", x, (192, 1), (192, ROW), (192, COLUMN), (192, 3, 2))
    c = yield from pool("max_pool", "c.pool", x, 3, stride=2)
    return (yield from concat("cat", (a, b, c), to="x"))


def _mixed7(x: Features) -> Piece:
    a = yield from chain("a", x, (320, 1))
    b = yield from chain("b", x, (384, 1))
    b = yield from _forked("b", b)
    c = yield from chain("c", x, (448, 1), (384, 3))
    c = yield from _forked("c", c)
    d = yield from _averaged(x, 192)
    return (yield from concat("cat", (a, b, c, d), to="x"))


def _forked(name: str, x: Features) -> Piece:
    row = yield from chain(f"{name}.row", x, (384, (1, 3)))
    column = yield from chain(f"{name}.column", x, (384, (3, 1)))
    return (yield from concat(f"{name}.cat", (row, column)))


def _averaged(x: Features, f: int) -> Piece:
    y = yield from pool("avg_pool", "d.pool", x, 3, stride=1, padding=1)
    return (yield from chain("d", y, (f, 1)))


def _aux(c: Config, x: Features, w: Workload) -> Generator[Node, None, None]:
    if w.mode != "train":
        return
    x = yield from pool("avg_pool", "aux.pool", x, 5, stride=3)
    x = yield from chain("aux", x, (128, 1), (768, 5, 1))
    x = yield from mean("aux.mean", x)
    yield from classifier(x, c.classes, w, "aux.")
