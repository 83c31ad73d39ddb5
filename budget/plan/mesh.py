"""The rule by which a layout divides a network: one table, read by plan/divide.py.

An axis of the mesh is a degree and the dimensions that it divides, in order of preference. *For each
operator, an axis divides the first of its dimensions that the operator loops over.* Nothing here knows an
architecture:

    axis           divides             what follows
    dp             b                   every weight's gradient is a sum over the axis, and nothing else
    tp             h G f v             Megatron's four all-reduces a layer; embedding and loss by vocabulary
    tp with sp     h G f v s           the same as all-gathers and reduce-scatters; the rest is divided too
    cp, ring       s                   keys are made along s and read along t: they are gathered
    cp, Ulysses    h in attention, s   four all-to-alls a layer
    ep             ~e, and what its devices divide for dp, cp or tp; four all-to-alls a layer

Sources: megatron-lm, korthikanti-2022, ulysses, ring-attention, gshard.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from ..config import any_of, divides
from ..errors import InputError
from ..ir import ACTIVE, SCORES, Model, Op, Tensor, expert_axis, letters, walk
from ..layout import Layout, even
from ..named import NamedTuple
from ..size import Size, exact_div, is_number, is_one, is_zero, minimum

WHOLE, PARTIAL = "", "+"  # placements of a tensor on an axis, besides the dimension along which it is divided
EXPERTS = "~e"  # the experts that rows pick; rows themselves go where their experts are
ATTENTION = "attention"
HEADS = {"h": "r", "G": "H"}  # groups of heads: of a key and its value, of a state's; and the heads of each
NONE: Mapping[str, Size] = {}
# What must be divided evenly, and what it is called. A vocabulary is padded; a given batch is one device's.
EVENLY = {
    "h": "heads", "r": "query heads for each key", "G": "groups of heads", "H": "heads of each group",
    "f": "d_ff", "s": "seq", "t": "seq", "e": "experts",
}  # fmt: skip


class Prefer(NamedTuple):
    """A dimension that an axis divides, and where."""

    dim: str
    within: str = ""  # in operators of this group only
    outside: str = ""  # not in operators of this group
    without: str = ""  # not in operators that loop over this dimension too


class Axis(NamedTuple):
    """An axis of the mesh, or a part of one that divides something else than its other parts.

    name: of the axis in a layout. given: dimensions whose sizes are one device's already: a workload's batch.
    rows: what a device has less of when rows go to their experts, "" where it has as many as it sent.
    """

    name: str
    degree: Size
    dims: tuple[Prefer, ...]
    given: str = ""
    rows: str = "s"
    inner: str = ""  # its name among the rows of experts
    crowd: float = 1.0  # rows of the busiest device's experts, over the mean

    @property
    def experts(self) -> bool:
        """Whether experts are divided along it."""
        return self.dims[0].dim == EXPERTS


def choice(axis: Axis, o: Op, loops: Collection[str]) -> str:
    """The dimension that an axis divides in an operator, of those that it loops over; WHOLE if none."""
    return next((want.dim for want in axis.dims if want.dim in loops and _holds(want, o, loops)), WHOLE)


def _holds(want: Prefer, o: Op, loops: Collection[str]) -> bool:
    """Whether a preference holds in an operator."""
    where = want.within in ("", o.group) and (not want.outside or want.outside != o.group)
    return where and want.without not in loops


def canonical(axis: Axis, t: Tensor) -> str:
    """How a tensor lies between layers: divided along the first dimension of an axis that it has."""
    own = letters(t.dims)
    return next((want.dim for want in axis.dims if want.dim in own and not want.within), WHOLE)


def has(t: Tensor, dim: str) -> bool:
    """Whether a tensor can be divided along a dimension; along EXPERTS, the rows that chose them can."""
    own = letters(t.dims)
    return dim in own or (dim == EXPERTS and ACTIVE in own)


def loops_over(o: Op) -> frozenset[str]:
    """The dimensions of all operands of an operator."""
    return frozenset().union(*(letters(t.dims) for t in (*o.ins, *o.outs)))


def mesh(layout: Layout, model: Model) -> tuple[Axis, ...]:
    """The axes of a layout, the nearest first; an axis of one device is none.

    Where a network has fewer key-value heads, or groups of states, than there are devices, the others divide
    the heads of each. Raises InputError for degrees that do not go together.
    """
    if not is_zero(layout.etp) and any_of(layout.etp != layout.tp) and not _has_experts(model):
        raise InputError("layout.etp", f"{model.name} has no experts; allowed: 0")
    found = heads(model)
    for letter, (groups, each) in found.items():
        even("tp", layout.tp, "heads", groups * each)
        if layout.cp_kind == "ulysses" and letter == "h":
            even("cp", layout.tp * layout.cp, "heads", groups * each)
    return axes(layout, {letter: groups for letter, (groups, _) in found.items()})


def heads(model: Model) -> dict[str, tuple[Size, Size]]:
    """By their letter, a network's groups of heads and the heads of each: of attention, of states."""
    found: dict[str, tuple[Size, Size]] = {}
    for o, _ in walk(model.nodes):
        letter = "h" if o.tag == SCORES else "G" if "G" in o.sizes else ""
        if letter and letter not in found:
            found[letter] = o.sizes[letter], o.sizes.get(HEADS[letter], 1)
    return found


