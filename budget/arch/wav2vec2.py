"""Wav2Vec2 and its kin: samples of sound through convolutions, an encoder, and a head.

Positions come from one wide convolution in groups, whose weight is a direction and a length for each tap.
Source: transformers.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..config import Settings, Workload, as_many, divides, setting
from ..errors import InputError, wrong
from ..ir import EMBED, HEAD, LOSS, Model, Node, model, op
from ..size import Size, exact_div, or_else
from ._attention import Attention
from ._conv import Features, Piece, conv, each_element, slide
from ._layers import ACTIVATION_DROPOUT, ACTIVATIONS, ATTENTION_DROPOUT, activate, dropout, norm, sized
from ._loss import cross_entropy
from ._stacks import Layer, encoder

TAKES = ("batch", "seq")

RATE = 16_000  # samples of a second. Source: transformers
SEQ = 10 * RATE

HEADS = ("ctc", "none", "sequence", "frames")


class Config(Settings):
    """Wav2Vec2-base."""

    layers: int = setting(12, "layers of the encoder")
    d_model: int = setting(768, "width of the residual stream")
    heads: int = setting(12, "attention heads")
    d_ff: int = setting(0, "hidden width of the MLPs; 0: 4 x d_model", least=0)
    activation: str = setting("gelu", "of the MLPs", choices=ACTIVATIONS)
    norm_first: bool = setting(False, "norms come before attention and MLP, not behind them")
    channels: tuple[int, ...] = setting((512,) * 7, "of each convolution on the samples")
    kernels: tuple[int, ...] = setting((10, 3, 3, 3, 3, 2, 2), "taps of each")
    strides: tuple[int, ...] = setting((5, 2, 2, 2, 2, 2, 2), "samples or positions from one to the next")
    conv_norm: str = setting(
        "group", "behind the first convolution, or a layer norm behind each", choices=("group", "layer")
    )
    conv_bias: bool = setting(False, "convolutions on the samples have a bias")
    conv_activation: str = setting("gelu", "behind each convolution", choices=ACTIVATIONS)
    features_norm: bool = setting(True, "a norm before features are projected to d_model")
    taps: int = setting(128, "taps of the convolution that tells positions")
    groups: int = setting(16, "its groups")
    taps_norm: bool = setting(False, "a batch norm before it, and a plain weight (HuBERT of one size)")
    mask_token: bool = setting(True, "a vector that stands for hidden positions, of use in training only")
    head: str = setting("none", "of CTC, a sequence's labels, or each position's", choices=HEADS)
    vocab: int = setting(32, "characters, with CTC's blank")
    labels: int = setting(2, "outputs of a classifier", least=0)
    projection: int = setting(256, "width that a sequence's classifier projects to")
    dropout: float = setting(0.0, "training: part of what layers add that is dropped", least=0, most=1)
    attention_dropout: float = ATTENTION_DROPOUT
    activation_dropout: float = ACTIVATION_DROPOUT
    embed_dropout: float = setting(0.0, "training: part of the projected features, dropped", least=0, most=1)
    head_dropout: float = setting(0.0, "training: part of CTC's input that is dropped", least=0, most=1)

    def __post_init__(self) -> None:
        divides("heads", self.heads, "d_model", self.d_model)
        divides("groups", self.groups, "d_model", self.d_model)
        as_many("kernels", self.kernels, "channels", self.channels)
        as_many("strides", self.strides, "channels", self.channels)


def build(c: Config, w: Workload) -> Model:
    """Samples [b, seq] to logits [b, s, v], or hidden states [b, s, d]; s by the convolutions' strides."""
    samples = or_else(w.seq, SEQ)
    s, d = _positions_of(c, samples), c.d_model
    sizes = {
        "b": w.batch, "s": s, "t": s, "d": d, "h": c.heads, "r": 1, "k": exact_div(d, c.heads),
        "f": or_else(c.d_ff, 4 * d),
    }  # fmt: skip
    ends = ("x",) if c.head == "none" else ()
    return model(
        "wav2vec2", c, w, _nodes(c, w, samples), sizes, samples=w.batch, tokens=w.batch * s, outputs=ends,
        sound=samples / RATE,
    )  # fmt: skip


def _positions_of(c: Config, samples: Size) -> Size:
    """Number of positions that the convolutions leave. Raises InputError where there are none."""
    x = Features("", 1, (samples,))
    try:
        for kernel, stride in zip(c.kernels, c.strides, strict=True):
            x = x._replace(extents=slide("", x, kernel, stride, 0))
    except InputError:
        raise wrong("seq", samples, "samples for all convolutions") from None
    return x.extents[0]


