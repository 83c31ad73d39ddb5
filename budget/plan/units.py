"""Units: weights that are gathered together, and gradients that are scattered together (fully_shard's).

A layer is one unit; everything outside of layers is another, which stays gathered for both of its passes.
Under FSDP2's mixed precision a unit's gradients are cast once all of them exist (plan/fsdp.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ..fold.rows import layer_of
from ..ir import ACTIVATION, GIVEN, GRADIENT, WEIGHT, WEIGHTS, Block, Model, Node, Op, Tensor, elements, walk
from ..layout import Layout
from ..named import NamedTuple
from ..size import Size, is_one
from ._layers import outside
from .recompute import holding
from .shard import axis_of, has_copies, is_alone, stored

WHOLE = "weights"  # what is gathered


class Piece(NamedTuple):
    """A tensor before and behind a collective, each with its elements."""

    given: Tensor
    before: Size
    made: Tensor
    behind: Size


def by_unit(model: Model, layout: Layout, sums: str | None = None, root: str = "whole") -> Model:
    """A micro-batch's program with the collectives of zero 2 and 3. To be applied after `recompute`.

    sums: the dtype in which FSDP2 adds up gradients; "" is the model's own, None: another precision.
    root: everything outside of layers is one unit, which stays gathered; or `parts`.
    """
    if layout.zero < 2 or is_alone(layout):
        return model
    units = Units(layout, model.nodes, sums)
    if model.captured:
        return model._replace(nodes=tuple(units.flat(model.nodes)))
    nodes = tuple(units.run(model.nodes))
    weights = (t.name for o in nodes if isinstance(o, Op) and o.name.startswith(WHOLE) for t in o.outs)
    return model._replace(nodes=tuple(holding(nodes, tuple(weights))) if root == "whole" else nodes)


class Units:
    """Gathers (zero 3) and scatters (zero 2 and 3) by unit."""

    def __init__(self, layout: Layout, nodes: Iterable[Node], sums: str | None = None):
        self.layout, self.sums = layout, sums
        self.bodies = dict(_bodies(nodes))
        casts = _casts(nodes) if layout.zero == 3 else {}
        self.casts = {name: o for name, o in casts.items() if not self.alone(o.ins[0], o)}
        self.cast = {cast.name for cast in self.casts.values()}
        self.gathered: set[str] = set()

    def run(self, nodes: Iterable[Node], mirrors: str = "") -> Iterator[Node]:
        """The nodes of one unit, with a gather of its weights before and a scatter of its gradients after. A
        backward block gathers all weights of the forward block that it mirrors, whether it reads them or not.
        """
        # A weight's cast is done before it is gathered.
        body = [node for node in nodes if not (isinstance(node, Op) and _made(node) in self.casts)]
        if self.layout.zero == 3:
            yield from self.gather(self.bodies.get(mirrors, body), "backward" if mirrors else "forward")
            body = [self.reading_whole(node) for node in body]
        grads: dict[str, tuple[Tensor, Op]] = {}
        late: list[Op] = []
        for node in body:
            if isinstance(node, Op) and self.is_late(node):
                late.append(node)
            elif isinstance(node, Op):
                grads.update((t.name, (t, node)) for t in node.outs if t.role == WEIGHT)
                ins, outs = (tuple(self.temporary(t, node) for t in ts) for ts in (node.ins, node.outs))
                yield node._replace(ins=ins, outs=outs)
            elif node.shared:  # what all repetitions of a recurrence add to is kept whole
                yield node
            else:
                yield node._replace(body=tuple(self.run(node.body, node.mirrors)))
        yield from self.scatter(grads.values())
        if late:
            yield from self.reduce(late)

    def is_late(self, o: Op) -> bool:
        """Whether FSDP2 makes this cast of a gradient, when all gradients of the unit are there."""
        return self.sums is not None and o.phase == "backward" and o.of in self.cast and not o.again

    def reduce(self, late: Sequence[Op]) -> Iterator[Op]:
        """A unit's gradients in the model's dtype, cast and added up, in this order or the other one."""
        low = {o.ins[0].name: o for o in late}
        if self.sums:
            whole = {t.name: (t, o) for o in late for t in o.outs}
            *first, last = (o._replace(outs=tuple(self.temporary(t, o) for t in o.outs)) for o in late)
            yield from first
            yield last._replace(holds=(*last.holds, *low))
            yield from self.scatter(whole.values())
            return
        narrow = [(o.outs[0]._replace(name=o.ins[0].name, dtype="", role=ACTIVATION), o) for o in late]
        yield from self.scatter(narrow)
        for o in late:
            shard, sizes = stored(o.outs[0], o, self.layout)
            made = shard._replace(name=f"{o.outs[0].name}@shard")
            given = shard._replace(name=f"{o.ins[0].name}@shard", dtype="", role=ACTIVATION)
            yield o._replace(ins=(given,), outs=(made,), sizes=sizes)

    def flat(self, nodes: Iterable[Node]) -> Iterator[Node]:
        """The nodes of a captured module, one after the other: each of its numbered modules is a unit."""
        ops = [o for o, _ in walk(nodes)]
        stored_by: dict[str, list[Op]] = {}
        grads: dict[str, dict[str, tuple[Tensor, Op]]] = {}
        for o in ops:
            for t in o.outs:
                if t.role == WEIGHT and t.part == GRADIENT:
                    grads.setdefault(_module(t.of), {})[t.name] = (t, o)
            if o.kind == "resident" and o.weights:
                stored_by.setdefault(_module(o.weights[0].name), []).append(o)
        last = {id(list(gradients.values())[-1][1]): unit for unit, gradients in grads.items()}
        ready: set[tuple[str, str]] = set()
        for o in ops:
            if self.layout.zero == 3 and o.kind == "resident":
                yield self.at_rest(o)
                continue
            for unit in dict.fromkeys(_module(t.name) for t in o.weights if self.layout.zero == 3):
                phase = o.phase if unit else "forward"  # what is in no numbered module stays
                if (unit, phase) not in ready:
                    ready.add((unit, phase))
                    yield from self.gather(stored_by.get(unit, ()), phase)
            read = self.reading_whole(o)
            yield read._replace(outs=tuple(self.temporary(t, o) for t in o.outs))  # type: ignore[call-arg]
            if id(o) in last:
                yield from self.scatter(grads[last[id(o)]].values())

    def at_rest(self, o: Op) -> Op:
        """The declaration of a captured module's weights, as a device stores them."""
        parts = [stored(t, o, self.layout) for t in o.weights]
        sizes = {name: size for _, own in parts for name, size in own.items()}
        return o._replace(ins=tuple(t for t, _ in parts), sizes=sizes) if parts else o

    def gather(self, body: Sequence[Node], phase: str) -> Iterator[Op]:
        """What gathers the weights that a unit reads, in the dtype in which its products read them."""
        pieces: dict[str, list[Piece]] = {}
        seen: set[str] = set()
        for o in outside(body):
            for t in () if _made(o) in self.casts or _uncasts(o) else o.ins:
                cast = self.casts.get(t.name)
                if t.name in seen or not (cast or _is_weight(t)):
                    continue
                seen.add(t.name)
                maker, weight = (cast, cast.ins[0]) if cast else (o, t)
                if self.alone(weight, maker):
                    continue
                self.gathered.add(t.name)
                part, size = stored(weight, maker, self.layout)
                whole = t._replace(name=_whole(t), role=ACTIVATION, added=False)
                if cast:
                    whole, low = cast.out, cast.out._replace(name=f"{t.name}@shard", dims=part.dims)
                    again = cast.name if phase == "backward" else ""
                    cast = cast._replace(phase=phase, of=again, callers=())  # FSDP's, of no variables
                    yield cast._replace(ins=(part,), outs=(low,), sizes=size)
                    part = low
                axis = axis_of(weight, maker, self.layout)
                one = Piece(part, size[weight.name], whole, elements(whole, maker.sizes))
                pieces.setdefault(axis, []).append(one)
        for axis, parts in pieces.items():
            yield _together("all_gather", axis, parts, phase)

    def scatter(self, grads: Iterable[tuple[Tensor, Op]]) -> Iterator[Op]:
        """A unit's gradients, added up: each device keeps its part."""
        pieces: dict[str, list[Piece]] = {}
        for t, o in grads:
            if self.alone(t, o):
                continue
            part, size = stored(t, o, self.layout)
            mine = part._replace(name=f"{t.name}@shard")
            piece = Piece(t._replace(role=ACTIVATION), elements(t, o.sizes), mine, size[t.name])
            pieces.setdefault(axis_of(t, o, self.layout), []).append(piece)
        for axis, parts in pieces.items():
            yield _together("reduce_scatter", axis, parts, "backward")
            if has_copies(self.layout):
                given = tuple(p.made._replace(dims=(p.made.name,), role=GIVEN) for p in parts)
                sizes = {p.made.name: p.behind for p in parts}
                yield Op("gradients.copies", "all_reduce", given, (), sizes, "backward", axis="replicate")

    def alone(self, t: Tensor, o: Op) -> bool:
        """Whether one device alone has a weight, or a gradient: nothing is divided."""
        return is_one(self.layout.group(axis_of(t, o, self.layout)).size) and not has_copies(self.layout)

    def reading_whole(self, node: Node) -> Node:
        """An operator, or a recurrence, that reads gathered weights."""
        if isinstance(node, Block):
            return node._replace(body=tuple(map(self.reading_whole, node.body))) if node.shared else node
        read = node.ins[:1] if _uncasts(node) else node.ins
        ins = (
            t._replace(name=_whole(t), role=ACTIVATION) if _is_weight(t) and t.name in self.gathered else t
            for t in read
        )
        return node._replace(ins=tuple(ins))

    def temporary(self, t: Tensor, o: Op) -> Tensor:
        """An operand; a whole gradient becomes a temporary, which lives until it is scattered."""
        whole = t.part == GRADIENT and t.role == WEIGHT and not self.alone(t, o)
        return t._replace(role=ACTIVATION) if whole else t


