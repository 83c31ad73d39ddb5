"""The rule by which a layout divides a network: one table, read by plan/divide.py.

An axis of the mesh is a degree and the dimensions that it divides, in order of preference. *For each
operator, an axis divides the first of its dimensions that the operator loops over.* Nothing here knows an
architecture:

    axis           divides             what follows
    dp             b                   every weight's gradient is a sum over the axis, and nothing else
    tp             h G f v             Megatron's four all-reduces a layer; embedding and loss by vocabulary
    tp with sp     h G f v s           the same as all-gathers and reduce-scatters; the rest is divided too
    tp, scattered  as without sp, and s in what stages send and receive: a part each, gathered behind
    cp, ring       s                   keys are made along s and read along t: they are gathered
    cp, Ulysses    h in attention, s   four all-to-alls a layer
    cp             G in state spaces   likewise, whatever attention does
    ep             ~e, and what its devices divide for dp, cp or tp; four all-to-alls a layer

Sources: megatron-lm, korthikanti-2022, ulysses, ring-attention, gshard.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache

from ..config import divides
from ..errors import InputError
from ..ir import (
    ACTIVE,
    BATCH,
    D_FF,
    EXPERTS,
    KEY_SEQ,
    KV_HEADS,
    Q_HEADS,
    SEQ,
    SSM_GROUPS,
    SSM_HEADS,
    SSM_MIXER,
    VOCAB,
    Model,
    Op,
    Tensor,
    base,
    expert_axis,
    letters,
    walk,
)
from ..layout import Layout, even
from ..named import NamedTuple
from ..size import Size, any_of, exact_div, is_number, is_one, is_zero, maximum, minimum, product

WHOLE, PARTIAL = "", "+"  # placements of a tensor on an axis, besides the dimension along which it is divided
ATTENTION = "attention"
PIPELINE = "pipeline"  # the group of what a stage sends and receives
# Groups of heads, of a key and its value or of a state's, and the heads of each.
HEADS = {KV_HEADS: Q_HEADS, SSM_GROUPS: SSM_HEADS}
Groups = Mapping[str, Sequence[Size]]
NONE: Groups = {}
# What must be divided evenly, and what it is called. A vocabulary is padded; a given batch is one device's.
EVENLY = {
    KV_HEADS: "heads", Q_HEADS: "query heads for each key", SSM_GROUPS: "groups of heads",
    SSM_HEADS: "heads of each group", D_FF: "d_ff", SEQ: "seq", KEY_SEQ: "seq", base(EXPERTS): "experts",
}  # fmt: skip


class Prefer(NamedTuple):
    """A dimension that an axis divides, and where."""

    dim: str
    within: str = ""  # in operators of this group only
    outside: str = ""  # not in operators of this group
    without: str = ""  # not in operators that loop over this dimension too
    least: Size = 0  # where it has at least so many elements


class Axis(NamedTuple):
    """An axis of the mesh, or a part of one that divides something else than its other parts.

    name: of the axis in a layout. given: dimensions whose sizes are one device's already: a workload's batch.
    rows: what a device has less of when rows go to their experts, "" where it has as many as it sent. whole:
    lengths of sequences that it leaves as they are.
    """

    name: str
    degree: Size
    dims: tuple[Prefer, ...]
    given: str = ""
    rows: str = SEQ
    inner: str = ""  # its name among the rows of experts
    crowd: float = 1.0  # rows of the busiest device's experts, over the mean
    whole: tuple[int, ...] = ()

    @property
    def experts(self) -> bool:
        """Whether experts are divided along it."""
        return self.dims[0].dim == EXPERTS

    @property
    def is_given(self) -> bool:
        """Whether all that it divides is given, so that a program is the same whatever its degree."""
        return all(want.dim == self.given for want in self.dims)


def choice(axis: Axis, o: Op, loops: Collection[str]) -> str:
    """The dimension that an axis divides in an operator, of those that it loops over; WHOLE if none."""
    return next((want.dim for want in axis.dims if want.dim in loops and _holds(axis, want, o, loops)), WHOLE)


def _holds(axis: Axis, want: Prefer, o: Op, loops: Collection[str]) -> bool:
    """Whether a preference holds in an operator."""
    if _is_whole(axis, want, o.sizes) or any_of(o.sizes.get(want.dim, want.least) < want.least):
        return False
    where = want.within in ("", o.group, o.module) and (not want.outside or want.outside != o.group)
    return where and want.without not in loops


def _is_whole(axis: Axis, want: Prefer, sizes: Mapping[str, Size]) -> bool:
    """Whether what an axis would divide is a sequence that it leaves as it is."""
    return bool(axis.whole) and want.dim in (SEQ, KEY_SEQ) and sizes.get(want.dim) in axis.whole


def canonical(axis: Axis, t: Tensor, o: Op) -> str:
    """How a tensor lies on an axis between repetitions, where this operator reads it first: divided along the
    axis's first dimension that the tensor has.
    """
    own = letters(t.dims)
    wants = (want for want in axis.dims if want.dim in own and want.within in ("", o.module))
    return next((want.dim for want in wants if not _is_whole(axis, want, o.sizes)), WHOLE)


def has(t: Tensor, dim: str) -> bool:
    """Whether a tensor can be divided along a dimension; along EXPERTS, the rows that chose them can."""
    own = letters(t.dims)
    return dim in own or (dim == EXPERTS and ACTIVE in own)


def loops_over(o: Op) -> frozenset[str]:
    """The dimensions of all operands of an operator."""
    return _loops(*[t.dims for t in (*o.ins, *o.outs)])


@lru_cache(maxsize=4096)
def _loops(*operands: tuple[str, ...]) -> frozenset[str]:
    return frozenset().union(*map(letters, operands))


def mesh(layout: Layout, model: Model, *, scatters: bool = False) -> tuple[Axis, ...]:
    """The axes of a layout, the nearest first; an axis of one device is none. scatters: scatter_gather.py.

    Where a network has fewer key-value heads, or groups of states, than there are devices, the others divide
    the heads of each. Raises InputError for degrees that do not go together.
    """
    if not is_zero(layout.etp) and any_of(layout.etp != layout.tp) and not _has_experts(model):
        raise InputError("layout.etp", f"{model.name} has no experts; allowed: 0")
    by_letter = heads(model)
    for letter, kinds in by_letter.items():
        for groups, each in kinds:
            even("tp", layout.tp, "heads", groups * each)
            if layout.cp_kind == "ulysses" and letter == KV_HEADS:
                even("cp", layout.tp * layout.cp, "heads", groups * each)
    whole = _uneven(layout, model)
    groups_of = {letter: [groups for groups, _ in kinds] for letter, kinds in by_letter.items()}
    divided = axes(layout, groups_of, scatters=scatters and _even_tokens(layout, model))
    return tuple(axis._replace(whole=whole) for axis in divided) if whole else divided


def _even_tokens(layout: Layout, model: Model) -> bool:
    """Whether tp divides the tokens of a sequence."""
    known = all(is_number(n) and n for n in (layout.tp, model.tokens, model.samples))
    return known and model.tokens // model.samples % (layout.tp * layout.cp) == 0


def _uneven(layout: Layout, model: Model) -> tuple[int, ...]:
    """Lengths of sequences beside a network's own that the degrees would divide, but unevenly: a tower's
    pictures. These stay whole, as in the vision towers of trainers on Megatron-LM.
    """
    degree = (layout.tp if layout.sp else 1) * layout.cp
    plain = all(is_number(n) and n for n in (degree, model.tokens, model.samples))
    if not plain or degree == 1 or model.tokens // model.samples % degree:
        return ()
    lengths = {o.sizes[SEQ] for o, _ in walk(model.nodes) if SEQ in loops_over(o) and is_number(o.sizes[SEQ])}
    return tuple(n for n in lengths if n % degree)


def heads(model: Model) -> dict[str, list[tuple[Size, Size]]]:
    """By their letter, groups of heads and the heads of each: of every kind of attention, of states."""
    groups: dict[str, list[tuple[Size, Size]]] = {letter: [] for letter in HEADS}
    for o, _ in walk(model.nodes):
        for letter in HEADS.keys() & loops_over(o):
            kind = o.sizes[letter], o.sizes.get(HEADS[letter], 1)
            if not any(all(map(_same, kind, known)) for known in groups[letter]):
                groups[letter].append(kind)
    return groups


def _same(a: Size, b: Size) -> bool:
    return a is b or (is_number(a) and is_number(b) and a == b)


def _has_experts(model: Model) -> bool:
    return any(expert_axis(t, o) for o, _ in walk(model.nodes) for t in o.weights)


def axes(layout: Layout, groups: Groups = NONE, *, scatters: bool = False) -> tuple[Axis, ...]:
    """The axes for a network with so many groups of heads, by their letter; other letters have enough."""
    etp = layout.tp if is_zero(layout.etp) else layout.etp
    beyond = 1 if is_zero(layout.etp) else exact_div(layout.tp, etp)
    over_tp = _part(layout.ep, beyond)  # experts take what their own tp leaves of tp, then cp, then dp
    over_cp = _part(exact_div(layout.ep, over_tp), layout.cp)
    over_dp = exact_div(layout.ep, over_tp * over_cp)
    # Keys that several devices have are made by each.
    sp = (Prefer(SEQ, without=KV_HEADS),) if layout.sp else (Prefer(SEQ, within=PIPELINE),) * scatters
    dense = (Prefer(D_FF), Prefer(VOCAB), *sp)
    apart = (Prefer(D_FF, without=ACTIVE), Prefer(VOCAB), *sp)
    found: list[Axis] = []
    for size, experts, inner in (
        (etp, False, dense),
        (over_tp, True, apart),
        (exact_div(beyond, over_tp), False, apart),
    ):
        for heads, degree in _heads(size, groups, found):
            name = "tp" if is_zero(layout.etp) else "etp"
            found.append(Axis("tp", degree, (*_experts(experts), *heads, *inner), inner=name))
    ring = layout.cp_kind == "ring"
    for size, experts in ((over_cp, True), (exact_div(layout.cp, over_cp), False)):
        moving = {letter: n for letter, n in groups.items() if not ring or letter == SSM_GROUPS}
        for heads, degree in _heads(size, moving, found):
            states = tuple(w._replace(within=SSM_MIXER) for w in heads if w.dim in (SSM_GROUPS, SSM_HEADS))
            moved = tuple(w._replace(within=ATTENTION) for w in heads if w.dim in (KV_HEADS, Q_HEADS))
            moved = (*(() if ring else moved), *states)
            along = (Prefer(SEQ), Prefer(KEY_SEQ, outside=ATTENTION))
            found.append(Axis("cp", degree, (*_experts(experts), *moved, *along), inner="cp"))
    for size, experts in ((over_dp, True), (exact_div(layout.dp, over_dp), False)):
        found.append(Axis("dp", size, (*_experts(experts), Prefer(BATCH)), given=BATCH, rows="", inner="dp"))
    return tuple(axis._replace(crowd=layout.imbalance) for axis in found if not is_one(axis.degree))


def _part(degree: Size, devices: Size) -> Size:
    """As much of a degree as some devices take."""
    return 1 if is_one(degree) or is_one(devices) else minimum(degree, devices)


def _experts(divided: bool) -> tuple[Prefer, ...]:
    return (Prefer(EXPERTS),) if divided else ()


def _heads(size: Size, groups: Groups, before: Sequence[Axis]) -> Iterator[tuple[tuple[Prefer, ...], Size]]:
    """The devices of an axis that divide groups of heads, and the rest, which divide the heads of each."""
    done = product(axis.degree for axis in before if any(want.dim in _OF_HEADS for want in axis.dims))
    ends = []
    for letter, counts in groups.items():
        for count in counts:
            left = maximum(exact_div(count, done), 1)
            if any_of(size > left):
                ends.append(left)
                if any_of(size <= left):  # an axis of one device would talk to itself
                    what = {KV_HEADS: "key-value heads", SSM_GROUPS: "groups of heads"}[letter]
                    text = f"some degrees divide the {count} {what} and some are more"
                    raise InputError("layout.tp", f"{text}; allowed: arrays of one kind")
    start: Size = 1
    for end in (*sorted(ends, key=_largest), size):
        divides("layout.tp", end, "tp", size)
        divides("layout.tp", start, "tp", end)
        degree = exact_div(end, start)
        if any_of(degree != 1) or not ends:
            yield tuple(want for x in HEADS for want in _divided(x, groups.get(x, ()), done * end)), degree
        start = end


_OF_HEADS = {letter for pair in HEADS.items() for letter in pair}


def _divided(letter: str, counts: Sequence[Size], devices: Size) -> tuple[Prefer, ...]:
    """What so many devices divide: groups of heads where there are as many, else the heads of each."""
    fewer = [count for count in counts if any_of(count < devices)]
    if not fewer:
        return (Prefer(letter),)
    return (*([Prefer(letter, least=devices)] if len(fewer) < len(counts) else ()), Prefer(HEADS[letter]))


def _largest(size: Size) -> Size:
    return size if is_number(size) else size.max()
