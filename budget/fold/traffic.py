"""Traffic: the bytes that one kernel reads and writes. What only neighbours in it pass to each other is never
moved, so that it matters who else reads a tensor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ..dtype import BYTES, UNPACKING
from ..ir import (
    ACTIVE,
    CACHE,
    GRADIENT,
    HOST,
    SCALE,
    WEIGHTS,
    Block,
    Model,
    Node,
    Op,
    Tensor,
    contraction_flops,
    elements,
    gemm,
    is_convolution,
    picked,
    walk,
    widest,
    window,
)
from ..named import NamedTuple
from ..size import Size, is_number, is_zero, minimum, product
from .forms import depthwise

# Seconds of a byte of the cache that all units share, relative to one of memory. Source: jia-2018 (a V100's
# 2,155 and 750 GB/s).
CACHED = 750 / 2155
# How evenly tokens choose among experts: the shape of the gamma distribution of their shares; all are alike
# without end. Inferred from DeepSeek-V2-Lite's tokens at 1 to 64 sequences in two engines, which take longer
# by the bytes of each expert more that is read. Source: expert-choices.
EVEN = 0.5


class Reads(NamedTuple):
    """Who reads the tensors of a program: how many operators, by name; and what a view is a view of."""

    number: Mapping[str, int]
    root: Mapping[str, str]


NOBODY = Reads({}, {})


def reads(model: Model) -> Reads:
    """Who reads what in a program; what blocks carry, and what it outputs, is read once more."""
    root: dict[str, str] = {}
    read: list[str] = []
    for o, _ in walk(model.nodes):
        if o.rule.view:
            for t in o.outs:
                source = o.ins[0] if o.ins else t
                root[t.name] = root.get(source.name, source.name)
        else:
            read.extend([root.get(t.name, t.name) for t in o.ins])
    read += [root.get(last, last) for last in (*model.outputs, *_handed_on(model.nodes))]
    return Reads(Counter(read), root)


def _handed_on(nodes: Iterable[Node]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, Block):
            yield from _handed_on(node.body)
            for c in node.carry:
                yield from (c.init, c.leave)


def handed(ops: Sequence[Op], read: Reads) -> tuple[Sequence[Op], Mapping[str, bool]]:
    """Of a fused kernel the operators that move anything, which views do not; and what they make: whether
    nothing else reads it. Where it is not known who reads what: all of them, and nothing. A recurrent state
    that one reads and replaces was there before, and is after it.
    """
    if len(ops) == 1 or not read.number:
        return ops, {}
    root = read.root
    movers = [o for o in ops if o.out.name not in root]
    within = Counter([root.get(t.name, t.name) for o in movers for t in o.ins])
    made = {t.name for o in movers for t in o.outs if t.role != CACHE or not within[t.name]}
    made -= {o.out.name for o in movers if o.kind == "copy_" and o.ins[0].name not in made}
    return movers, {name: within[name] == read.number.get(name, 0) for name in made}


def moved(ops: Sequence[Op], first: Op, dtype: str, read: Reads) -> tuple[Size, Size, Size]:
    """Bytes that a kernel moves, that cross the host's link, and of the first those of products' weights."""
    moved: dict[str, Size] = {}
    host: Size = 0
    weights: Size = 0
    others = ops if len(ops) > 1 else ()
    wide = [o.out.name for o in others if o is not first and o.rule.family == "dequantize"]
    root = read.root
    movers, made = handed(ops, read)
    for o in movers:
        rule, ins = o.rule, [t.name for t in o.ins]
        # Into what is there a part is written; nothing of it is read.
        for t in o.ins[:-1] if rule.part and rule.updates else o.ins:
            name = t.name
            if t.role == HOST:
                host = host + moved_bytes(t, o, dtype)
            elif not (t.on_chip or name in moved or name in wide or (made and root.get(name, name) in made)):
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
                elif rule.part:  # which is not all of it
                    name = f"{name}+"
                if name not in moved:
                    moved[name] = moved_bytes(o.ins[0] if rule.part else t, o, dtype)
    return sum(moved.values()), host, weights


def unpacked(ops: Sequence[Op], dtype: str) -> Size:
    """Dot products with a row that unpacking a product's weights of few bits takes as long as."""
    few = [(t, o) for o in ops for t in o.ins if t.role in WEIGHTS and t.dtype in UNPACKING]
    return sum([moved_bytes(t, o, dtype) * (UNPACKING[t.dtype] / BYTES[t.dtype]) for t, o in few])


