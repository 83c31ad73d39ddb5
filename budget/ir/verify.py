"""What every program must satisfy, checked: one specification for each stage of a program.

    verify(model)  # raises ProgramError: operator, operand, dimension and line

`network` is what an architecture builds, `trained` has its backward pass, `program` is what runs, with
recomputation, micro-batches and the optimizer; a captured torch module names tensors after storages, so
what reads a part of one has fewer elements. Tests verify every architecture, mode and technique; nothing
here runs in an estimate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from ..named import Any, NamedTuple
from ..size import Size, any_of
from .block import Block, Carry, Model, Node
from .line import line
from .op import Op
from .tensor import CACHE, GIVEN, HOST, INPUT, STATE, WEIGHTS, Tensor, base, elements

# Roles of tensors that are there before anything runs.
PRESENT = (*WEIGHTS, INPUT, CACHE, STATE, HOST, GIVEN)
PHASES = {
    "network": ("forward",),
    "trained": ("forward", "backward"),
    "program": ("forward", "backward", "optimizer"),
    "captured": ("forward", "backward", "optimizer"),
}


class ProgramError(ValueError):
    """A program that contradicts itself; one line that names operator, operand, dimension and line."""


class Known(NamedTuple):
    """A tensor as it was written: its elements, its dimensions, its role and its writer."""

    elements: Size
    dims: tuple[str, ...]
    role: str
    writer: str


class Place(NamedTuple):
    """Where a check stands: the stage, the tensors in reach (innermost scope first), what came before."""

    stage: str
    scopes: tuple[dict[str, Any], ...]
    operators: set[str]
    weights: dict[str, Known]  # as their first readers have them

    def find(self, name: str) -> Any:
        """What is known of a tensor, or of a block's inside under its name with a `block ` before it."""
        return next((scope[name] for scope in self.scopes if name in scope), None)


def verify(model: Model, stage: str = "") -> None:
    """Check a program, by default as what it looks like. Raises ProgramError."""
    stage = stage or stage_of(model)
    seeds = {f"d:{name}": Known(None, (), "", "the loss") for name in model.outputs}
    place = Place(stage, (seeds,), set(), {})
    _nodes(model.nodes, place)
    for name in model.outputs:
        if place.find(name) is None:
            raise ProgramError(f"{model.name}: its output {name!r} is made by no operator")


def stage_of(model: Model) -> str:
    """The furthest stage that a program shows."""
    if model.captured:
        return "captured"
    phases = set(_phases(model.nodes))
    return "program" if "optimizer" in phases else "trained" if "backward" in phases else "network"


def _phases(nodes: tuple[Node, ...]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, Op):
            yield node.phase
        else:
            yield from _phases(node.body)


def _nodes(nodes: tuple[Node, ...], place: Place) -> None:
    for node in nodes:
        if isinstance(node, Op):
            for check in SPECS[place.stage]:
                check(node, place)
            _write(node, place)
        else:
            _block(node, place)


def _block(node: Block, place: Place) -> None:
    """Check a block's body in a scope of its own; after it only what it leaves is in scope."""
    mirrored = place.find(f"block {node.mirrors}") if node.mirrors else None
    if node.mirrors and mirrored is None:
        raise ProgramError(f"block {node.name}: mirrors {node.mirrors!r}, which is no block before it")
    frame: dict[str, Any] = {}
    for c in node.carry:
        if c.enter:
            entered = place.find(c.init) or (_later(node, c, place) if node.mirrors else None)
            if entered is None:
                raise ProgramError(f"block {node.name}: carries {c.init or c.enter!r}, which nothing makes")
            frame[c.enter] = entered
    inner = (frame, *((mirrored,) if mirrored else ()), *place.scopes)
    within = place._replace(scopes=inner)
    _nodes(node.body, within)
    for c in node.carry:
        left = within.find(c.leave)
        if c.leave and left is None:
            raise ProgramError(f"block {node.name}: leaves {c.leave!r}, which nothing in it makes")
        repeats = not (isinstance(node.count, int) and node.count == 1)
        if c.leave and c.enter and repeats and _differ(left.elements, frame[c.enter].elements):
            got, first = _shape(left), _shape(frame[c.enter])
            raise ProgramError(f"block {node.name}: hands on {c.leave!r} {got}, the first one has {first}")
        if c.leave:
            place.scopes[0][c.leave] = left
    place.scopes[0][f"block {node.name}"] = frame


def _later(node: Block, c: Carry, place: Place) -> Known | None:
    """A gradient that the last repetition has not got yet: as large as what it leaves for the others."""
    return Known(None, (), "", node.name) if not c.init or place.find(c.init) is None else None


