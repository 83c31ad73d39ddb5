"""Whisper: a mel spectrogram through two convolutions and an encoder, and a decoder of text."""

from __future__ import annotations

from collections.abc import Iterator

from ..config import Settings, Workload, at_most, divides, setting
from ..errors import InputError
from ..ir import EMBED, HEAD, Model, Node, model, op
from ..size import Size, exact_div, is_number, or_else
from ._attention import Attention, causal_mask
from ._layers import dropout, norm, sized
from ._loss import cross_entropy
from ._stacks import Layer, decoder, encoder

TAKES = ("batch", "seq")
MODES = ("train", "forward", "prefill", "decode")

FRAME_S = 0.01  # seconds from one frame to the next: 160 samples at 16 kHz. Source: transformers

HEADS = ("lm", "none", "classifier")
ACTIVATIONS = ("gelu", "gelu_tanh", "gelu_new", "quick_gelu", "silu", "relu")


class Config(Settings):
    """Whisper-tiny; every input is padded to half a minute."""

    encoder_layers: int = setting(4, "layers of the encoder")
    decoder_layers: int = setting(0, "layers of the decoder; 0: as many", least=0)
    d_model: int = setting(384, "width of the residual streams")
    heads: int = setting(6, "attention heads of the encoder")
    decoder_heads: int = setting(0, "attention heads of the decoder; 0: as many", least=0)
    d_ff: int = setting(0, "hidden width of the encoder's MLPs; 0: 4 x d_model", least=0)
    decoder_d_ff: int = setting(0, "hidden width of the decoder's MLPs; 0: as the encoder's", least=0)
    mels: int = setting(80, "channels of the spectrogram")
    frames: int = setting(3000, "frames of the spectrogram, two for each position of the encoder")
    vocab: int = setting(51865, "tokens")
    context: int = setting(448, "longest text; the default length")
    head: str = setting("lm", "a language model's, none, or the encoder's classifier", choices=HEADS)
    labels: int = setting(2, "outputs of a classifier", least=0)
    projection: int = setting(256, "width that a classifier projects to")
    tied: bool = setting(True, "the head's weight is the embedding's")
    activation: str = setting("gelu", "of MLPs and convolutions", choices=ACTIVATIONS)
    dropout: float = setting(
        0.0, "training: part of embeddings and of what is added, dropped", least=0, most=1
    )
    attention_dropout: float = setting(
        0.0, "training: part of attention's weights that is dropped", least=0, most=1
    )
    activation_dropout: float = setting(
        0.0, "training: part of the MLPs' hidden units, dropped", least=0, most=1
    )

    def __post_init__(self) -> None:
        divides("heads", self.heads, "d_model", self.d_model)
        divides("decoder_heads", or_else(self.decoder_heads, 1), "d_model", self.d_model)
        if is_number(self.frames) and self.frames % 2:
            raise InputError("frames", f"got {self.frames}; allowed: even numbers")


def build(c: Config, w: Workload) -> Model:
    """Spectrograms [b, c, frames] and tokens [b, s] to logits [b, s, v].

    Decode mode makes one token per text: the encoder has run, its keys and values are cached.
    """
    seq = or_else(w.seq, c.context)
    at_most("seq", seq, "context", c.context)
    s = 1 if w.mode == "decode" else seq
    sizes = {"b": w.batch, "d": c.d_model, "v": c.vocab, "r": 1, "p": c.context}
    sound = 0 if w.mode == "decode" else c.frames * FRAME_S
    nodes = _nodes(c, w, seq, s)
    return model("whisper", c, w, nodes, sizes, samples=w.batch, tokens=w.batch * s, sound=sound, seq=seq)


