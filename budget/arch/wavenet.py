"""WaveNet: dilated causal convolutions over samples of sound, each layer's gated part summed into the output.

Source: wavenet (van den Oord et al. 2016), section 2: tanh(W x) sigmoid(V x), a residual to the next layer, a
skip to two 1 x 1 convolutions behind all of them. The last layer's residual is computed, but not read.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..config import Settings, Workload, setting
from ..ir import HEAD, Model, Node, Op, block, model, op
from ..size import Size, or_else
from ._layers import sized
from ._loss import cross_entropy

TAKES = ("batch", "seq")

SEQ = 16000  # samples: a second


class Config(Settings):
    """Three cycles of dilations from 1 to 512, in the sizes of the first open implementation."""

    cycles: int = setting(3, "times that the dilations start again from 1")
    depth: int = setting(10, "layers in a cycle, each with twice the dilation of the one before")
    residual: int = setting(32, "channels from layer to layer")
    inner: int = setting(32, "channels of the gated part")
    skip: int = setting(512, "channels that the layers' outputs are summed in")
    kernel: int = setting(2, "taps of a convolution")
    levels: int = setting(256, "values of a sample: one-hot inputs and classes")


def build(c: Config, w: Workload) -> Model:
    """Samples [b, levels, s], one-hot, to logits [b, levels, s]."""
    s = or_else(w.seq, SEQ)
    sizes = {
        "b": w.batch, "v": c.levels, "d": c.residual, "f": c.inner, "k": c.skip, "y": s, "l": c.kernel,
    }  # fmt: skip
    return model("wavenet", c, w, _nodes(c, w, s), sizes, samples=w.batch, tokens=w.batch * s, sound=s / SEQ)


def _nodes(c: Config, w: Workload, s: Size) -> Iterator[Node]:
    yield from sized(_causal("start", "!samples: b v", "v", "x", "d"), **_slid(c, s, 1))
    yield op("start.skip", "!zero: 1 -> total: b k y", "fill")
    yield block("cycles", _cycle(c, s), c.cycles, inline=True)
    yield op("head.relu1", "total: -> total:", "relu")
    yield op("head.mix", "total: b k y, *c k, +*c -> total: b c y", c=c.skip)
    yield op("head.relu2", "total: -> total:", "relu")
    yield op("head", "total: b c y, *v c, +*v -> logits: b y v", tag=HEAD, c=c.skip)
    if w.mode == "train":
        yield from cross_entropy("logits")


def _slid(c: Config, s: Size, dilation: int) -> dict[str, Size]:
    """The padded extent for which a dilated window leaves s outputs."""
    return {"y+l": s + (c.kernel - 1) * dilation}


def _causal(name: str, x: str, c: str, out: str, f: str) -> Iterator[Op]:
    """Zeros before the first sample, then a convolution from `x: b {c}` along y."""
    source = x if ":" in x else f"{x}: b {c}"
    yield op(f"{name}.pad", f"{source} y -> padded: b {c} y+l", "pad")
    yield op(name, f"padded: b {c} y+l, *{f} {c} l, +*{f} -> {out}: b {f} y")


def _cycle(c: Config, s: Size) -> Iterator[Node]:
    for i in range(c.depth):
        yield from sized(_layer(f"{i}"), **_slid(c, s, 2**i))


def _layer(name: str) -> Iterator[Op]:
    yield op(f"{name}.pad", "x: b d y -> padded: b d y+l", "pad")
    for part, act in (("filter", "tanh"), ("gate", "sigmoid")):
        yield op(f"{name}.{part}", f"padded: b d y+l, *f d l, +*f -> {part}: b f y")
        yield op(f"{name}.{act}", f"{part}: -> {part}:", act)
    yield op(f"{name}.mul", "filter:, gate: -> u: b f y", "mul")
    yield op(f"{name}.skip", "u: b f y, *k f, +*k -> part: b k y")
    yield op(f"{name}.sum", "total: b k y, part: b k y -> total:", "add")
    yield op(f"{name}.residual", "u: b f y, *d f, +*d -> r: b d y")
    yield op(f"{name}.add", "x: b d y, r: b d y -> x: b d y", "add")
