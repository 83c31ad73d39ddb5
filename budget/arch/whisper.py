"""Whisper: a mel spectrogram through two convolutions and an encoder, and a decoder of text."""

from __future__ import annotations

from collections.abc import Iterator

from ..config import Settings, Workload, at_most, divides, setting
from ..ir import EMBED, HEAD, Model, Node, model, op
from ..size import Size, exact_div, or_else
from . import audio_encoder
from ._attention import causal_mask
from ._layers import ACTIVATION_DROPOUT, ATTENTION_DROPOUT, DROPOUT, dropout, norm, sized
from ._loss import cross_entropy
from ._stacks import decoder
from .audio_encoder import ACTIVATIONS, FRAMES, check_frames

TAKES = ("batch", "seq")
MODES = ("train", "forward", "prefill", "decode")

HEADS = ("lm", "none", "classifier")


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
    dropout: float = DROPOUT
    attention_dropout: float = ATTENTION_DROPOUT
    activation_dropout: float = ACTIVATION_DROPOUT

    def __post_init__(self) -> None:
        divides("heads", self.heads, "d_model", self.d_model)
        divides("decoder_heads", or_else(self.decoder_heads, 1), "d_model", self.d_model)
        check_frames(self.frames)


def build(c: Config, w: Workload) -> Model:
    """Spectrograms [b, c, frames] and tokens [b, s] to logits [b, s, v].

    Decode mode makes one token per text: the encoder has run, its keys and values are cached.
    """
    seq = or_else(w.seq, c.context)
    at_most("seq", seq, "context", c.context)
    s = 1 if w.mode == "decode" else seq
    sizes = {"b": w.batch, "d": c.d_model, "v": c.vocab, "r": 1, "p": c.context}
    sound = 0 if w.mode == "decode" else c.frames / FRAMES
    nodes = _nodes(c, w, seq, s)
    return model("whisper", c, w, nodes, sizes, samples=w.batch, tokens=w.batch * s, sound=sound, seq=seq)


def _nodes(c: Config, w: Workload, seq: Size, s: Size) -> Iterator[Node]:
    # Decode mode does not run the encoder, but its weights are in memory.
    b, places = (0, 0) if w.mode == "decode" else (w.batch, exact_div(c.frames, 2))
    d_ff = or_else(c.d_ff, 4 * c.d_model)
    encoder = audio_encoder.encode(_ears(c), w.mode, "memory", "encoder.")
    yield from sized(encoder, **_heads(c, c.heads), f=d_ff, b=b, s=places, t=places)
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


def _ears(c: Config) -> audio_encoder.Config:
    """The encoder's own settings."""
    return audio_encoder.Config(
        layers=c.encoder_layers, d_model=c.d_model, heads=c.heads, d_ff=c.d_ff, mels=c.mels, frames=c.frames,
        activation=c.activation, dropout=c.dropout, attention_dropout=c.attention_dropout,
        activation_dropout=c.activation_dropout,
    )  # fmt: skip


def _decoder(c: Config, mode: str, seq: Size) -> Iterator[Node]:
    yield op("decoder.embed", "!ids/int64: b s, *embed: ~v d -> x: b s d", "gather", EMBED)
    yield op("decoder.table", "*p d -> places: s d", "slice")
    yield op("decoder.positions", "x: b s d, places: s d -> x: b s d", "add")
    yield from dropout("decoder.positions", c.dropout, mode, "x")
    yield causal_mask()
    count = or_else(c.decoder_layers, c.encoder_layers)
    layer = audio_encoder.layer(_ears(c), mode)
    yield decoder("decoder.layers", layer, count, mode, keys=seq, memory=exact_div(c.frames, 2))
    yield norm("decoder.norm", "layer_norm", "x", "x")
    if c.head == "lm":
        yield op("head", f"x: b s d, *{'embed: ' if c.tied else ''}v d -> logits: b s v", tag=HEAD)
