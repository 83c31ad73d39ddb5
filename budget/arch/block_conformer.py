"""A conformer that attends within blocks, with Shaw's relative positions (Granite Speech's encoder).

Its prediction of the words is fed back in the middle. Source: transformers.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..config import Settings, Workload, at_most, divides, setting
from ..ir import MERGE, MIX, OUTPUT, QUERY, SCORES, Model, Node, block, model, op
from ..size import Size, ceil_div, exact_div, floor_div, is_zero, or_else
from ._before import stored
from ._layers import dropout, mlp, norm, sized
from .audio_encoder import FRAMES

TAKES = ("batch", "sound")

STACKED = 2  # frames side by side are one position. Source: transformers
SECONDS = 30


class Config(Settings):
    """That of Granite Speech 3.3."""

    layers: int = setting(10, "layers")
    d_model: int = setting(1024, "width of the residual stream")
    heads: int = setting(8, "attention heads")
    head_dim: int = setting(0, "width of a head; 0: d_model / heads", least=0)
    d_ff: int = setting(4096, "hidden width of the MLPs")
    features: int = setting(160, "of a position: the channels of two frames of a spectrogram")
    context: int = setting(200, "positions of a block, which attend to one another")
    farthest: int = setting(512, "distance that has an embedding of its own")
    kernel: int = setting(15, "taps of the convolution along time")
    inner: int = setting(2048, "width of that convolution")
    outputs: int = setting(42, "characters that are fed back in the middle")
    dropout: float = setting(0.0, "training: part of what layers add that is dropped", least=0, most=1)

    def __post_init__(self) -> None:
        if is_zero(self.head_dim):
            divides("heads", self.heads, "d_model", self.d_model)
        at_most("context", self.context, "farthest", self.farthest)


def build(c: Config, w: Workload) -> Model:
    """Features [b, s, c] of so many seconds to hidden states [b, s, d]."""
    sound = or_else(w.sound, SECONDS)
    s = positions(sound)
    nodes = sized(encode(c, w.mode, w.batch, s), **shape(c, w.batch, s))
    return model("block_conformer", c, w, nodes, {}, samples=w.batch, tokens=w.batch * s, sound=sound)


def positions(sound: Size) -> Size:
    """Number of positions of so many seconds."""
    return exact_div(sound * FRAMES, STACKED)


def shape(c: Config, b: Size, s: Size) -> dict[str, Size]:
    """The dimensions' sizes. s: positions."""
    return {
        "b": b, "s": s, "c": c.features, "d": c.d_model, "f": c.d_ff, "h": c.heads,
        "k": or_else(c.head_dim, exact_div(c.d_model, c.heads)), "i": c.inner, "j": 2, "l": c.kernel,
        "o": c.outputs, "y": s, "y+l": s,
    }  # fmt: skip


def encode(c: Config, mode: str, b: Size, s: Size) -> Iterator[Node]:
    """From `features: b s c` to `x: b s d`."""
    half = floor_div(c.layers, 2)
    yield op("input", "!features: b s c, *c d, +*d -> x: b s d")
    yield block("layers", _layer(c, mode, b, s), half)
    fed_back = (
        op("middle.out", "x: b s d, *d o, +*o -> z: b s o"),
        op("middle.softmax", "z: -> z:", "softmax"),
        op("middle.in", "z: b s o, *o d, +*d -> z: b s d"),
        op("middle.add", "x:, z: -> x:", "add"),
    )
    yield from stored(fed_back) if is_zero(half) else fed_back
    yield block("late_layers", _layer(c, mode, b, s), c.layers - half)


def _layer(c: Config, mode: str, b: Size, s: Size) -> Iterator[Node]:
    """Half an MLP, attention, a convolution, half an MLP, each added to the stream."""
    yield from _half("mlp1", c, mode)
    for name, part in (("attn", _attention(c, b, s)), ("conv", _convolution())):
        yield norm(f"{name}.norm", "layer_norm")
        yield from part
        yield from dropout(name, c.dropout, mode, "m")
        yield op(f"{name}.residual", "x:, m: -> x:", "add")
    yield from _half("mlp2", c, mode)
    yield norm("norm", "layer_norm", "x", "x")


