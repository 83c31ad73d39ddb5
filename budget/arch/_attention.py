"""Attention as transformers' eager code runs it, from the projections to the output.

The operators from the scores to the mix form the group "attention": a fused kernel keeps tensors that only
they read on the chip.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..ir import KEY, MERGE, MIX, OUTPUT, QKV, QUERY, SCORES, VALUE, Op, Tensor, op
from ..named import NamedTuple
from ..size import Size, is_number, minimum
from ._layers import norm

DISTANCES = 11, 0  # kernels of buckets by the logarithm, besides a table's. Source: transformers (T5)


class Attention(NamedTuple):
    """The variant of attention. The defaults are those of Vaswani et al., without a mask."""

    bias: bool = True  # of the projections to queries, keys and values
    key_bias: bool = True  # False: only queries and values have one (Whisper)
    out_bias: bool = True
    fused: bool = False  # queries, keys and values are one projection, and views of its output
    heads_per_key: Size = 1  # query heads that share a key-value head; eager code repeats keys and values
    broadcast: bool = False  # keys and values are broadcast by the products, not repeated (Falcon)
    norm: str = ""  # kind of the norm of queries and keys over head_dim
    norm_last: bool = False  # these norms come behind the rotation, not before it
    norm_heads: bool = False  # with weights of each head's own and no bias, not weights that all heads share
    value_norm: str = ""  # kind of a norm of values over head_dim
    rope: bool = False  # rotates queries and keys by the tensors cos and sin (see `rotary`)
    rope_part: bool = False  # only a part of each head
    rope_apart: bool = False  # rotated and other parts stay in variables of the layer's code (Phi)
    rope_float32: bool = False  # in float32
    cosine: bool = (
        False  # queries and keys are normalized to length 1; each head learns the scale of its scores
    )
    scale: bool = True  # the scores, by 1 / sqrt(head_dim), unless `cosine`
    scale_q: bool = False  # the queries
    scale_k: bool = False  # the keys, by a constant of their own (Falcon-H1)
    heads_first: bool = False  # queries are laid out by heads once scaled (Whisper) or partly rotated
    softcap: bool = False
    position: str = ""  # a tensor added to the scores: "alibi: h r t", "relative: h r s t"
    mask: str = ""  # a tensor added to the scores (see `causal_mask`)
    causal: bool = True  # with a mask: a query sees no later position
    sinks: bool = False  # each head has a learned score that only takes part in the softmax
    upcast: bool = True  # softmax in float32, cast back behind it
    gate: bool = False  # the projection to queries also makes gates, which multiply the mixed values
    dropout: bool = False  # dropout of the attention weights, whose mask only eager code keeps
    # windows of a sample, of all samples, and tokens of each: a query sees its own window alone
    windows: tuple[tuple[Size, Size, Size], ...] = ()
    source: str = "d"  # the dimension from which keys and values are projected


def rotary(dim: str = "k") -> Op:
    """The cosines and sines of all positions, made once for all layers."""
    return op("rotary", f"!positions/int64: s -> cos: s {dim}, sin: s {dim}", "table")


def alibi() -> Op:
    """Penalties that grow with a key's distance, a slope for each head; made once for all layers."""
    return op("alibi", "!positions/int64: s -> alibi: h r t", "table")


def mask_name(window: int) -> str:
    """The mask that layers of a window share."""
    return f"mask{window}" if window else "mask"


def distances(name: str, letter: str, buckets: Size) -> Iterator[Op]:
    """The bias of each head's scores by the distance of two positions: `relative: h r s t`."""
    made = f"{name}_distances"
    yield op(made, f"!{name}_positions: s -> {made}/int64: s t", "table")._replace(beside=DISTANCES)
    yield op(name, f"{made}: s t, *~{letter} h r -> relative: h r s t", "gather", **{letter: buckets})


def window_masks(windows: Iterable[int], mode: str, seq: Size) -> Iterator[Op]:
    """A mask for the layers of each window, whose cache holds no more keys than it."""
    for window in sorted(set(windows)):
        short = {"t": minimum(seq, window)} if window and mode == "decode" else {}
        yield causal_mask(mask_name(window), **short)


