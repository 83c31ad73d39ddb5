"""Where a tensor lies on a mesh: whole, divided along a dimension, or a partial sum, on each of its axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..ir import (
    ACTIVE,
    BATCH,
    CHUNK,
    COPY,
    EXPERTS,
    KEY_SEQ,
    SAVED,
    SEQ,
    SPACE,
    TEMPORARY,
    TRANSPOSED,
    Op,
    Tensor,
    base,
    joint,
    letters,
    window,
)
from ..layout import even
from ..size import Size, ceil_div, is_one
from .mesh import EVENLY, PARTIAL, WHOLE, Axis, has, loops_over

Placement = tuple[str, ...]  # of a tensor, or what is divided of an operator: one for each axis
BESIDE = (SAVED, COPY, CHUNK, TRANSPOSED, TEMPORARY)  # what an operator makes beside its output
# Dimensions of data; gradients of what is made of weights alone have none of them.
DATA = {BATCH, SEQ, KEY_SEQ, *SPACE}
ORDER = (
    "slice",
    "reduce_scatter",
    "all_reduce",
    "all_to_all",
    "all_gather",
)  # what shrinks a tensor comes first


def kind(a: str, b: str) -> str:
    """What turns one placement into another."""
    if a == WHOLE:
        return "slice"
    if a == PARTIAL:
        return "all_reduce" if b == WHOLE else "reduce_scatter"
    return "all_gather" if b == WHOLE else "all_to_all"


def passes(o: Op, held: Sequence[str], wants: str) -> bool:
    """Whether an operator may read partial sums: it is linear, so its results add up to the whole one."""
    back = o.phase == "backward"
    if back and wants == WHOLE and not DATA & loops_over(o):
        return True  # a gradient of what is made of weights alone, in which all is linear
    rows = back and o.rule.looks_up and not (wants and has(o.out, wants))
    fused = o.rule.casts and all(t.on_chip for t in o.ins)  # nothing can be added up within a fused kernel
    linear = o.rule.view or o.rule.linear or o.rule.additive
    if o.rule.factors and not back and wants == WHOLE:  # what experts make, weighed before it is added up
        return held.count(PARTIAL) == 1 and all(d in (WHOLE, PARTIAL) for d in held)
    return (linear or rows or fused) and all(d == PARTIAL for d in held)


def adds_rows(o: Op) -> bool:
    """Whether an operator adds up what a token's experts made of it."""
    return o.rule.additive and any(ACTIVE in t.dims for t in o.ins) and not has(o.out, EXPERTS)


def left(o: Op, t: Tensor, dim: str) -> str:
    """How an operator that is divided along a dimension leaves an output."""
    if dim in (WHOLE, PARTIAL) or has(t, dim):
        return dim
    if t.part in BESIDE or o.kind == "split":  # a part that has not the dimension is every device's
        return WHOLE
    return PARTIAL if dim == EXPERTS or any(has(u, dim) for u in o.ins if not u.added) else WHOLE


def moved(dim: str, own: tuple[str, ...], other: tuple[str, ...]) -> str | None:
    """The dimension that stands at the same position where a tensor's dimensions have other letters.

    None where there is none: the reader sees other axes, or sees them through a window.
    """
    if dim in (WHOLE, PARTIAL, EXPERTS) or sorted(own) == sorted(other):  # the same axes, in whatever order
        return dim
    if len(own) != len(other):
        return dim if dim in letters(other) else None
    at = next((i for i, axis in enumerate(own) if dim in letters((axis,))), None)
    if at is None or len(window(other[at])) > 1:
        return None
    return dim if dim in letters(other[at : at + 1]) else base(other[at])


def local(sizes: Mapping[str, Size], divided: Placement, axes: Sequence[Axis]) -> Mapping[str, Size]:
    """The sizes of the device that has most. Raises InputError for an axis that does not divide evenly."""
    here = dict(sizes)
    for axis, dim in zip(axes, divided, strict=True):
        if dim in (WHOLE, PARTIAL) or dim in axis.given:
            continue
        # With one token a sequence (decode), a device takes a part of the sequences.
        rows = BATCH if axis.rows == SEQ and is_one(sizes.get(SEQ, 0)) else axis.rows
        for d in (base(EXPERTS), rows) if dim == EXPERTS else (dim,):
            if d in here:
                if d in EVENLY and (dim != EXPERTS or d != rows):  # of rows some experts have more
                    more = ", or sp=0" if axis.name == "tp" and d == SEQ else ""
                    even("ep" if d == base(EXPERTS) else axis.name, axis.degree, EVENLY[d], here[d], more)
                whole, here[d] = here[d], ceil_div(here[d], axis.degree)
                if d == rows and dim == EXPERTS and ACTIVE in here:  # of few tokens some choices
                    here[ACTIVE] = ceil_div(whole * here[ACTIVE], axis.degree * here[d])
    here |= joint((tuple(here),), here)
    crowd = next((axis.crowd for axis, dim in zip(axes, divided, strict=True) if dim == EXPERTS), 1)
    if crowd != 1 and BATCH in here:
        here[BATCH] = here[BATCH] * crowd
    return here
