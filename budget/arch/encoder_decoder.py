"""Encoder-decoder transformers: T5 with relative positions, BART with learned ones."""

from __future__ import annotations

from collections.abc import Iterator

from ..config import Settings, Workload, at_most, divides, setting
from ..errors import InputError, wrong
from ..ir import EMBED, HEAD, Block, Model, Node, model, op
from ..size import Size, exact_div, is_zero, minimum, or_else
from ._attention import Attention, causal_mask, distances
from ._heads import of_pooled, pooled
from ._layers import ACTIVATION_DROPOUT, ACTIVATIONS, ATTENTION_DROPOUT, DROPOUT, dropout, norm, sized
from ._loss import cross_entropy
from ._stacks import Layer, decoder, encoder

TAKES = ("batch", "seq")
MODES = ("train", "forward", "prefill", "decode")

HEADS = ("lm", "none", "tokens", "pooled")  # a classifier's: of each token; of one pooled token of a sequence


class Config(Settings):
    """T5-small."""

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
    source_seq: int = setting(
        0, "tokens of the source, where they are not as many as the target's (seq)", least=0
    )
    positions: str = setting(
        "relative",
        "added to the scores, or to the embedding: learned, a table that does not train, or computed",
        choices=("relative", "learned", "sinusoidal", "computed"),
    )
    buckets: int = setting(32, "relative positions: distances that are told apart")
    relative_each: bool = setting(False, "relative positions: each layer has a table of its own (UMT5)")
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
    part: str = setting("both", "which stacks there are", choices=("both", "encoder"))
    tables: int = setting(
        1, "tables of embeddings: 1: shared, 2: one for each stack, 3: and one that nothing uses (BART)"
    )
    head: str = setting("lm", "a language model's, none, or a classifier's", choices=HEADS)
    labels: int = setting(2, "outputs of a classifier", least=0)
    tied: bool = setting(True, "the head's weight is the embedding's")
    head_scale: bool = setting(True, "what the head reads is multiplied by a constant (T5 1.0)")
    head_bias: bool = setting(False, "a constant is added to the logits (BART)")
    dropout: float = DROPOUT
    attention_dropout: float = ATTENTION_DROPOUT
    activation_dropout: float = ACTIVATION_DROPOUT
    head_dropout: float = setting(
        0.0, "training: part of a classifier's input that is dropped", least=0, most=1
    )

    def __post_init__(self) -> None:
        if is_zero(self.head_dim):
            divides("heads", self.heads, "d_model", self.d_model)
            divides("decoder_heads", or_else(self.decoder_heads, 1), "d_model", self.d_model)
        if self.tables > 3:
            raise wrong("tables", self.tables, "1, 2, 3")
        if self.part == "encoder" and self.head not in ("none", "tokens"):
            raise InputError("head", f"got {self.head}; allowed for an encoder: none, tokens")
        if self.part == "encoder" and not is_zero(self.source_seq):
            raise InputError(
                "source_seq", f"got {self.source_seq}; allowed for an encoder: 0, its length is seq"
            )


def build(c: Config, w: Workload) -> Model:
    """Source tokens [b, t] and target tokens [b, s] to logits [b, s, v].

    Decode mode makes one token per sequence: the encoder has run, its keys and values are cached.
    """
    if c.part == "encoder" and w.mode == "decode":
        raise InputError("mode", "got decode; allowed for an encoder: train, forward, prefill")
    seq = or_else(w.seq, minimum(c.context, 1024))
    if c.positions != "relative":
        at_most("seq", seq, "context", c.context)
        at_most("source_seq", c.source_seq, "context", c.context)
    s = 1 if w.mode == "decode" else seq
    sizes = {"b": w.batch, "d": c.d_model, "v": c.vocab, "r": 1, "p": c.context + c.position_offset}
    nodes = _nodes(c, w, seq, s)
    return model("encoder_decoder", c, w, nodes, sizes, samples=w.batch, tokens=w.batch * s, seq=seq)


def _nodes(c: Config, w: Workload, seq: Size, s: Size) -> Iterator[Node]:
    # Decode mode does not run the encoder, but its weights are in memory.
    source = or_else(c.source_seq, seq)
    length = 0 if w.mode == "decode" else source
    if c.tables == 3:
        yield op("spare", "*v d -> spare: v d", "resident")
    yield from sized(_encoder(c, w.mode), **_heads(c, c.heads), f=c.d_ff, s=length, t=length)
    x = "memory"
    if c.part == "both":
        x, heads, d_ff = "x", or_else(c.decoder_heads, c.heads), or_else(c.decoder_d_ff, c.d_ff)
        yield from sized(_decoder(c, w.mode, seq, source), **_heads(c, heads), f=d_ff, s=s, t=seq)
    yield from sized(_head(c, w.mode, x), s=s)