def causal_mask(name: str = "mask", **sizes: Size) -> Op:
    """The mask that eager code adds to the scores, made once for all layers (of one window)."""
    line = f"!positions/int64: s -> {name}: b s t"
    return op(name, line, "table", **sizes)._replace(group="attention")


def window_mask(*, beside: int = 0) -> Iterator[Op]:
    """An encoder's mask of a window around each query, made of distances. beside: kernels of other masks."""
    yield op("mask.difference", "!positions/int64: s -> difference/int64: s t", "pointwise")
    yield op("mask.distance", "difference: -> distance/int64: s t", "pointwise")
    mask = op("mask", "distance: s t -> mask: b s t", "table")
    yield mask._replace(group="attention", beside=(beside, 0))


def attention(
    name: str,
    a: Attention,
    mode: str,
    *,
    x: str = "n",
    memory: str = "",
    out: str = "a",
    cached: Size = None,
    window: Size = 0,
) -> Iterator[Op]:
    """Attention from `x: b s d` to `out: b s d`; keys and values are projected from `memory: b t d`, or x.

    `cached` is the number of keys in the cache if it is not t; a query sees `window` of them (0: all).
    In decode mode an encoder's memory is in the cache already, so nothing is projected.
    """
    yield from _project(name, a, mode, x, memory)
    length = _length(memory, mode)
    if a.norm and not a.norm_last:
        yield from _norms(name, a)
    if a.value_norm:
        yield norm(f"{name}.v_norm", a.value_norm, "v", "v", dim="k")
    if a.cosine:
        yield op(f"{name}.q_unit", "q: -> q:", "unit")
        yield op(f"{name}.k_unit", "k: -> k:", "unit")
    layout = " b h r s k" if a.heads_first else ""
    if a.scale_q:
        scaled = op(f"{name}.q_scale", f"q: -> q:{layout}", "scale")
        yield _copying(scaled, "" if memory and mode == "decode" else length) if a.heads_first else scaled
    if a.scale_k:
        yield op(f"{name}.k_scale", "k: -> k:", "scale")
    if a.rope:
        yield from _rotate(name, a, layout)
    if a.norm and a.norm_last:
        yield from _norms(name, a)
    sizes: dict[str, Size] = {} if cached is None else {"t": cached}
    none: dict[str, Size] = {length: 0} if memory and mode == "decode" else {}
    made = f"b {length} h k"
    yield from cache(name, mode, ("k", made, "b t h k"), ("v", made, "b t h k"), **sizes, **none)
    if a.windows:
        yield from _in_windows(name, a)
    elif mode == "decode":
        yield from mix(name, a, **sizes)
    else:
        yield from mix(name, a, window=window)
    if a.gate:
        yield op(f"{name}.sigmoid", "gate: -> sg:", "sigmoid")
        yield op(f"{name}.gated", "y: b s h r k, sg: b s h r k -> y:", "mul")
    out_bias = ", +*d" if a.out_bias else ""
    last = op(f"{name}.o", f"y: b s h r k, *h r k d{out_bias} -> {out}: b s d", tag=OUTPUT)
    yield last._replace(callers=(x, "q", "k", "v", "p", *(PASSED if a.rope_apart else ())))


def _norms(name: str, a: Attention) -> Iterator[Op]:
    """The norms of queries and of keys."""
    q, k = ("h r k", "h k") if a.norm_heads else ("k", "k")
    yield norm(f"{name}.q_norm", a.norm, "q", "q", bias=not a.norm_heads, dim=q)
    yield norm(f"{name}.k_norm", a.norm, "k", "k", bias=not a.norm_heads, dim=k)


def _copying(o: Op, length: str) -> Op:
    """The operator with the copies that lay out queries, and keys and values if there are any, by heads
    (Whisper's code).
    """
    made = [("b", "s", "h", "r", "k"), *[("b", length, "h", "k") for _ in range(2) if length]]
    return o._replace(copies=(tuple(Tensor("by heads", dims) for dims in made), ()))