def _nodes(c: Config, w: Workload, samples: Size) -> Iterator[Node]:
    x = yield from _convolutions(c, Features("!samples", 1, (samples,)))
    yield from sized(_encoder(c, w, x), **x.sizes)
    yield from _head(c, w.mode)


def _convolutions(c: Config, x: Features) -> Piece:
    for i, (f, kernel, stride) in enumerate(zip(c.channels, c.kernels, c.strides, strict=True)):
        at = f"features{i}"
        x = yield from conv(at, x, f, kernel, stride, 0, bias=c.conv_bias, tag="" if i else EMBED)
        if c.conv_norm == "layer":
            yield op(f"{at}.last", f"{x.name}: b c x -> n: b x c", "view", **x.sizes)
            yield op(f"{at}.norm", "n: b x c, *c, +*c -> n: b x c", "layer_norm", **x.sizes)
            yield op(f"{at}.first", f"n: b x c -> {x.name}: b c x", "view", **x.sizes)
        elif i == 0:
            x = yield from each_element(f"{at}.norm", x, "group_norm", ", *c, +*c")
        yield from sized([activate(f"{at}.act", c.conv_activation, x.name, x.name)], **x.sizes)
    return x


def _encoder(c: Config, w: Workload, x: Features) -> Iterator[Node]:
    """From the features to the encoder's states `x: b s d`."""
    yield op("project.tokens", f"{x.name}: b c x -> n: b s c", "view")
    if c.features_norm:
        yield norm("project.norm", "layer_norm", "n", "n", dim="c")
    yield op("project", "n: b s c, *c d, +*d -> x: b s d")
    yield from dropout("project", c.embed_dropout, w.mode, "x")
    if c.mask_token:
        yield op("mask", "*d -> mask: d", "resident")
    yield from _positions(c, x.extents[0])
    if not c.norm_first:
        yield norm("norm", "layer_norm", "x", "x")
    yield from dropout("positions", c.dropout, w.mode, "x")
    train = w.mode == "train"
    layer = Layer(
        Attention(upcast=False, dropout=train and c.attention_dropout > 0), c.activation, pre=c.norm_first,
        dropout=c.dropout if train else 0.0, inner_dropout=c.activation_dropout if train else 0.0,
    )  # fmt: skip
    yield encoder("layers", layer, c.layers)
    if c.norm_first:
        yield norm("norm", "layer_norm", "x", "x")


def _positions(c: Config, s: Size) -> Iterator[Node]:
    """A convolution as wide as `taps`, padded by half of it; one position more than there are is cut off."""
    even = 1 - c.taps % 2
    each = exact_div(c.d_model, c.groups)
    window: dict[str, Size] = {"y": s + even, "y+l": s, "l": c.taps, "g": c.groups, "i": each, "o": each}
    yield op("positions.first", "x: b s d -> p: b d s", "view")
    if c.taps_norm:
        yield op("positions.norm", "p: b d s, *d, +*d -> p: b d s", "batch_norm")
    yield op("positions.groups", "p: b d s -> p: b g i y+l", "view", **window)
    weight = "*g o i l"
    if not c.taps_norm:
        yield op("positions.weight", "*g o i l, *l -> taps: g o i l", "mul", **window)
        weight = "taps: g o i l"
    yield op("positions.conv", f"p: b g i y+l, {weight}, +*g o -> p: b g o y", **window)
    yield op("positions.join", "p: b g o y -> p: b d y", "view", **window)
    yield op("positions.cut", "p: b d y -> p: b d s", "slice", **window)
    yield activate("positions.act", c.conv_activation, "p", "p")
    yield op("positions.last", "p: b d s -> p: b s d", "view")
    yield op("positions.add", "x: b s d, p: b s d -> x: b s d", "add")


def _head(c: Config, mode: str) -> Iterator[Node]:
    """From the states to logits, and their loss in training."""
    if c.head == "none":
        return
    if c.head == "ctc":
        yield from dropout("head", c.head_dropout, mode, "x")
        yield op("head", "x: b s d, *v d, +*v -> logits: b s v", tag=HEAD, v=c.vocab)
        if mode == "train":
            yield op("loss.log_softmax", "logits: -> logp/float32:", "log_softmax", LOSS)
            yield op("loss", "logp: -> loss: 1", "ctc", LOSS)
        return
    if c.head == "sequence":
        yield op("head.project", "x: b s d, *d o, +*o -> z: b s o", o=c.projection)
        yield op("head.mean", "z: b s o -> z: b o", "mean", o=c.projection)
        yield op("head", "z: b o, *o v, +*v -> logits: b v", tag=HEAD, o=c.projection, v=c.labels)
    else:
        yield op("head", "x: b s d, *d v, +*v -> logits: b s v", tag=HEAD, v=c.labels)
    if mode == "train":
        yield from cross_entropy("logits")
