"""What memory needs of each operator: the tensors that it reads and writes, and their bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..dtype import BYTES
from ..ir import (
    ACTIVATION,
    CACHE,
    COPY,
    FIRST,
    HOST,
    INPUT,
    ONCE,
    SAVED,
    STATE,
    TRANSPOSED,
    WEIGHT,
    WEIGHTS,
    Block,
    Node,
    Op,
    Rule,
    Tensor,
    elements,
)
from ..named import NamedTuple
from ..size import Size, ceil_div, maximum

# What a program holds, by kind; `host` is not on the device and not in the total.
KINDS = ("inputs", "parameters", "gradients", "optimizer", "activations", "temporaries", "kv_cache")
COPIES = "copies"  # of weights, activations that all micro-batches in flight share
_KIND = {WEIGHT: "gradients", CACHE: "kv_cache"}


def tensor_bytes(t: Tensor, sizes: Mapping[str, Size], dtype: str) -> Size:
    """Bytes of a tensor; an unnamed dtype is the model's own."""
    size = BYTES[t.dtype or dtype]
    n = elements(t, sizes)
    return n * size if isinstance(size, int) else ceil_div(n * int(size * 2**20), 2**20)


class Step(NamedTuple):
    """An operator, with what is the same each time that it runs."""

    op: Op
    reads: Sequence[str]
    inputs: Sequence[tuple[str, Size]]  # with their bytes
    writes: Sequence[tuple[str, str, str, Size]]  # name, the input whose storage it is, kind, bytes
    extra: Size  # bytes of temporaries
    let_go: str  # the gradient that it frees before it has the most alive, if any


class Repeat(NamedTuple):
    """A block with the steps of its body."""

    block: Block
    steps: tuple[Step | Repeat, ...]


def steps(nodes: Iterable[Node], dtype: str) -> tuple[Step | Repeat, ...]:
    """The steps of nodes."""
    return tuple(
        [Repeat(n, steps(n.body, dtype)) if isinstance(n, Block) else _step(n, dtype) for n in nodes]
    )


def _step(o: Op, dtype: str) -> Step:
    rule, forward = o.rule, o.phase == "forward"
    usual = (COPIES if o.tag in (ONCE, FIRST) else "activations") if forward else "temporaries"
    writes = []
    for t in o.outs:
        shared = _shares(o, rule, t, dtype)
        if shared or t.role not in (STATE, HOST):
            # A view of a weight is where the weight is.
            there = t.on_chip or (rule.view and any(u.name == shared and u.role in WEIGHTS for u in o.ins))
            size = 0 if there else tensor_bytes(t, o.sizes, dtype)
            writes.append((t.name, shared, _KIND.get(t.role, usual), size))
    extra = sum((tensor_bytes(t, o.sizes, dtype) for t in o.temporaries), 0) if rule.temps else 0
    if rule.upcasts and (forward or o.again) and not o.out.on_chip:
        extra += _widened(o, dtype)
    if rule.most != (0, 0) and (forward or o.again):
        own, single = rule.most
        made = sum((size for _, shared, _, size in writes if not shared), 0)
        copies = 0 if (o.out.dtype or dtype) == "float32" else single
        extra += maximum(0, _most(o, (own, copies), dtype) - made)
    let_go = ""
    if rule.back_most != (0, 0) and o.phase == "backward" and not o.again and o.out.role != WEIGHT:
        extra, let_go = _beyond(o, dtype), o.ins[0].name
    reads, inputs = [], []
    for t in o.ins:
        if t.part or t.role not in WEIGHTS:  # these are there all the time; gradients and copies are not
            reads.append(t.name)
        if t.role == INPUT:
            inputs.append((t.name, tensor_bytes(t, o.sizes, dtype)))
    return Step(o, (*reads, *o.holds, *o.callers), inputs, writes, extra, let_go)


def _widened(o: Op, dtype: str) -> Size:
    """Bytes of the copy of an operator's input in its output's dtype; for float16 no copy is made.

    Source: torch-softmax.
    """
    own, out = (t.dtype or dtype for t in (o.ins[0], o.out))
    return 0 if own in (out, "float16") else tensor_bytes(o.out, o.sizes, dtype)


def _beyond(o: Op, dtype: str) -> Size:
    """The most bytes that a backward operator holds at once, beyond its results and its inputs other than the
    incoming gradient: Rule.back_most.
    """
    seen = (t for t in (*o.ins[1:], *o.outs) if t.role == ACTIVATION)
    most = _most(o, o.rule.back_most, dtype)
    return maximum(0, most - sum(tensor_bytes(t, o.sizes, dtype) for t in seen))


def _most(o: Op, tensors: tuple[float, float], dtype: str) -> Size:
    """Bytes of so many tensors of its output's size, in its own dtype and in float32."""
    own, single = tensors
    width = own * BYTES[o.out.dtype or dtype] + single * BYTES["float32"]
    return int(width) * elements(o.out, o.sizes)


def _shares(o: Op, rule: Rule, t: Tensor, dtype: str) -> str:
    """The input whose storage an output shares, if any: for a view, an update in place, or a cast or copy to
    the same dtype, unless a kernel writes a tensor that was on chip.
    """
    if t.part in (SAVED, TRANSPOSED):
        return ""
    if t.part == COPY:
        casts = t.of == o.ins[0].name
    elif rule.updates:
        return o.ins[-1].name
    elif (rule.view and o.ins) or rule.inplace:
        return o.ins[0].name
    else:
        casts = rule.casts and (t.on_chip or not o.ins[0].on_chip)
    return o.ins[0].name if casts and (t.dtype or dtype) == (o.ins[0].dtype or dtype) else ""