PASSED = ("q_whole", "k_whole", "q_rotated", "k_rotated")


def _rotate(name: str, a: Attention, layout: str) -> Iterator[Op]:
    """Queries and keys by their positions."""
    rope = "rope_part" if a.rope_part else "rope_float32" if a.rope_float32 else "rope"
    casts = (2, 2) if a.rope_float32 and a.rope_part else (0, 0)
    q_part, k_part = "", ""
    if a.rope_apart and a.rope_part:
        yield op(f"{name}.q_whole", "q: -> q_whole:", "view")
        yield op(f"{name}.k_whole", "k: -> k_whole:", "view")
        q_part, k_part = ", q_rotated: b s h r m", ", k_rotated: b s h m"
    yield op(f"{name}.q_rope", f"q:, cos:, sin: -> q:{layout}{q_part}", rope)._replace(beside=casts)
    yield op(f"{name}.k_rope", f"k:, cos:, sin: -> k:{k_part}", rope)._replace(beside=casts)


def _in_windows(name: str, a: Attention) -> Iterator[Op]:
    """Attention within windows, all of one size at once: tokens lie in the order of their windows."""
    tokens: dict[str, Size] = {f"p{i}": each for i, (_, _, each) in enumerate(a.windows)}
    dims = {"q": "h r k", "k": "h k", "v": "h k"}
    for t, rest in dims.items():
        parts = ", ".join(f"{t}{i}: {w} {p} {rest}" for i, (w, p) in enumerate(_numbered(a)))
        yield op(f"{name}.{t}_windows", f"{t}: b s {rest} -> {parts}", "split", **tokens, **_counts(a))
    for i, (_, every, each) in enumerate(a.windows):
        sizes: dict[str, Size] = {"b": every, "s": each, "t": each}
        for t, rest in dims.items():
            own = f"b {'s' if t == 'q' else 't'} {rest}"
            yield op(f"{name}.{t}{i}", f"{t}{i}: {own} -> {t}: {own}", "view", **sizes)
        for o in mix(f"{name}.window{i}", a):
            yield o._replace(sizes={**sizes, **o.sizes})
        yield op(f"{name}.y{i}", f"y: b s h r k -> y{i}: b s h r k", "view", **sizes)
    parts = ", ".join(f"y{i}: {w} {p} h r k" for i, (w, p) in enumerate(_numbered(a)))
    yield op(f"{name}.join", f"{parts} -> y: b s h r k", "cat", **tokens, **_counts(a))


def _numbered(a: Attention) -> list[tuple[str, str]]:
    """Names of the axes of windows and of their tokens, by size."""
    return [(f"b.w{i}", f"p{i}") for i in range(len(a.windows))]


def _counts(a: Attention) -> dict[str, Size]:
    return {f"w{i}": count for i, (count, _, _) in enumerate(a.windows)}


def _project(name: str, a: Attention, mode: str, x: str, memory: str) -> Iterator[Op]:
    if a.fused:
        bias = ", +*h j k" if a.bias else ""
        yield op(
            f"{name}.qkv", f"{x}: b s d, *d h j k{bias} -> qkv: b s h j k", tag=QKV, j=a.heads_per_key + 2
        )
        yield op(f"{name}.split", "qkv: -> q: b s h r k, k: b s h k, v: b s h k", "view")
        return
    length = _length(memory, mode)
    source, wide = f"{memory or x}: b {length} {a.source}", a.source
    none: dict[str, Size] = {length: 0} if memory and mode == "decode" else {}
    k_bias, v_bias = ", +*h k" if a.bias and a.key_bias else "", ", +*h k" if a.bias else ""
    q_bias = ", +*h r k" if a.bias else ""
    if a.gate:
        bias = ", +*h r j k" if a.bias else ""
        yield op(f"{name}.q", f"{x}: b s d, *d h r j k{bias} -> qg: b s h r j k", tag=QUERY, j=2)
        yield op(f"{name}.q_split", "qg: b s h r j k -> q: b s h r k, gate: b s h r k", "split", j=2)
        yield op(f"{name}.gate_copy", "gate: -> gate:", "copy")
    else:
        yield op(f"{name}.q", f"{x}: b s d, *d h r k{q_bias} -> q: b s h r k", tag=QUERY)
    yield op(f"{name}.k", f"{source}, *{wide} h k{k_bias} -> k: b {length} h k", tag=KEY, **none)
    yield op(f"{name}.v", f"{source}, *{wide} h k{v_bias} -> v: b {length} h k", tag=VALUE, **none)