def _half(name: str, c: Config, mode: str) -> Iterator[Node]:
    yield norm(f"{name}.norm", "layer_norm")
    yield from mlp(name, "silu", dropout=c.dropout if mode == "train" else 0.0)
    yield from dropout(name, c.dropout, mode, "m")
    yield op(f"{name}.half", "m: -> m:", "scale")
    yield op(f"{name}.residual", "x:, m: -> x:", "add")


def _attention(c: Config, b: Size, s: Size) -> Iterator[Node]:
    """Within blocks of the padded sequence. No fused kernel: the class asks for SDPA's own code, float32."""
    blocks = ceil_div(s, c.context)
    padded: dict[str, Size] = {"p": blocks * c.context}
    inside: dict[str, Size] = {"b": b * blocks, "q": c.context, "t": c.context}
    apart: dict[str, Size] = {**padded, **inside, "b": b, "u": blocks}
    yield op("attn.pad", "n: b s d -> n: b p d", "zero_pad", **padded)
    yield op("attn.q", "n: b p d, *d h k -> q: b p h k", tag=QUERY, **padded)
    yield op("attn.kv", "n: b p d, *d j h k -> kv: b p j h k", **padded)
    yield op("attn.split", "kv: b p j h k -> k: b p h k, v: b p h k", "view", **padded)
    yield op("attn.q_blocks", "q: b p h k -> q: b.u q h k", "view", **apart)
    yield op("attn.k_blocks", "k: b p h k -> k: b.u t h k", "view", **apart)
    yield op("attn.v_blocks", "v: b p h k -> v: b.u t h k", "view", **apart)
    line = "!distances/int64: q t, *~w k -> near: q t k"
    yield op("attn.distances", line, "gather", **inside, w=2 * c.farthest + 1)
    yield op("attn.positions", "q: b q h k, near: q t k -> wp: b h q t", **inside)
    yield op("attn.position_scale", "wp: b h q t -> wp:", "scale", **inside)
    for t, dims in (("q", "b q h k"), ("k", "b t h k"), ("v", "b t h k")):
        yield op(f"attn.{t}_cast", f"{t}: {dims} -> {t}32/float32:", "cast", **inside)
    yield op("attn.q_scale", "q32: b q h k -> q32/float32:", "scale", **inside)
    yield op("attn.k_scale", "k32: b t h k -> k32/float32:", "scale", **inside)
    yield op("attn.scores", "q32: b q h k, k32: b t h k -> w/float32: b h q t", tag=SCORES, **inside)
    yield op("attn.position_cast", "wp: b h q t -> wp32/float32:", "cast", **inside)
    yield op("attn.place", "w: b h q t, wp32: b h q t -> w/float32:", "add", **inside)
    held = ("q", "k", "v", "near", "wp")  # by variables of the class while it runs
    softmax = op("attn.softmax", "w: b h q t -> p/float32:", "softmax", **inside)
    yield softmax._replace(callers=(*held, "wp32"))
    mix = op("attn.mix", "p: b h q t, v32: b t h k -> o/float32: b h q k", tag=MIX, **inside)
    yield mix._replace(callers=held)
    yield op("attn.downcast", "o: b h q k -> o:", "cast", **inside)
    yield op("attn.merge", "o: b h q k -> y: b q h k", "copy", MERGE, **inside)
    yield op("attn.join", "y: b.u q h k -> y: b p h k", "view", **apart)
    yield op("attn.cut", "y: b p h k -> y: b s h k", "slice", **padded)
    yield op("attn.o", "y: b s h k, *h k d, +*d -> m: b s d", tag=OUTPUT)


def _convolution() -> Iterator[Node]:
    """Pointwise to twice the width, gated; depthwise along time; pointwise back."""
    yield op("conv.up", "n: b s d, *d j i, +*j i -> u: b s j i")
    yield op("conv.glu", "u: b s j i -> u: b s i", "glu")
    yield op("conv.depthwise", "u: b y+l i, *i l -> u: b y i")
    yield op("conv.batch_norm", "u: b y i, *i, +*i -> u: b s i", "batch_norm")
    yield op("conv.silu", "u: b s i -> u:", "silu")
    yield op("conv.down", "u: b s i, *i d, +*d -> m: b s d")