def _has_experts(model: Model) -> bool:
    return any(expert_axis(t, o) for o, _ in walk(model.nodes) for t in o.weights)


def axes(layout: Layout, groups: Mapping[str, Size] = NONE) -> tuple[Axis, ...]:
    """The same for a network with so many groups of heads, by their letter; of others, there are enough."""
    etp = layout.tp if is_zero(layout.etp) else layout.etp
    beyond = 1 if is_zero(layout.etp) else exact_div(layout.tp, etp)
    over_tp = _part(layout.ep, beyond)  # experts take what their own tp leaves of tp, then cp, then dp
    over_cp = _part(exact_div(layout.ep, over_tp), layout.cp)
    over_dp = exact_div(layout.ep, over_tp * over_cp)
    sp = (Prefer("s", without="h"),) if layout.sp else ()  # keys that several devices have are made by each
    dense = (Prefer("f"), Prefer("v"), *sp)
    apart = (Prefer("f", without=ACTIVE), Prefer("v"), *sp)
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
        for heads, degree in (((), size),) if ring else _heads(size, groups, found):
            moved = tuple(want._replace(within=ATTENTION) for want in heads)
            along = (Prefer("s"), Prefer("t", outside=ATTENTION))
            found.append(Axis("cp", degree, (*_experts(experts), *moved, *along), inner="cp"))
    for size, experts in ((over_dp, True), (exact_div(layout.dp, over_dp), False)):
        found.append(Axis("dp", size, (*_experts(experts), Prefer("b")), given="b", rows="", inner="dp"))
    return tuple(axis._replace(crowd=layout.imbalance) for axis in found if not is_one(axis.degree))


def _part(degree: Size, devices: Size) -> Size:
    """As much of a degree as some devices take."""
    return 1 if is_one(degree) or is_one(devices) else minimum(degree, devices)


def _experts(divided: bool) -> tuple[Prefer, ...]:
    return (Prefer(EXPERTS),) if divided else ()


def _heads(
    size: Size, groups: Mapping[str, Size], before: Sequence[Axis]
) -> Iterator[tuple[tuple[Prefer, ...], Size]]:
    """Some devices as those that divide groups of heads, and those beyond, which divide the heads of each."""
    left = {letter: _left(letter, groups, before) for letter in HEADS}
    fewer = {letter: n for letter, n in left.items() if n is not None and any_of(size > n)}
    for letter, n in fewer.items():
        if any_of(size <= n):  # an axis of one device would talk to itself
            what = {"h": "key-value heads", "G": "groups of heads"}[letter]
            text = f"some degrees divide the {groups[letter]} {what} and some are more"
            raise InputError("layout.tp", f"{text}; allowed: arrays of one kind")
    done: Size = 1
    for end in (*sorted(fewer.values(), key=_largest), size):
        divides("layout.tp", end, "tp", size)
        divides("layout.tp", done, "tp", end)
        degree = exact_div(end, done)
        if any_of(degree != 1) or not fewer:
            beyond = [letter for letter, n in fewer.items() if any_of(done >= n)]
            yield tuple(Prefer(HEADS[x] if x in beyond else x) for x in HEADS), degree
        done = end


def _largest(size: Size) -> Size:
    return size if is_number(size) else size.max()


def _left(letter: str, groups: Mapping[str, Size], before: Iterable[Axis]) -> Size:
    """How many groups of heads a device of these axes has; None where there are none of the kind."""
    left = groups.get(letter)
    for axis in before:
        if left is not None and any(want.dim == letter for want in axis.dims):
            left = exact_div(left, axis.degree)
    return left