def _heads(c: Config, heads: Size) -> dict[str, Size]:
    return {"h": heads, "k": or_else(c.head_dim, exact_div(c.d_model, heads))}


def _layer(c: Config, position: str, mode: str) -> Layer:
    a = Attention(
        bias=c.bias,
        out_bias=c.bias,
        scale=c.scale_scores,
        position=f"{position}: h r s t" if c.positions == "relative" else "",
        upcast=False,
        dropout=mode == "train" and c.attention_dropout > 0,
    )
    dropped = (c.dropout, c.activation_dropout) if mode == "train" else (0.0, 0.0)
    return Layer(a, c.activation, c.norm, c.residual == "pre", c.gated, c.bias, False, *dropped)


def _encoder(c: Config, mode: str) -> Iterator[Node]:
    yield from _embedding(c, "encoder", "source", "memory", mode)
    layers = encoder("encoder.layers", _layer(c, "relative", mode), c.encoder_layers, x="memory")
    yield _with_tables(c, "encoder", layers)
    yield from _ended(c, "encoder", "memory", mode)


def _decoder(c: Config, mode: str, seq: Size, source: Size) -> Iterator[Node]:
    yield from _embedding(c, "decoder", "target", "x", mode)
    yield causal_mask()
    layer, cross = _layer(c, "relative", mode), _layer(c, "!zeros", mode).attention
    count = or_else(c.decoder_layers, c.encoder_layers)
    layers = decoder("decoder.layers", layer, count, mode, keys=seq, memory=source, cross=cross)
    yield _with_tables(c, "decoder", layers)
    yield from _ended(c, "decoder", "x", mode)


def _ended(c: Config, stack: str, x: str, mode: str) -> Iterator[Node]:
    """The operators behind a stack's last layer."""
    if c.residual == "pre":
        yield norm(f"{stack}.norm", c.norm, x, x)
    if c.positions == "relative":
        yield from dropout(f"{stack}.norm", c.dropout, mode, x)


def _head(c: Config, mode: str, x: str) -> Iterator[Node]:
    if c.head == "pooled":
        yield from pooled(c.d_model, x=x)
        yield from of_pooled(c.labels, c.d_model, mode, c.head_dropout)
    elif c.head == "tokens":
        yield from dropout("head", c.head_dropout, mode, x)
        yield op("head.labels", f"{x}: b s d, *d v, +*v -> logits: b s v", tag=HEAD, v=c.labels)
    elif c.head == "lm":
        scaled = "scaled" if c.head_scale else "x"
        if c.head_scale:
            yield op("head.scale", "x: -> scaled:", "scale")
        yield op("head", f"{scaled}: b s d, *{'embed: ' if c.tied else ''}v d -> logits: b s v", tag=HEAD)
        if c.head_bias:
            yield op("head.bias", "logits:, !head_bias: v -> logits:", "add")
    if mode == "train" and c.head in ("lm", "tokens"):
        yield from cross_entropy("logits", states=("x", "scaled", "memory"))


def _with_tables(c: Config, part: str, layers: Block) -> Block:
    """Layers, each with its own table of distances where it has one."""
    if c.positions != "relative" or not c.relative_each:
        return layers
    return layers._replace(body=(*distances(f"{part}.relative", "p", c.buckets), *layers.body))


def _embedding(c: Config, part: str, ids: str, x: str, mode: str) -> Iterator[Node]:
    """Tokens, from one table for both stacks or not; positions are looked up here, or as distances for all
    layers of the stack.
    """
    table = "embed: " if c.tables == 1 else ""
    embed = op(f"{part}.embed", f"!{ids}/int64: b s, *{table}~v d -> {x}: b s d", "gather", EMBED)
    # Positions, and whether a mask hides any. Source: transformers (BART).
    yield embed._replace(beside=(0 if c.positions == "relative" else 4, 0))
    if c.embed_scale:
        yield op(f"{part}.embed_scale", f"{x}: -> {x}:", "scale")
    if c.positions == "relative":
        if not c.relative_each:
            yield from distances(f"{part}.relative", "p", c.buckets)
    elif c.positions == "computed":
        yield op(f"{part}.positions", f"!{part}_positions/int64: s -> places: s d", "table")
        yield op(f"{part}.embed_add", f"{x}:, places: s d -> {x}:", "add")
    else:
        kind = "gather" if c.positions == "learned" else "frozen_gather"
        yield op(f"{part}.positions", f"!{part}_positions/int64: b s, *~p d -> places: b s d", kind)
        yield op(f"{part}.embed_add", f"{x}:, places: -> {x}:", "add")
    if c.embed_norm:
        yield norm(f"{part}.embed_norm", c.norm, x, x)
    yield from dropout(f"{part}.embed", c.dropout, mode, x)
