"""Conformer: speech through an encoder of attention and convolution, and a head for CTC.

Source: conformer (Gulati et al. 2020), section 2: half an MLP, attention with relative
positions, a convolution, the other half. The paper's decoder is a transducer, which is not modelled.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..config import Settings, Workload, divides, setting, size
from ..ir import HEAD, LOSS, Model, Node, Op, block, group, model, op
from ..size import Size, exact_div, floor_div, or_else
from ._layers import mlp, norm

TAKES = ("batch", "seq")

SEQ = 1600  # frames: sixteen seconds
FRAME_S = 0.01  # seconds from one frame to the next. Source: conformer
LEAST = 7  # frames, and mels, that leave one position behind two strided convolutions


class Config(Settings):
    """Conformer-S."""

    layers: int = setting(16, "layers")
    d_model: int = setting(144, "width of the residual stream")
    heads: int = setting(4, "attention heads")
    d_ff: int = setting(0, "hidden width of the MLPs; 0: 4 x d_model", least=0)
    kernel: int = setting(31, "taps of the convolution along time, an odd number")
    mels: int = setting(80, "channels of the spectrogram", least=LEAST)
    vocab: int = setting(1024, "word pieces, with CTC's blank")

    def __post_init__(self) -> None:
        divides("heads", self.heads, "d_model", self.d_model)


def build(c: Config, w: Workload) -> Model:
    """Spectrograms [b, frames, mels] to logits [b, s, v], s a quarter of the frames."""
    frames = size("seq", or_else(w.seq, SEQ), LEAST)
    s = _halved(_halved(frames))
    sizes = {
        "b": w.batch, "s": s, "t": s, "d": c.d_model, "h": c.heads, "k": exact_div(c.d_model, c.heads),
        "f": or_else(c.d_ff, 4 * c.d_model), "v": c.vocab, "p": 2 * s - 1, "y+l": s, "l": c.kernel, "y": s,
    }  # fmt: skip
    nodes, sound = _nodes(c, w, frames), frames * FRAME_S
    return model("conformer", c, w, nodes, sizes, samples=w.batch, tokens=w.batch * s, sound=sound)


def _halved(extent: Size) -> Size:
    """Output size of an unpadded convolution with kernel 3 and stride 2."""
    return floor_div(extent - 1, 2)


def _nodes(c: Config, w: Workload, frames: Size) -> Iterator[Node]:
    yield from _subsample(c, frames)
    yield block("layers", _layer(c.d_model), c.layers)
    yield op("head", "x: b s d, *v d, +*v -> logits: b s v", tag=HEAD)
    if w.mode == "train":
        yield op("loss.log_softmax", "logits: -> logp/float32:", "log_softmax", LOSS)
        yield op("loss", "logp: -> loss: 1", "ctc", LOSS)


def _subsample(c: Config, frames: Size) -> Iterator[Op]:
    """Two strided convolutions, then one linear layer over all mels of a position."""
    y, x = _halved(frames), _halved(c.mels)
    first: dict[str, Size] = {"c": 1, "y+i": frames, "x+j": c.mels, "y": y, "x": x, "i": 3, "j": 3}
    second = {**first, "c": c.d_model, "y+i": y, "x+j": x, "y": _halved(y), "x": _halved(x)}
    width = c.d_model * _halved(x)
    yield op("subsample.conv1", "!mel: b c y+i x+j, *d c i j, +*d -> x: b d y x", **first)
    yield op("subsample.relu1", "x: b d y x -> x:", "relu", **first)
    yield op("subsample.conv2", "x: b c y+i x+j, *d c i j, +*d -> x: b d y x", **second)
    yield op("subsample.relu2", "x: b d y x -> x:", "relu", **second)
    yield op("subsample.flatten", "x: b d y x -> x: b s c", "copy", **{**second, "c": width})
    yield op("subsample.linear", "x: b s c, *c d, +*d -> x: b s d", c=width)


def _layer(d: Size) -> Iterator[Node]:
    for name, part in (("mlp1", None), ("attn", _attention), ("conv", _convolution), ("mlp2", None)):
        yield norm(f"{name}.norm", "layer_norm")
        if part:
            yield from part(d)
        else:
            yield from mlp(name, "silu")
            yield op(f"{name}.half", "m: -> m:", "scale")
        yield op(f"{name}.residual", "x:, m: -> x:", "add")
    yield norm("norm", "layer_norm", "x", "x")


def _attention(d: Size) -> Iterator[Op]:
    """Transformer-XL's: scores of content and of relative positions, each with a bias of the queries."""
    for t in ("q", "k", "v"):
        yield op(f"attn.{t}", f"n: b s d, *d h k, +*h k -> {t}: b s h k")
    yield op("attn.positions", "!distances: p d, *d h k -> pos: p h k")
    yield op("attn.content_bias", "q: b s h k, *h k -> qc: b s h k", "add")
    yield op("attn.position_bias", "q: b s h k, *h k -> qp: b s h k", "add")
    yield from group(
        "attention",
        op("attn.content", "qc: b s h k, k: b t h k -> w: b h s t"),
        op("attn.distance", "qp: b s h k, pos: p h k -> wp: b h s p"),
        op("attn.shift", "wp: b h s p -> wp: b h s t", "copy"),
        op("attn.sum", "w:, wp: -> w:", "add"),
        op("attn.scale", "w: -> w:", "scale"),
        op("attn.softmax", "w: -> p:", "softmax"),
        op("attn.mix", "p:, v: b t h k -> o: b h s k"),
        op("attn.merge", "o: b h s k -> y: b s h k", "copy"),
    )
    yield op("attn.o", "y: b s h k, *h k d, +*d -> m: b s d")


def _convolution(d: Size) -> Iterator[Op]:
    """Pointwise to twice the width, gated; depthwise along time; pointwise back."""
    yield op("conv.up", "n: b s d, *d c, +*c -> u: b s c", c=2 * d)
    yield op("conv.glu", "u: b s c -> u: b s d", "glu", c=2 * d)
    yield op("conv.depthwise", "u: b y+l d, *d l, +*d -> u: b y d")
    yield op("conv.batch_norm", "u: b y d, *d, +*d -> u: b s d", "batch_norm")
    yield op("conv.silu", "u: -> u:", "silu")
    yield op("conv.down", "u: b s f, *f d, +*d -> m: b s d", f=d)
