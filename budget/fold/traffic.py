"""Traffic: the bytes that one kernel reads and writes."""

from __future__ import annotations

from collections.abc import Sequence

from ..dtype import BYTES
from ..ir import ACTIVE, GRADIENT, HOST, WEIGHTS, Op, Tensor, elements, picked, window
from ..size import Size, is_number, minimum, product
from .reads import Reads, handed


def moved(ops: Sequence[Op], first: Op, dtype: str, read: Reads) -> tuple[Size, Size, Size]:
    """Bytes that a kernel moves, that cross the host's link, and of the first those of products' weights."""
    moved: dict[str, Size] = {}
    host: Size = 0
    weights: Size = 0
    wide = [o.out.name for o in ops if o is not first and o.rule.family == "dequantize"]
    root = read.root
    movers, made = handed(ops, read)
    for o in movers:
        ins = [t.name for t in o.ins]
        # Into what is there a part is written; nothing of it is read.
        taken = o.ins[:-1] if o.rule.part and o.rule.updates else o.ins
        for t, name in zip(taken, ins, strict=False):
            if t.role == HOST:
                host = host + moved_bytes(t, o, dtype)
            elif not (t.on_chip or name in moved or name in wide or root.get(name, name) in made):
                moved[name] = size = moved_bytes(t, o, dtype)
                if t.role in WEIGHTS and o.kind == "contract":
                    weights = weights + size
        for t in o.outs:
            name = t.name
            if t.role == HOST:
                host = host + moved_bytes(t, o, dtype)
            elif not (t.on_chip or name in wide or made.get(name)):
                if name in ins:  # what is read and written moves twice, but for what only takes a part
                    name = f"{name}'"
                if name not in moved:
                    moved[name] = moved_bytes(o.ins[0] if o.rule.part else t, o, dtype)
    return sum(moved.values()), host, weights


def in_between(o: Op, dtype: str) -> Size:
    """Bytes read and written by the kernels that eager code runs for one operator. Where the kind does not
    say, each kernel reads and writes one tensor of the output's size.
    """
    rule = o.rule
    own, single = rule.back_moves if o.derived else rule.moves
    if own or single:
        return elements(o.out, o.sizes) * (own * BYTES[o.out.dtype or dtype] + single * BYTES["float32"])
    launches = rule.back_launches if o.derived else rule.launches
    return 2 * launches * moved_bytes(o.out, o, dtype)


def moved_bytes(t: Tensor, o: Op, dtype: str) -> Size:
    """Bytes of a tensor that an operator moves: of a picked dimension (an embedding's rows, the
    experts) only what is picked, at most all of it.
    """
    size = BYTES[t.dtype or dtype]
    n = elements(t, o.sizes)
    axis = picked(t) if t.part != GRADIENT else ""
    if not axis:
        return n * size
    choices = product(o.sizes[d] for d in o.out.dims if d not in t.dims and len(window(d)) == 1)
    return _distinct(o, o.sizes[axis], choices) * (n / o.sizes[axis]) * size


def _distinct(o: Op, of: Size, choices: Size) -> Size:
    """How many experts are read, on average, where each token takes some of them at random; of an embedding's
    rows at most all. Derived.
    """
    some = o.sizes.get(ACTIVE, 1)
    if ACTIVE not in o.out.dims or not is_number(some) or not is_number(of) or some >= of:
        return minimum(of, choices)
    return of * (1 - (1 - some / of) ** (choices / some))
