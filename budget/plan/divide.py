"""Divide a program over a mesh: what one device computes, and the collectives between.

A tensor is, on each axis of the mesh, whole, divided along a dimension, or a partial sum. Its writer
decides which (plan/mesh.py); where a reader needs it otherwise, there is a collective:

    from           to whole      to divided, along another dimension
    divided        all-gather    all-to-all
    partial sum    all-reduce    reduce-scatter
    whole          -             a slice, which is there already

The weights' gradients stay the partial sums that they are: plan/shard.py adds them up once a step.
Derived; the tests hold volumes to the papers' formulas and counts to torch's DTensor.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from ..errors import InputError
from ..ir import (
    ACTIVE,
    BATCH,
    EXPERTS,
    GIVEN,
    INPUT,
    KEY_SEQ,
    SEQ,
    SSM_IN,
    SSM_MIXER,
    WEIGHT,
    WEIGHTS,
    Block,
    Carry,
    Model,
    Node,
    Op,
    Tensor,
    base,
    letters,
    walk,
)
from ..named import NamedTuple
from ..size import Size, product
from ._placement import BESIDE, Placement, adds_rows, left, local, moved, passes
from ._places import Places, Scope
from .mesh import PARTIAL, WHOLE, Axis, canonical, choice, has, loops_over


class Divided(NamedTuple):
    """One device's program; by weight, the axes over which its gradient is still a partial sum; and by an
    axis's number, what it divides.
    """

    model: Model
    partial: Mapping[str, tuple[Axis, ...]]
    divides: frozenset[tuple[int, str]]


def divide(model: Model, axes: Sequence[Axis]) -> Divided:
    """The program of one device of a mesh. To be applied before `recompute`, which repeats collectives."""
    divider = _Divider(axes)
    divider.prepare(model.nodes)
    nodes = tuple(divider.run(model.nodes, {}))
    outputs = tuple(divider.renamed.get(name, name) for name in model.outputs)
    return Divided(model._replace(nodes=nodes, outputs=outputs), divider.partial, frozenset(divider.divides))


def check(model: Model, axes: Sequence[Axis], divides: Collection[tuple[int, str]]) -> None:
    """Raise an InputError for an axis that divides nothing of a network."""
    for i, axis in enumerate(axes):
        if axis.experts and (i, EXPERTS) not in divides:
            raise InputError("layout.ep", f"{model.name} has no experts to divide; allowed: 1")
        if not any(i == which for which, _ in divides):
            what = {"cp": "no sequence", "tp": "neither heads nor widths"}.get(axis.name, "nothing")
            raise InputError(f"layout.{axis.name}", f"{model.name} has {what} to divide; allowed: 1")


class _Divider(Places):
    """Applies the rule to one operator after the other."""

    def __init__(self, axes: Sequence[Axis]):
        super().__init__(axes)
        self.present: set[str] = set()  # inputs and tables: made as their readers need them
        self.partial: dict[str, tuple[Axis, ...]] = {}
        self.renamed: dict[str, str] = {}  # what a block leaves, where it had to be converted
        self.scopes: dict[str, Scope] = {}  # by block
        self.divides: set[tuple[int, str]] = set()  # axes, and what they divide
        self.by_heads = False  # a state space has heads, which cp divides where it sees the whole sequence

    def prepare(self, nodes: Iterable[Node]) -> None:
        """Place what is there before anything runs: divided where all of its readers divide it."""
        ops = [o for o, _ in walk(nodes)]
        self.by_heads = any(o.module == SSM_MIXER for o in ops)
        tables = {t.name: t.dims for o in ops for t in o.outs if o.kind == "table"}
        for o in reversed(ops):  # a table's readers before what it is made of
            chosen = self.chosen(o)
            for t in o.ins:
                if t.role != INPUT and t.name not in tables:
                    continue
                self.present.add(t.name)
                own, _ = self.written.setdefault(t.name, (tables.get(t.name, t.dims), o.sizes))
                read = (dim if dim not in (WHOLE, PARTIAL) and has(t, dim) else WHOLE for dim in chosen)
                want = tuple(moved(dim, t.dims, own) or WHOLE for dim in read)
                known = self.place.setdefault(t.name, want)
                self.place[t.name] = tuple(a if a == b else WHOLE for a, b in zip(known, want, strict=True))

    def run(self, nodes: Iterable[Node], scope: Scope) -> Iterator[Node]:
        """The nodes of one device; `scope` has the conversions that are in reach."""
        for node in nodes:
            yield from self.block(node, scope) if isinstance(node, Block) else self.op(node, scope)

    def op(self, o: Op, scope: Scope) -> Iterator[Op]:
        chosen = self.chosen(o)
        self.divides.update((i, dim) for i, dim in enumerate(chosen) if dim not in (WHOLE, PARTIAL))
        self.refuse(o, chosen)
        ins = []
        new: list[Op] = []
        for t in (t._replace(name=self.renamed.get(t.name, t.name)) for t in o.ins):
            if t.role not in WEIGHTS and t.name in self.place:
                t = self.gathered_where_unlike(o, t, new, scope)  # noqa: PLW2901 - the same tensor, gathered
                ins.append(self.convert(o, t, self.wanted(t, chosen), new, scope))
            else:
                ins.append(t)
        yield from new
        yield from self.statistics(o, chosen)
        for t in o.outs:
            if t.name not in self.present:
                self.put(t, tuple(left(o, t, dim) for dim in chosen), o.sizes)
            if t.role == WEIGHT and o.phase == "backward":
                held = zip(self.axes, self.place[t.name], strict=True)
                self.partial[t.of] = tuple(axis for axis, dim in held if dim == PARTIAL)
        parts = product(a.degree for a, dim in zip(self.axes, chosen, strict=True) if o.causal and dim == SEQ)
        here = local(o.sizes, chosen, self.axes)
        if EXPERTS in chosen and adds_rows(o):
            ins, here = self.own_rows(o, ins, chosen)
        yield o._replace(ins=tuple(ins), sizes=here, parts=parts)

    def own_rows(
        self, o: Op, ins: Sequence[Tensor], chosen: Placement
    ) -> tuple[list[Tensor], Mapping[str, Size]]:
        """Operands whose rows of a device's own experts are marked (s'), and the sizes of these rows and of
        all tokens, to which the rows are added up.
        """
        tokens = local(o.sizes, tuple(WHOLE if dim == EXPERTS else dim for dim in chosen), self.axes)
        rows = local(o.sizes, chosen, self.axes)
        fewer = {BATCH, ACTIVE, *(axis.rows for axis in self.axes if axis.experts)}
        read = [t._replace(dims=tuple(f"{d}'" if letters((d,)) & fewer else d for d in t.dims)) for t in ins]
        return read, {**tokens, **{f"{d}'": rows[d] for t in ins for d in t.dims if letters((d,)) & fewer}}

    def chosen(self, o: Op) -> Placement:
        """What each axis divides in an operator; PARTIAL where it computes with partial sums."""
        if o.kind == "table":
            return self.place.get(o.out.name, (WHOLE,) * len(self.axes))
        loops = loops_over(o)
        data = [(t, self.seen(t)) for t in o.ins if t.name in self.place and t.name not in self.present]
        return tuple(
            self.along(choice(axis, o, loops), o, [(t, seen[i]) for t, seen in data])
            for i, axis in enumerate(self.axes)
        )

    def along(self, wants: str, o: Op, held: Sequence[tuple[Tensor, str]]) -> str:
        """The same for one axis, which would divide `wants`; held: the operands that are data, and how each
        lies on the axis.
        """
        places = [place for _, place in held]
        if o.rule.linear and len(held) < len(o.ins):  # a table or a weight, which is whole, is added once
            places.append(WHOLE)
        if PARTIAL in places and passes(o, places, wants):
            return PARTIAL
        # Only a contraction moves the rows of experts; a fused kernel has them on chip. Where every device
        # has all tokens, it adds up the rows that it has: its part of a sum.
        there = any(place == EXPERTS and t.on_chip for t, place in held)
        all_here = wants == WHOLE and EXPERTS in places and set(places) <= {EXPERTS, WHOLE}
        if all_here and adds_rows(o):
            return EXPERTS
        weighed = all_here and o.phase == "forward"
        rows = o.kind != "contract" and (there or weighed or set(places) == {EXPERTS})
        if rows and all(has(t, EXPERTS) for t in o.outs if t.part not in BESIDE):
            return EXPERTS
        return wants

    def refuse(self, o: Op, chosen: Placement) -> None:
        """Raise an InputError for what cannot be divided as the rule would have it."""
        for axis, dim in zip(self.axes, chosen, strict=True):
            if o.rule.in_order and dim in (SEQ, KEY_SEQ):
                text = f"{o.name} goes through the sequence in order"
                raise InputError(f"layout.{axis.name}", f"{text}, which cannot be divided; allowed: 1")
            if o.tag == SSM_IN and axis.name == "cp" and not self.by_heads:
                raise InputError(
                    "layout.cp", f"{o.name} is of a state space, whose states pass on; allowed: 1"
                )
            if dim == EXPERTS and any(base(EXPERTS) in t.dims for t in o.ins if t.role not in WEIGHTS):
                text = f"{o.name} runs every expert on every token, as transformers does"
                raise InputError("layout.ep", f"{text}, which is not divided yet; allowed: 1")

    def wanted(self, t: Tensor, chosen: Placement) -> Placement:
        """How an operator reads a tensor: divided as it is itself, where the tensor has that dimension."""
        return tuple(
            now if dim == PARTIAL else dim if dim and has(t, dim) else WHOLE
            for now, dim in zip(self.seen(t), chosen, strict=True)
        )

    def statistics(self, o: Op, chosen: Placement) -> Iterator[Op]:
        """The collective by which a norm, a softmax or a loss learns a divided row's statistics; a norm needs
        another one in its backward pass.
        """
        if not o.rule.reduces or (o.phase != "forward" and o.rule.family != "norm"):
            return
        own = o.ins[0].dims
        # A norm's row is what its weights have; a softmax's is its last axis, whatever a sink's have.
        normed = tuple(d for d in own if any(d in t.dims for t in o.weights))
        row = (normed if o.rule.family == "norm" else ()) or own[-1:]
        dims = tuple(d for d in own if d not in row)
        sizes = local(o.sizes, chosen, self.axes)
        within = letters(row)
        divided = [axis.name for axis, dim in zip(self.axes, chosen, strict=True) if dim and dim in within]
        for name in dict.fromkeys(divided):
            for n in range(o.rule.reduces):
                t = Tensor(f"{o.name}#{name}{n}", dims, GIVEN, "float32")
                yield Op(f"{o.name}.{name}{n}", "all_reduce", (t,), (), sizes, o.phase, axis=name)

    def block(self, node: Block, scope: Scope) -> Iterator[Node]:
        """A block; its repetitions carry tensors with the placement that these have between layers."""
        inits: dict[Carry, str] = {}
        for c in node.carry:
            if c.enter:
                new: list[Op] = []
                inits[c] = self.enter(node, c, new, scope)
                yield from new
        inner = {**scope, **self.scopes.get(node.mirrors, {})}
        body = list(self.run(node.body, inner))
        self.scopes[node.name] = inner
        carry = []
        for c in node.carry:
            ends: list[Op] = []
            leave = self.leave(node, c, ends, inner)
            body += ends
            carry.append(Carry(inits.get(c, self.renamed.get(c.init, c.init)), c.enter, leave))
        yield node._replace(body=tuple(body), carry=tuple(carry))

    def enter(self, node: Block, c: Carry, new: list[Op], scope: Scope) -> str:
        """Bring what the first repetition begins with to the placement that tensors have between layers."""
        init = self.renamed.get(c.init, c.init)
        found = _reader(node.body, c.enter)
        if found is None:  # only handed on
            if init in self.place:
                self.place[c.enter], self.written[c.enter] = self.place[init], self.written[init]
            return init
        o, t = found
        want = tuple(canonical(axis, t, o) for axis in self.axes)
        if init in self.place:
            first = self.gathered_where_unlike(o, t._replace(name=init), new, scope)
            init = self.convert(o, first, want, new, scope).name
        self.put(t._replace(name=c.enter), want, o.sizes)
        return init

    def leave(self, node: Block, c: Carry, ends: list[Op], scope: Scope) -> str:
        """Bring what a repetition leaves to the placement in which the next one expects it."""
        left_as = self.renamed.get(c.leave, c.leave)
        if not c.enter or c.leave == c.enter or left_as not in self.place:  # made anew, or only handed on
            return left_as
        o, t = _writer(node.body, c.leave)
        own, _ = self.written[c.enter]
        want = tuple(moved(dim, own, t.dims) or WHOLE for dim in self.place[c.enter])
        made = self.convert(o, t._replace(name=left_as), want, ends, scope).name
        if made != c.leave:
            self.renamed[c.leave] = made
        return made


def _reader(nodes: Iterable[Node], name: str) -> tuple[Op, Tensor] | None:
    """The first operator that reads a tensor, with the operand."""
    for node in nodes:
        if isinstance(node, Op):
            found = next(((node, t) for t in node.ins if t.name == name), None)
        else:
            inside = next((c.enter for c in node.carry if c.enter and c.init == name), name)
            found = _reader(node.body, inside)
        if found:
            return found
    return None


def _writer(nodes: Iterable[Node], name: str) -> tuple[Op, Tensor]:
    """The operator that writes a tensor, with it."""
    return next((o, t) for o, _ in walk(nodes) for t in o.outs if t.name == name)