def _module(name: str) -> str:
    """A weight's numbered module: `layers.3` for `layers.3.mlp.up.weight`; "" for none."""
    return layer_of(name)[0]


def _bodies(nodes: Iterable[Node]) -> Iterator[tuple[str, tuple[Node, ...]]]:
    """The forward blocks' bodies by their names."""
    for node in nodes:
        if isinstance(node, Block):
            if not node.mirrors:
                yield node.name, node.body
            yield from _bodies(node.body)


def _casts(nodes: Iterable[Node]) -> dict[str, Op]:
    """The casts of weights that nothing else reads, by the names of their results."""
    readers: dict[str, list[Op]] = {}
    for o, _ in walk(nodes):
        if o.phase == "forward":
            for t in o.weights:
                readers.setdefault(t.name, []).append(o)
    alone = (ops for ops in readers.values() if all(o.rule.casts and _made(o) == _made(ops[0]) for o in ops))
    return {_made(ops[0]): ops[0] for ops in alone}


def _uncasts(o: Op) -> bool:
    """Whether an operator is the gradient of a weight's cast, which needs no weight."""
    return o.rule.casts and o.phase == "backward" and not o.again and bool(o.weights)


def _made(o: Op) -> str:
    return o.outs[0].name if o.outs else ""


def _is_weight(t: Tensor) -> bool:
    return t.role in WEIGHTS and t.part != GRADIENT


def _whole(t: Tensor) -> str:
    return f"{t.name}@whole"


def _together(kind: str, axis: str, parts: Sequence[Piece], phase: str) -> Op:
    """One collective of several tensors, each in one dimension."""
    ins = tuple(piece.given._replace(dims=(f"{piece.given.name}.in",)) for piece in parts)
    outs = tuple(piece.made._replace(dims=(f"{piece.made.name}.out",)) for piece in parts)
    sizes = {f"{p.given.name}.in": p.before for p in parts} | {f"{p.made.name}.out": p.behind for p in parts}
    what = WHOLE if kind == "all_gather" else "gradients"
    return Op(f"{what}.{axis}.{kind}", kind, ins, outs, sizes, phase, axis=axis)