def _nodes(c: Config, w: Workload, seq: Size, s: Size) -> Iterator[Node]:
    # Decode mode does not run the encoder, but its weights are in memory.
    b, places = (0, 0) if w.mode == "decode" else (w.batch, exact_div(c.frames, 2))
    d_ff = or_else(c.d_ff, 4 * c.d_model)
    yield from sized(_encoder(c, w.mode), **_heads(c, c.heads), f=d_ff, b=b, s=places, t=places)
    if c.head == "classifier":
        yield from sized(_classifier(c, w.mode), s=places)
        return
    heads, d_ff = or_else(c.decoder_heads, c.heads), or_else(c.decoder_d_ff, d_ff)
    yield from sized(_decoder(c, w.mode, seq), **_heads(c, heads), f=d_ff, s=s, t=seq)
    if w.mode == "train" and c.head == "lm":
        yield from cross_entropy("logits", states=("x", "memory"))


def _classifier(c: Config, mode: str) -> Iterator[Node]:
    """The encoder's states through a narrow layer, their mean, a label."""
    yield op("head.project", "memory: b s d, *d o, +*o -> z: b s o", o=c.projection)
    yield op("head.mean", "z: b s o -> z: b o", "mean", o=c.projection)
    yield op("head", "z: b o, *o v, +*v -> logits: b v", tag=HEAD, o=c.projection, v=c.labels)
    if mode == "train":
        yield from cross_entropy("logits")


def _heads(c: Config, heads: Size) -> dict[str, Size]:
    return {"h": heads, "k": exact_div(c.d_model, heads)}


def _layer(c: Config, mode: str) -> Layer:
    train = mode == "train"
    a = Attention(
        key_bias=False, scale=False, scale_q=True, heads_first=True, upcast=False,
        dropout=train and c.attention_dropout > 0,
    )  # fmt: skip
    if not train:
        return Layer(a, c.activation)
    return Layer(a, c.activation, dropout=c.dropout, inner_dropout=c.activation_dropout)


def _encoder(c: Config, mode: str) -> Iterator[Node]:
    places = exact_div(c.frames, 2)
    wide: dict[str, Size] = {"c": c.mels, "y": c.frames, "y+l": c.frames, "l": 3}
    half: dict[str, Size] = {"c": c.d_model, "y": places, "y+l": c.frames, "l": 3}
    yield op("encoder.conv1", "!mel: b c y+l, *d c l, +*d -> memory: b d y", **wide)
    yield op("encoder.gelu1", "memory: b d y -> memory:", "gelu", **wide)
    yield op("encoder.conv2", "memory: b c y+l, *d c l, +*d -> memory: b d y", **half)
    yield op("encoder.gelu2", "memory: b d y -> memory:", "gelu", **half)
    yield op("encoder.sinusoids", "!frames/int64: s, *~y d -> sinusoids: s d", "frozen_gather", y=places)
    yield op("encoder.positions", "memory: b s d, sinusoids: s d -> memory: b s d", "add")
    yield from dropout("encoder.positions", c.dropout, mode, "memory")
    yield encoder("encoder.layers", _layer(c, mode), c.encoder_layers, x="memory")
    yield norm("encoder.norm", "layer_norm", "memory", "memory")


def _decoder(c: Config, mode: str, seq: Size) -> Iterator[Node]:
    yield op("decoder.embed", "!ids/int64: b s, *embed: ~v d -> x: b s d", "gather", EMBED)
    yield op("decoder.table", "*p d -> places: s d", "slice")
    yield op("decoder.positions", "x: b s d, places: s d -> x: b s d", "add")
    yield from dropout("decoder.positions", c.dropout, mode, "x")
    yield causal_mask()
    count = or_else(c.decoder_layers, c.encoder_layers)
    yield decoder("decoder.layers", _layer(c, mode), count, mode, keys=seq, memory=exact_div(c.frames, 2))
    yield norm("decoder.norm", "layer_norm", "x", "x")
    if c.head == "lm":
        yield op("head", f"x: b s d, *{'embed: ' if c.tied else ''}v d -> logits: b s v", tag=HEAD)
