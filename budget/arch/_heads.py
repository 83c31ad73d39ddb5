"""Heads of a transformer, for language modelling or a task: one or two linear layers.

Source: transformers.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..ir import HEAD, Node, Op, op
from ..named import Any
from ..size import Size, is_zero, or_else
from ._layers import activate, dropout, norm
from ._loss import cross_entropy

# Heads: a language model's, a masked one's (also with one for pairs of sentences), none, or a classifier's of
# each token, of the last one, or of the pooled first one; or the projected state of one token.
HEADS = ("lm", "mlm", "mlm_pooled", "none", "tokens", "last", "pooled", "projected")


def ends(c: Any, mode: str) -> tuple[str, ...]:
    """The outputs of a network with this head: its loss in training, otherwise logits or hidden states."""
    if c.head == "none":
        return ("hx" if _narrows(c) else "x",)
    if c.head == "projected":
        return ("x", "embeds")
    end = "loss" if mode == "train" else "logits"
    return (end, f"pair.{end}") if c.head == "mlm_pooled" else (end,)


def _narrows(c: Any) -> bool:
    """Whether the layers' output is projected back to the embedding's width (OPT)."""
    masked = c.head in ("mlm", "mlm_pooled")
    return not (is_zero(c.embed_dim) or masked) and (c.head == "lm" or not c.embed_norm)


def head(c: Any, mode: str) -> Iterator[Node]:
    """From `x: b s d` to logits, and their loss in training; `c` is a transformer's Config.

    The layers' output stays in a variable of the class until its head has run.
    """
    yield from (o._replace(callers=(*o.callers, "x")) if isinstance(o, Op) else o for o in _head(c, mode))


def _head(c: Any, mode: str) -> Iterator[Node]:
    x = "x"
    masked, narrow = c.head in ("mlm", "mlm_pooled"), not is_zero(c.embed_dim)
    if c.pooler:
        yield from pooled(c.d_model, c.pooler_activation)
    if _narrows(c):
        yield op("head.project", "x: b s d, *d c -> hx: b s c")
        x = "hx"
    elif not masked:
        narrow = False
    width = "c" if narrow else "d"
    if masked:
        bias = ", +*o" if c.head_dense_bias else ""
        yield op("head.dense", f"x: b s d, *d o{bias} -> hx: b s o", o=or_else(c.embed_dim, c.d_model))
        act, x = c.head_activation or c.activation, "hx"
        yield activate("head.act", act, x, x, f" b s {width}", tag="")
        yield norm("head.norm", c.norm, x, x, bias=c.norm_bias, dim=width)
    if masked or c.head == "lm":
        yield from _logits(c, mode, width, x)
    if c.head in ("tokens", "last"):
        yield from dropout("head", c.head_dropout, mode, x, "hx")
        x = "hx" if c.head_dropout and mode == "train" else x
        if c.head_transform:
            yield op("head.dense", f"{x}: b s d, *d o, +*o -> hx: b s o", o=c.d_model)
            yield activate("head.act", c.activation, "hx", "hx", " b s d", tag="")
            x = "hx"
        yield from of_tokens(c.labels, mode, x, last=c.head == "last", bias=c.head_bias, width=width)
    if c.head in ("pooled", "mlm_pooled"):
        yield from of_pooled(c.labels, c.d_model, mode, c.head_dropout, "pair." if masked else "")
    if c.head == "projected":
        yield op("head.last", "x: b s d -> last: b d", "slice")
        bias = ", +*o" if c.head_bias else ""
        yield op("head.project", f"last: b d, *d o{bias} -> embeds: b o", o=or_else(c.projection, c.d_model))


def pooled(width: Size, activation: str = "tanh", x: str = "x") -> Iterator[Op]:
    """The first token of `x: b s d` through a dense layer of the same width: `pooled: b o`."""
    yield op("pooler.first", f"{x}: b s d -> first: b d", "slice")
    yield op("pooler.dense", "first: b d, *d o, +*o -> pooled: b o", o=width)
    yield op(f"pooler.{activation}", "pooled: -> pooled:", activation)


def of_pooled(labels: Size, width: Size, mode: str, rate: float, at: str = "") -> Iterator[Op]:
    """Labels from the pooler's output: `pooled: b o` to `{at}logits: b v`, and their loss."""
    yield from dropout(f"{at}head", rate, mode, "pooled")
    yield op(f"{at}head", f"pooled: b o, *o v, +*v -> {at}logits: b v", tag=HEAD, v=labels, o=width)
    if mode == "train":
        yield from cross_entropy(f"{at}logits", name=f"{at}loss")


def last(x: str, width: str = "d") -> Op:
    """`last: b d`, the last token of `x: b s d`: a prefill needs no other. Source: transformers."""
    return op("head.last", f"{x}: b s {width} -> last: b {width}", "slice")


def vocabulary(mode: str, *, tied: bool) -> Iterator[Op]:
    """Scores of the vocabulary, `n: b s d` to `logits: b s v`, by the embedding where they are tied; in a
    prefill those of the last token.
    """
    n, b = "n", "b s"
    if mode == "prefill":
        yield last("n")
        n, b = "last", "b"
    yield op("head", f"{n}: {b} d, *{'embed: ' if tied else ''}v d -> logits: {b} v", tag=HEAD)


def _logits(c: Any, mode: str, width: str, x: str) -> Iterator[Op]:
    """Scores of the vocabulary, from `x: b s d`."""
    weight, bias = "*wte: v" if c.tied else "*v", ", +*v" if c.head_bias else ""
    if not (c.tied or c.tied_bias):
        yield op("head.second_bias", "*v -> second: v", "resident")  # stored, and not used
    b = "b s"
    if mode == "prefill" and c.kind == "decoder":
        yield last(x, width)
        x, b = "last", "b"
    yield op("head.logits", f"{x}: {b} {width}, {weight} {width}{bias} -> logits: {b} v", tag=HEAD)
    if c.logit_scale:
        yield op("head.scale", "logits: -> logits:", "scale")
    if c.logit_softcap > 0:
        yield op("head.softcap", "logits: -> logits:", "softcap")
    if mode == "train":
        if c.kind != "decoder" or c.loss_float32:
            yield from cross_entropy("logits", upcast=c.kind == "decoder")
            return
        yield op("loss.chosen", "logits: -> chosen:", "copy")  # where no padding is (Qwen2-Audio's code)
        yield from cross_entropy("chosen", states=("x", "logits"))


def of_tokens(labels: Size, mode: str, x: str, *, last: bool, bias: bool, width: str = "d") -> Iterator[Op]:
    """Labels of each token; for labels of a sequence, those of its `last` token count."""
    added = ", +*v" if bias else ""
    yield op("head.labels", f"{x}: b s {width}, *{width} v{added} -> logits: b s v", tag=HEAD, v=labels)
    if last:
        yield op("head.last", "logits: b s v -> logits: b v", "slice", v=labels)
    if mode == "train":
        yield from cross_entropy("logits")
