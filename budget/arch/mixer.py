"""MLP-Mixer: an image cut into patches; MLPs across patches and across channels alternate."""

from __future__ import annotations

from collections.abc import Iterator

from ..config import Settings, Workload, at_most, setting
from ..ir import ACTIVATION_OF_MLP, DOWN, HEAD, Model, Node, Op, block, model, op
from ..size import floor_div, or_else
from ._layers import mlp, norm
from ._loss import cross_entropy


class Config(Settings):
    """Mixer-B/16."""

    layers: int = setting(12, "layers")
    d_model: int = setting(768, "channels of a patch")
    d_tokens: int = setting(384, "hidden width of the MLPs across the patches")
    d_ff: int = setting(3072, "hidden width of the MLPs across the channels")
    patch: int = setting(16, "side of a patch, in pixels")
    activation: str = setting("gelu", "of the MLPs", choices=("gelu", "gelu_tanh", "relu", "silu"))
    classes: int = setting(1000, "outputs")
    in_channels: int = setting(3, "channels of the image")
    image: int = setting(224, "side of the image")

    def __post_init__(self) -> None:
        at_most("patch", self.patch, "image", self.image)


def build(c: Config, w: Workload) -> Model:
    """Images [b, c, y, x] to logits [b, v], with a cross-entropy loss in training.

    The width of the MLPs across patches is the number of patches.
    """
    side = or_else(w.image, c.image)
    at_most("patch", c.patch, "image", side)
    across = floor_div(side, c.patch)
    sizes = {
        "b": w.batch, "c": c.in_channels, "y": across, "x": across, "y+i": side, "x+j": side, "i": c.patch,
        "j": c.patch, "s": across * across, "d": c.d_model, "v": c.classes,
    }  # fmt: skip
    return model("mixer", c, w, _nodes(c, w), sizes, samples=w.batch)


def _nodes(c: Config, w: Workload) -> Iterator[Node]:
    yield op("embed.patches", "!image: b c y+i x+j, *d c i j, +*d -> x: b d y x")
    yield op("embed.flatten", "x: b d y x -> x: b s d", "view")
    yield block("layers", _layer(c), c.layers)
    yield norm("norm", "layer_norm", "x", "x")
    yield op("head.pool", "x: b s d -> x: b d", "mean")
    yield op("head.classifier", "x: b d, *v d, +*v -> logits: b v", tag=HEAD)
    if w.mode == "train":
        yield from cross_entropy("logits")


def _layer(c: Config) -> Iterator[Op]:
    yield norm("tokens.norm", "layer_norm")
    yield op("tokens.up", "n: b s d, *s f, +*f -> u: b d f", f=c.d_tokens)
    yield op("tokens.act", "u: -> u:", c.activation, ACTIVATION_OF_MLP)
    yield op("tokens.down", "u: b d f, *f s, +*s -> m: b s d", tag=DOWN, f=c.d_tokens)
    yield op("tokens.residual", "x:, m: -> x:", "add")
    yield norm("channels.norm", "layer_norm")
    yield from mlp("channels", c.activation, f=c.d_ff)
    yield op("channels.residual", "x:, m: -> x:", "add")
