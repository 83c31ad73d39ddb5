"""Diffusion transformer: an encoder, modulated by time step and class, predicts the noise of latents.

Source: dit (Peebles and Xie 2023), as their repository writes it. The autoencoder between
images and latents is not part of it.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..config import Settings, Workload, at_most, divides, setting
from ..ir import EMBED, HEAD, LOSS, Model, Node, Op, block, model, op
from ..size import Size, exact_div, floor_div, or_else
from ._attention import Attention, attention
from ._layers import mlp


class Config(Settings):
    """DiT-XL/2 at 256 x 256."""

    layers: int = setting(28, "layers")
    d_model: int = setting(1152, "width of the residual stream")
    heads: int = setting(16, "attention heads")
    d_ff: int = setting(0, "hidden width of the MLPs; 0: 4 x d_model", least=0)
    patch: int = setting(2, "side of a patch, in latents")
    image: int = setting(256, "side of the image in pixels, unless the workload has another")
    downsampling: int = setting(8, "pixels along the side of one latent")
    channels: int = setting(4, "channels of the latents; noise and its variance are predicted")
    classes: int = setting(1000, "classes; one more stands for none")
    frequencies: int = setting(256, "sines and cosines that tell the time step")

    def __post_init__(self) -> None:
        divides("heads", self.heads, "d_model", self.d_model)


def build(c: Config, w: Workload) -> Model:
    """Latents [b, c, y, x], time steps and classes to noise and variance [b, s, v], patch by patch."""
    side = floor_div(or_else(w.image, c.image), c.downsampling)
    at_most("patch", c.patch, "the latents' side", side)
    across = floor_div(side, c.patch)
    s = across * across
    sizes = {
        "b": w.batch, "c": c.channels, "y": across, "x": across, "y+i": side, "x+j": side,
        "i": c.patch, "j": c.patch, "s": s, "t": s, "d": c.d_model, "h": c.heads, "r": 1,
        "k": exact_div(c.d_model, c.heads), "f": or_else(c.d_ff, 4 * c.d_model),
        "v": c.patch * c.patch * c.channels * 2, "p": c.frequencies,
    }  # fmt: skip
    return model("dit", c, w, _nodes(c, w), sizes, samples=w.batch, tokens=w.batch * s)


def _nodes(c: Config, w: Workload) -> Iterator[Node]:
    yield op("embed.patches", "!latents: b c y+i x+j, *d c i j, +*d -> x: b d y x")
    yield op("embed.flatten", "x: b d y x -> x: b s d", "view")
    yield op("embed.table", "!patches/int64: s, *~s d -> positions: s d", "frozen_gather")
    yield op("embed.positions", "x: b s d, positions: s d -> x: b s d", "add")
    yield from _condition(c.d_model, c.classes + 1)
    yield block("layers", _layer(c.d_model), c.layers)
    yield from _modulation("head", 2 * c.d_model, "shift", "scale")
    yield op("head.norm", "x: b s d -> n:", "layer_norm_plain")
    yield op("head.modulate", "n:, scale:, shift: -> n:", "modulate")
    yield op("head", "n: b s d, *d v, +*v -> noise: b s v", tag=HEAD)
    if w.mode == "train":
        yield op("loss", "noise: -> loss: 1", "mse", LOSS)


def _condition(d: Size, classes: Size) -> Iterator[Op]:
    """Time step and class, one vector a sample."""
    yield op("time.in", "!frequencies: b p, *p d, +*d -> time: b d")
    yield op("time.silu", "time: -> time:", "silu")
    yield op("time.out", "time: b f, *f d, +*d -> time: b d", f=d)
    yield op("class", "!class/int64: b, *~v d -> class: b d", "gather", EMBED, v=classes)
    yield op("condition", "time: b d, class: b d -> condition: b d", "add")


def _layer(d: Size) -> Iterator[Node]:
    """Shift, scale and gate of attention and MLP come from the condition."""
    yield from _modulation("ada", 6 * d, "shift1", "scale1", "gate1", "shift2", "scale2", "gate2")
    yield op("attn.norm", "x: b s d -> n:", "layer_norm_plain")
    yield op("attn.modulate", "n:, scale1:, shift1: -> n:", "modulate")
    yield from attention("attn", Attention(scale=False, scale_q=True, upcast=False), "forward")
    yield op("attn.gate", "a: b s d, gate1: b d -> a:", "mul")
    yield op("attn.residual", "x:, a: -> x:", "add")
    yield op("mlp.norm", "x: b s d -> n:", "layer_norm_plain")
    yield op("mlp.modulate", "n:, scale2:, shift2: -> n:", "modulate")
    yield from mlp("mlp", "gelu_tanh")
    yield op("mlp.gate", "m: b s d, gate2: b d -> m:", "mul")
    yield op("mlp.residual", "x:, m: -> x:", "add")


def _modulation(name: str, width: Size, *parts: str) -> Iterator[Op]:
    yield op(f"{name}.silu", "condition: b d -> active: b d", "silu")
    yield op(f"{name}.modulation", "active: b d, *d f, +*f -> parts: b f", f=width)
    yield op(f"{name}.parts", f"parts: b f -> {', '.join(f'{p}: b d' for p in parts)}", "split", f=width)