def _length(memory: str, mode: str) -> str:
    """The sequence dimension of keys and values as they are projected; once in the cache it is t."""
    return ("n" if mode == "decode" else "t") if memory else "s"


def cache(name: str, mode: str, *tensors: tuple[str, str, str], **sizes: Size) -> Iterator[Op]:
    """Append tensors (name, dims, dims in the cache) to a cache; decode mode goes on with the whole of it."""
    if mode not in ("prefill", "decode"):
        return
    for tensor, dims, whole in tensors:
        stored = tensor if mode == "decode" else f"{tensor}_cache"
        yield op(f"{name}.{tensor}_cache", f"{tensor}: {dims} -> %{stored}: {whole}", "cache", **sizes)


def mix(name: str, a: Attention, *, value: str = "k", window: Size = 0, **sizes: Size) -> Iterator[Op]:
    """From `q: b s h r k`, `k: b t h k` and `v: b t h {value}` to `y: b s h r {value}`.

    A query sees `window` positions, 0: all.
    """
    for o in _mix(name, a, value, sizes):
        yield o._replace(group="attention", window=window, causal=a.causal and bool(a.mask))


def _mix(name: str, a: Attention, v: str, sizes: dict[str, Size]) -> Iterator[Op]:
    keys, values = "k: b t h k", f"v: b t h {v}"
    repeat = "broadcast" if a.broadcast else "repeat"
    if not (is_number(a.heads_per_key) and a.heads_per_key == 1):
        # Keys and values that are broadcast are made by indexing, and so are copied (Falcon's code).
        k = op(f"{name}.k_repeat", f"{keys} -> kr: b t h r k", repeat, **sizes)
        yield k._replace(beside=(3, 6) if a.broadcast else (0, 0))
        yield op(f"{name}.v_repeat", f"{values} -> vr: b t h r {v}", repeat, **sizes)
        keys, values = "kr: b t h r k", f"vr: b t h r {v}"
    queries = "q: b h r s k" if a.heads_first else "q: b s h r k"
    yield op(f"{name}.scores", f"{queries}, {keys} -> w: b h r s t", tag=SCORES, **sizes)
    if a.cosine:
        yield op(f"{name}.scale", "w:, *h r -> w:", "mul")
    elif a.scale:
        yield op(f"{name}.scale", "w: -> w:", "scale")
    if a.softcap:
        yield op(f"{name}.softcap", "w: -> w:", "softcap")
    if a.position:
        yield op(f"{name}.position", f"w:, {a.position} -> w:", "add")
    if a.mask:
        yield op(f"{name}.mask", f"w:, {a.mask}: -> w:", "mask")
    if a.sinks:
        yield op(f"{name}.softmax", "w:, *h r -> p:", "softmax_sink")
    elif a.upcast:
        yield op(f"{name}.softmax", "w: -> p32/float32:", "softmax")
        yield op(f"{name}.downcast", "p32: -> p:", "cast")
    else:
        yield op(f"{name}.softmax", "w: -> p:", "softmax")
    if a.dropout:
        yield op(f"{name}.drop_weights", "p: -> p:", "dropout")
    yield op(f"{name}.mix", f"p:, {values} -> o: b h r s {v}", tag=MIX, **sizes)
    yield op(f"{name}.merge", f"o: b h r s {v} -> y: b s h r {v}", "copy", MERGE, **sizes)
