"""Prefix tuning: learned keys and values before those of each layer; all else is frozen.

There are then more keys than queries, so SDPA needs its mask. In an encoder-decoder the decoder's
self-attention has the prefixes, for as many layers as the encoder has. Without peft's prefix_projection.
Source: peft.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..config import Task, setting
from ..errors import InputError
from ..ir import (
    BATCH,
    EMBED,
    INPUT,
    KEY_SEQ,
    MIX,
    SCORES,
    SEQ,
    WEIGHT,
    Block,
    Model,
    Node,
    Op,
    Tensor,
    beside,
    is_convolution,
    walk,
)
from ..size import Size
from ._beside import wide
from ._names import untrained
from ._virtual import fits, longer, sound
from .freeze import frozen

SETTINGS = {
    "prefix_tuning": setting(
        0, "learned keys and values a layer (prefix tuning); the rest is frozen", least=0
    )
}
NEEDS = {"prefix_tuning": ("train",)}
ADAPTER = {"prefix_tuning": ""}
PREFIX = "prefix"  # the letter of its keys


def prefix_tuning(model: Model, n: Size, dtype: str = "") -> Model:
    """The model with n learned keys and values in each attention, all else frozen. Raises InputError."""
    untrained(model, "prefix_tuning")
    base = frozen(model, None)
    embeds = [i for i, node in enumerate(base.nodes) if isinstance(node, Op) and node.tag == EMBED]
    if any(is_convolution(o) for o, _ in walk(base.nodes)) or not embeds:
        raise InputError("prefix_tuning", f"{model.name} reads no tokens, or has convolutions; allowed: 0")
    start = embeds[1] if len(embeds) > 1 else 0
    before, stack = base.nodes[:start], base.nodes[start:]
    layers, own = (sum(o.tag == SCORES and n for o, n in walk(nodes)) for nodes in (before, stack))
    if before and own != 2 * layers:
        problem = f"peft makes them for as many layers as the encoder has, {layers}"
        raise InputError("prefix_tuning", f"{problem}; allowed: decoders of as many")
    nodes = tuple(_with_prefix(stack, n, dtype))
    if nodes == stack:
        raise InputError("prefix_tuning", f"{model.name} has no attention; allowed: 0")
    return sound(base._replace(nodes=(*before, *nodes)), "prefix_tuning")


def _with_prefix(nodes: Sequence[Node], n: Size, dtype: str) -> Iterator[Node]:
    """Nodes whose attentions, the first one in each body, see their prefixes."""
    ops, products = _first_attention(nodes)
    seen = _keys_and_values(ops, products)
    inside = [o for o in ops if products and o.group == products[0].group]
    biases = {o.out.name: o for o in inside if o.kind == "add"}  # T5's bias of distances
    masked = {o.ins[0].name for o in inside if o.kind == "mask"}
    pending = bool(products)
    for node in nodes:
        if isinstance(node, Block):
            yield node._replace(body=tuple(_with_prefix(node.body, n, dtype)))
            continue
        if node not in ops:
            yield node
            continue
        o = longer(node, n, (KEY_SEQ,))
        if node not in inside or o.kind == "table":
            yield o
            continue
        if pending and any(t.name in seen for t in o.ins):
            pending = False
            yield from _prefix(products[0], node, seen, n, dtype)
        ins = tuple(t._replace(name=f"{t.name}~prefixed") if t.name in seen else t for t in o.ins)
        o = o._replace(ins=ins, window=o.sizes[KEY_SEQ])
        if o.kind == "mask" and o.ins[0].name in biases:
            yield from _with_bias(o, biases[o.ins[0].name])
        elif o.out.name not in biases.keys() & masked:
            yield o


def _first_attention(nodes: Sequence[Node]) -> tuple[list[Op], list[Op]]:
    """The operators up to the end of the first attention, and its two products."""
    ops = [node for node in nodes if isinstance(node, Op)]
    products = [o for o in ops if o.tag in (SCORES, MIX)][:2]
    end = ops.index(products[-1]) if products else len(ops)  # what follows is another attention
    return ops[: end + 1], products


def _keys_and_values(ops: Sequence[Op], products: Sequence[Op]) -> dict[str, Tensor]:
    """Keys and values as they are made, before they are repeated for several heads."""
    makers = {t.name: o for o in ops for t in o.outs}
    seen: dict[str, Tensor] = {}
    for o in products:
        maker = makers.get(o.ins[1].name)
        inner = maker is not None and maker.group == o.group and maker.kind != "view"
        t = maker.ins[0] if maker is not None and inner else o.ins[1]
        seen[t.name] = t._replace(dims=tuple(KEY_SEQ if d == SEQ else d for d in t.dims))
    return seen


def _with_bias(mask: Op, bias: Op) -> Iterator[Op]:
    """A mask behind its sum with a bias of distances: with a cache each sequence has a mask of its own, and
    so has the sum.
    """
    both = Tensor(f"{mask.name}~both", mask.out.dims)
    yield Op(f"{mask.name}.both", "add", (bias.ins[1], mask.ins[1]), (both,), mask.sizes)
    yield mask._replace(ins=(bias.ins[0], both))


def _prefix(scores: Op, first: Op, seen: dict[str, Tensor], n: Size, dtype: str) -> Iterator[Op]:
    """The look-up of one layer's prefix, and its concatenation with the keys and values behind it."""
    name = beside(scores, "prefix")
    keys = first.sizes[KEY_SEQ]
    sizes = {**first.sizes, PREFIX: n, "keys": keys, KEY_SEQ: keys + n, "two": 2}
    like = next(iter(seen.values()))
    wide_dims = tuple(d for d in like.dims if d not in (BATCH, KEY_SEQ))
    ids = Tensor("prefix_ids", (BATCH, PREFIX), INPUT, "int64")
    table = Tensor(f"{name}.weight", (f"~{PREFIX}", "two", *wide_dims), WEIGHT, dtype)
    rows = Tensor(f"{name}~rows", (BATCH, PREFIX, "two", *wide_dims), dtype=dtype)
    yield Op(name, "gather", (ids, table), (rows,), sizes)
    if dtype:
        yield Op(f"{name}.cast", "cast", (rows,), (rows._replace(name=f"{name}~narrow", dtype=""),), sizes)
        rows = rows._replace(name=f"{name}~narrow", dtype="")
    parts = tuple(
        Tensor(f"{t.name}~prefix", tuple(PREFIX if d == KEY_SEQ else d for d in t.dims))
        for t in seen.values()
    )
    yield Op(f"{name}.split", "split", (rows,), parts, sizes)
    for part, t in zip(parts, seen.values(), strict=True):
        own = t._replace(dims=tuple("keys" if d == KEY_SEQ else d for d in t.dims))
        yield Op(f"{name}.{t.label}", "join", (part, own), (t._replace(name=f"{t.name}~prefixed"),), sizes)


def apply(model: Model, task: Task) -> Model:
    """The model with its prefixes."""
    n = task.techniques.prefix_tuning
    fits(model, "prefix_tuning", n)
    return prefix_tuning(model, n, wide(task))


STAGES = {"adapt": apply}