def reads(o: Op, place: Place) -> None:
    """What it reads was written before, or is there from the start, with as many elements."""
    captured = place.stage == "captured"
    updates = {t.name for t in o.outs} if o.rule.inplace or o.rule.updates or captured else set()
    for t in () if o.kind == "receive" else o.ins:  # another stage has it
        known = place.find(t.name)
        if t.role == INPUT and known is not None and known.role != INPUT:
            _fail(o, t, f"is said to be an input, and {known.writer} makes one of that name")
        if known is None:
            if t.role not in PRESENT and t.name not in updates:
                _fail(o, t, "is written by no operator before")
        elif not captured and t.role not in WEIGHTS and _differ(_count(o, t), known.elements):
            _fail(o, t, f"has {_count(o, t):,} elements, {known.writer} made {_shape(known)}")
        own = t.role in WEIGHTS and o.phase != "optimizer"  # which takes all weights as one
        first = place.weights.setdefault(t.name, _known(o, t)) if own else None
        if first and not captured and _differ(_count(o, t), first.elements):
            _fail(o, t, f"has {_count(o, t):,} elements, {first.writer} reads {_shape(first)}")


def sizes(o: Op, _place: Place) -> None:
    """Every dimension has a size."""
    for t in (*o.ins, *o.outs, *o.temporaries):
        _count(o, t)


def phase(o: Op, place: Place) -> None:
    """It belongs into this stage, and a backward operator to a forward one."""
    if o.phase not in PHASES[place.stage]:
        raise ProgramError(f"operator {o.name}: phase {o.phase} in a {place.stage}, line {line(o)!r}")
    if o.phase == "forward":
        place.operators.add(o.name)
    elif o.of and o.of not in place.operators:
        raise ProgramError(f"operator {o.name}: belongs to {o.of!r}, which is no operator before it")


def writes(o: Op, place: Place) -> None:
    """Each name has one writer; only an update or a recomputation writes a tensor that exists."""
    names = [t.name for t in o.outs]
    for t in o.outs:
        known = place.find(t.name)
        rule = o.rule
        updates = (rule.inplace or rule.updates) and any(t.name == u.name for u in o.ins)
        again = o.phase != "forward" or updates
        if names.count(t.name) > 1 or (known is not None and known.role != STATE and not again):
            _fail(o, t, f"is written twice, by {known.writer if known else o.name} before")


def sums(o: Op, _place: Place) -> None:
    """A sum of gradients sums over something; if not, two letters stand for one axis."""
    if o.kind != "reduce" or o.phase != "backward":
        return
    given, made = ([d for d in t.dims if _differ(o.sizes[base(d)], 1)] for t in (o.ins[0], o.out))
    if given != made and not _differ(_count(o, o.ins[0]), _count(o, o.out)):
        _fail(o, o.out, f"has the elements of what it sums, ({' '.join(given)}): one axis with two letters")


def broadcasts(o: Op, _place: Place) -> None:
    """The result of an addition is as large as its largest operand."""
    if o.phase != "forward" or o.rule.view or not o.rule.linear:
        return
    for t in o.ins:
        lost = [d for d in t.dims if d not in o.out.dims and _differ(o.sizes[base(d)], 1)]
        if lost and _differ(_count(o, t), _count(o, o.out)):
            _fail(o, t, f"has the dimension {lost[0]!r}, which ({' '.join(o.out.dims)}) lacks")


Check = Callable[[Op, Place], None]
WRITTEN: tuple[Check, ...] = (sizes, reads, phase, writes, broadcasts, sums)
SPECS: Mapping[str, tuple[Check, ...]] = {
    "network": WRITTEN,
    "trained": WRITTEN,
    "program": WRITTEN,
    "captured": (sizes, reads),  # storages are written in place, and names are torch's
}


def _write(o: Op, place: Place) -> None:
    here = place.scopes[0]
    for t in o.ins:
        if t.role == INPUT and place.find(t.name) is None:
            here[t.name] = _known(o, t)
    for t in o.outs:
        here[t.name] = _known(o, t)


def _known(o: Op, t: Tensor) -> Known:
    return Known(_count(o, t), t.dims, t.role, o.name)


def _count(o: Op, t: Tensor) -> Size:
    try:
        return elements(t, o.sizes)
    except KeyError as missing:
        _fail(o, t, f"has a dimension {missing} without a size")


def _differ(a: Size, b: Size) -> bool:
    return a is not None and b is not None and any_of(a != b)


def _shape(known: Known) -> str:
    return f"{known.elements:,} as ({' '.join(known.dims)})"


def _fail(o: Op, t: Tensor, problem: str) -> Any:
    text = f"operator {o.name}: operand {t.name} ({' '.join(t.dims)}) {problem}; line {line(o)!r}"
    raise ProgramError(text)