def by_format(ops: Sequence[Op]) -> tuple[tuple[str, Size], ...]:
    """FLOPs of products, and the format of few bits that their weights are in."""
    few = [(t.dtype, o) for o in ops for t in o.ins if t.role in WEIGHTS and t.dtype in UNPACKING]
    return tuple([(name, contraction_flops(o)) for name, o in few])


def again(ops: Sequence[Op], dtype: str) -> Size:
    """Bytes that an accelerator's kernels read once more, as no block of them holds all that it needs."""
    more = [(o, _more(o)) for o in ops if o.kind == "contract" or o.rule.passes or o.rule.again]
    return sum([times * _pictured(o, dtype) for o, times in more if times])


def _pictured(o: Op, dtype: str) -> Size:
    return sum([moved_bytes(t, o, dtype) for t in o.ins if t.role not in WEIGHTS and len(t.dims) > 1])


def _more(o: Op) -> Size:
    """How many times more. A norm over more than a row makes its statistics first, but for a batch norm that
    is not trained; of a depthwise convolution's weight's gradient each block makes one number, and reads
    all of its channel for that, from a cache. Source: aten-depthwise.
    """
    rule = o.rule
    if rule.again:
        return rule.again
    if rule.passes:
        return int(
            rule.family == "norm" and (o.derived or is_zero(rule.tracks) or o.beside[0] >= rule.tracks)
        )
    g = gemm(o) if o.derived and is_convolution(o) and depthwise(o) else None
    if g is None or not (is_number(g.m) and is_number(g.n)):
        return 0
    taps = max(g.m, g.n)
    return 0 if is_number(g.k) and g.k < taps else CACHED * (taps - 1)


def in_between(o: Op, dtype: str) -> Size:
    """Bytes read and written by the kernels that eager code runs for one operator. Where the kind does not
    say, each kernel reads and writes one tensor of the output's size.
    """
    rule = o.rule
    own, single = rule.back_moves if o.derived else rule.moves
    if own or single:
        n, size = elements(o.out, o.sizes), BYTES[o.out.dtype or dtype]
        part = widest(o) if rule.walks == "part" else n
        return part * (own * size + single * BYTES["float32"]) + n * rule.joins[o.derived] * size
    launches = rule.back_launches if o.derived else rule.launches
    return 2 * launches * moved_bytes(o.out, o, dtype)


def moved_bytes(t: Tensor, o: Op, dtype: str) -> Size:
    """Bytes of a tensor that an operator moves: of a picked dimension (an embedding's rows, the
    experts) only what is picked, at most all of it. What makes the same of each of them (a cast) picks none;
    weights of few bits are widened as they are picked.
    """
    size = BYTES[t.dtype or dtype]
    n = elements(t, o.sizes)
    axis = picked(t) if t.part != GRADIENT else ""
    if not axis or (picked(o.out) == axis and o.rule.family != "dequantize"):
        return n * size
    own = o.weights[0].dims if t.role == SCALE else t.dims  # what lies beside a weight is picked with it
    numbers = o.ins[0].dims if o.rule.looks_up else ()  # of rows: those of a bag are added up
    by = dict.fromkeys((*o.out.dims, *numbers))
    choices = product(o.sizes[d] for d in by if d not in own and len(window(d)) == 1)
    return _distinct(o, o.sizes[axis], choices) * (n / o.sizes[axis]) * size


def _distinct(o: Op, of: Size, choices: Size) -> Size:
    """How many experts are read, on average, where each token takes some of them; of an embedding's rows at
    most all. No token of n has an expert of a share x with exp(-x n), on average over a gamma distribution of
    shares (1 + n t)^-EVEN; t is such that one token leaves all but its own. Derived.
    """
    some = o.sizes.get(ACTIVE, 1)
    if ACTIVE not in o.out.dims or not is_number(some) or not is_number(of) or some >= of:
        return minimum(of, choices)
    spread = (1 - some / of) ** (-1 / EVEN) - 1
    return of * (1 - (1 + choices / some * spread) ** -EVEN)
