"""Traffic: the bytes that one kernel reads and writes.

A tensor that operators of one fused kernel alone pass to each other never reaches memory, so it matters who
else reads it.
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

# The time of a byte from the cache that all units share, over that of a byte from memory. Source: jia-2018 (a
# V100's 2,155 and 750 GB/s).
CACHED = 750 / 2155
# How evenly tokens choose among experts: the shape of the gamma distribution of the experts' shares
# (infinite: all have the same share). Inferred from DeepSeek-V2-Lite's time per token at 1 to 64 sequences in
# two engines, which grows by the bytes of each further expert that is read. Source: expert-choices.
EVEN = 0.5


class Reads(NamedTuple):
    """Who reads the tensors of a program."""

    number: Mapping[str, int]  # by tensor, the operators that read it
    root: Mapping[str, str]  # by view, the tensor that it is a view of


NOBODY = Reads({}, {})


def reads(model: Model) -> Reads:
    """Who reads what in a program; what blocks carry and what the program outputs counts as read once
    more.
    """
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
    """The operators of a fused kernel that move anything (views do not), and by tensor that they make whether
    only this kernel reads it; where it is not known who reads what, all operators and no tensor. A recurrent
    state that is read and replaced was in memory before and is afterwards.
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
    """Bytes that a kernel moves, bytes that cross the host's link, and those of the first that are products'
    weights.
    """
    moved: dict[str, Size] = {}
    host: Size = 0
    weights: Size = 0
    others = ops if len(ops) > 1 else ()
    widened = [o.out.name for o in others if o is not first and o.rule.family == "dequantize"]
    root = read.root
    movers, made = handed(ops, read)
    for o in movers:
        part = o.rule.part
        # Into what is there a part is written; nothing of it is read.
        for t in o.ins[:-1] if part and o.rule.updates else o.ins:
            name = t.name
            if t.role == HOST:
                host = host + moved_bytes(t, o, dtype)
            elif not (
                t.on_chip or name in moved or name in widened or (made and root.get(name, name) in made)
            ):
                moved[name] = size = moved_bytes(t, o, dtype)
                if t.role in WEIGHTS and o.kind == "contract":
                    weights = weights + size
        for t in o.outs:
            if t.role == HOST:
                host = host + moved_bytes(t, o, dtype)
            elif not (t.on_chip or t.name in widened or made.get(t.name) or (write := _write(o, t)) in moved):
                moved[write] = moved_bytes(o.ins[0] if part else t, o, dtype)
    return sum(moved.values()), host, weights


def _write(o: Op, t: Tensor) -> str:
    """The name under which what is written counts beside what is read: all of it moves twice, but where only
    a part is written, that part.
    """
    if any(t.name == u.name for u in o.ins):
        return f"{t.name}'"
    return f"{t.name}+" if o.rule.part else t.name


def unpacked(ops: Sequence[Op], dtype: str) -> Size:
    """The dot products with a row that take as long as unpacking a product's weights in few bits."""
    few = [(t, o) for o in ops for t in o.ins if t.role in WEIGHTS and t.dtype in UNPACKING]
    return sum([moved_bytes(t, o, dtype) * (UNPACKING[t.dtype] / BYTES[t.dtype]) for t, o in few])


def by_format(ops: Sequence[Op]) -> tuple[tuple[str, Size], ...]:
    """FLOPs of products, and the format of few bits that their weights are in."""
    few = [(t.dtype, o) for o in ops for t in o.ins if t.role in WEIGHTS and t.dtype in UNPACKING]
    return tuple([(name, contraction_flops(o)) for name, o in few])


def of_cache(ops: Sequence[Op]) -> tuple[tuple[str, Size], ...]:
    """FLOPs of attention, and the format of few bits that its cache is in."""
    names = sorted({t.dtype for o in ops for t in o.ins if t.dtype in UNPACKING})
    return tuple([(name, sum([contraction_flops(o) for o in ops if o.kind == "contract"])) for name in names])


def again(ops: Sequence[Op], dtype: str) -> Size:
    """Bytes that an accelerator's kernels read again, since no block of threads holds all that it needs."""
    more = [(o, _more(o)) for o in ops if o.kind == "contract" or o.rule.passes or o.rule.again]
    return sum([times * _pictured(o, dtype) for o, times in more if times])


def _pictured(o: Op, dtype: str) -> Size:
    return sum([moved_bytes(t, o, dtype) for t in o.ins if t.role not in WEIGHTS and len(t.dims) > 1])


def _more(o: Op) -> Size:
    """How many times more an operator reads its inputs. A norm over more than a row first makes its
    statistics, unless it is a batch norm that is not trained. For the weight gradient of a depthwise
    convolution each block makes one number, for which it reads its whole channel from a cache. Source:
    aten-depthwise.
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
    """Bytes that the kernels of eager code read and write for one operator: as its rule says, else each
    kernel reads and writes one tensor of the output's size.
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
    """Bytes of a tensor that an operator moves: of a picked dimension (an embedding's rows, the experts) only
    what is picked, at most all of it. An operator that makes the same of every row (a cast) moves all of it,
    but weights in few bits are widened only where they are picked.
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


def _distinct(o: Op, rows: Size, choices: Size) -> Size:
    """How many experts are read on average, where each token chooses some; of an embedding's rows at most
    all.

    That none of n tokens chooses an expert with share x has the probability exp(-x n), and on average over a
    gamma distribution of shares (1 + n t)^-EVEN, with t such that one token reads just its own. Derived.
    """
    some = o.sizes.get(ACTIVE, 1)
    if ACTIVE not in o.out.dims or not is_number(some) or not is_number(rows) or some >= rows:
        return minimum(rows, choices)
    spread = (1 - some / rows) ** (-1 / EVEN) - 1
    return rows * (1 - (1 + choices / some * spread) ** -EVEN)
