"""Transformers of two stacks: T5, whose positions are relative, and BART, whose are learned."""

from __future__ import annotations

from collections.abc import Iterator

from ..config import Settings, Workload, at_most, divides, setting
from ..ir import EMBED, HEAD, Model, Node, model, op
from ..size import Size, exact_div, is_zero, minimum, or_else
from ._attention import Attention, causal_mask
from ._layers import norm, sized
from ._loss import cross_entropy
from ._stacks import Layer, decoder, encoder

TAKES = ("batch", "seq")
MODES = ("train", "forward", "prefill", "decode")

ACTIVATIONS = ("relu", "gelu", "gelu_new", "silu")


class Config(Settings):
    """T5-small; source and target are equally long."""

    encoder_layers: int = setting(6, "layers of the encoder")
    decoder_layers: int = setting(0, "layers of the decoder; 0: as many", least=0)
    d_model: int = setting(512, "width of the residual stream")
    heads: int = setting(8, "attention heads of the encoder")
    decoder_heads: int = setting(0, "attention heads of the decoder; 0: as many", least=0)
    head_dim: int = setting(0, "width of a head; 0: d_model / heads", least=0)
    d_ff: int = setting(2048, "hidden width of the encoder's MLPs")
    decoder_d_ff: int = setting(0, "hidden width of the decoder's MLPs; 0: the same", least=0)
    vocab: int = setting(32128, "tokens")
    context: int = setting(512, "longest sequence of learned positions; the default length")
    positions: str = setting(
        "relative", "added to the scores, or to the embedding", choices=("relative", "learned")
    )
    buckets: int = setting(32, "relative positions: distances that are told apart")
    position_offset: int = setting(0, "learned positions: rows that no position uses (BART: 2)", least=0)
    norm: str = setting("rms_norm_keep", "kind of all norms", choices=("rms_norm_keep", "layer_norm"))
    residual: str = setting(
        "pre", "norms before the parts or behind their additions", choices=("pre", "post")
    )
    embed_norm: bool = setting(False, "a norm behind the embeddings (BART)")
    embed_scale: bool = setting(False, "embeddings are multiplied by a constant")
    activation: str = setting("relu", "of the MLPs", choices=ACTIVATIONS)
    gated: bool = setting(False, "MLPs multiply two projections, one of them activated (T5 1.1)")
    bias: bool = setting(False, "linear layers have a bias")
    scale_scores: bool = setting(False, "scores are divided by the root of head_dim")
    tied: bool = setting(True, "the head's weight is the embedding's")
    head_scale: bool = setting(True, "what the head reads is multiplied by a constant (T5 1.0)")
    head_bias: bool = setting(False, "a constant is added to the logits (BART)")

    def __post_init__(self) -> None:
        if is_zero(self.head_dim):
            divides("heads", self.heads, "d_model", self.d_model)
            divides("decoder_heads", or_else(self.decoder_heads, 1), "d_model", self.d_model)


def build(c: Config, w: Workload) -> Model:
    """Source tokens [b, t] and target tokens [b, s] to logits [b, s, v].

    Decode makes one token of each sequence: the encoder has run, its keys and values are cached.
    """
    seq = or_else(w.seq, minimum(c.context, 1024))
    if c.positions == "learned":
        at_most("seq", seq, "context", c.context)
    s = 1 if w.mode == "decode" else seq
    sizes = {"b": w.batch, "d": c.d_model, "v": c.vocab, "r": 1, "p": c.context + c.position_offset}
    return model("encoder_decoder", c, w, _nodes(c, w, seq, s), sizes, samples=w.batch, tokens=w.batch * s)


def _nodes(c: Config, w: Workload, seq: Size, s: Size) -> Iterator[Node]:
    # Where nothing runs in the encoder, its weights are there all the same.
    length = 0 if w.mode == "decode" else seq
    yield from sized(_encoder(c), **_heads(c, c.heads), f=c.d_ff, s=length, t=length)
    heads, d_ff = or_else(c.decoder_heads, c.heads), or_else(c.decoder_d_ff, c.d_ff)
    yield from sized(_decoder(c, w.mode, seq), **_heads(c, heads), f=d_ff, s=s, t=seq)
    if w.mode == "train":
        yield from cross_entropy("logits")


def _heads(c: Config, heads: Size) -> dict[str, Size]:
    return {"h": heads, "k": or_else(c.head_dim, exact_div(c.d_model, heads))}


def _layer(c: Config, position: str) -> Layer:
    a = Attention(
        bias=c.bias,
        out_bias=c.bias,
        scale=c.scale_scores,
        position=f"{position}: h r s t" if c.positions == "relative" else "",
        upcast=False,
    )
    return Layer(a, c.activation, c.norm, c.residual == "pre", c.gated, c.bias)


def _encoder(c: Config) -> Iterator[Node]:
    yield from _embedding(c, "encoder", "source", "memory")
    yield encoder("encoder.layers", _layer(c, "relative"), c.encoder_layers, x="memory")
    if c.residual == "pre":
        yield norm("encoder.norm", c.norm, "memory", "memory")


def _decoder(c: Config, mode: str, seq: Size) -> Iterator[Node]:
    yield from _embedding(c, "decoder", "target", "x")
    yield causal_mask()
    layer, cross = _layer(c, "relative"), _layer(c, "!zeros").attention
    count = or_else(c.decoder_layers, c.encoder_layers)
    yield decoder("decoder.layers", layer, count, mode, keys=seq, memory=seq, cross=cross)
    if c.residual == "pre":
        yield norm("decoder.norm", c.norm, "x", "x")
    if c.head_scale:
        yield op("head.scale", "x: -> x:", "scale")
    yield op("head", f"x: b s d, *{'embed: ' if c.tied else ''}v d -> logits: b s v", tag=HEAD)
    if c.head_bias:
        yield op("head.bias", "logits:, !head_bias: v -> logits:", "add")


def _embedding(c: Config, part: str, ids: str, x: str) -> Iterator[Node]:
    """Tokens share one table; positions are looked up here, or as distances for all layers of the stack."""
    yield op(f"{part}.embed", f"!{ids}/int64: b s, *embed: ~v d -> {x}: b s d", "gather", EMBED)
    if c.embed_scale:
        yield op(f"{part}.embed_scale", f"{x}: -> {x}:", "scale")
    if c.positions == "relative":
        spec = f"!{part}_distances/int64: s t, *~p h r -> relative: h r s t"
        yield op(f"{part}.relative", spec, "gather", p=c.buckets)
    else:
        yield op(f"{part}.positions", f"!{part}_positions/int64: b s, *~p d -> places: b s d", "gather")
        yield op(f"{part}.embed_add", f"{x}:, places: -> {x}:", "add")
    if c.embed_norm:
        yield norm(f"{part}.embed_norm", c.norm, x, x)
