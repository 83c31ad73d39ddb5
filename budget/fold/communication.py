"""Communication: the collectives that sharding dimensions over devices requires.

Contract a divided dimension and partial sums remain: the first reader that is not a sum itself
needs an all-reduce. That one rule gives data parallelism (divide b: each weight's gradient) and
Megatron's four all-reduces a layer (divide h and f). Two things need a rule of their own: a
statistic over a divided last axis (softmax, norms, the loss over v), and a tensor that is read
whole although it was made in parts (the keys, where s is divided). Source: megatron-lm.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from ..ir import (
    CHUNK,
    COPY,
    SAVED,
    TEMPORARY,
    WEIGHT,
    Block,
    Model,
    Node,
    Op,
    Tensor,
    base,
    elements,
    walk,
    window,
)
from ..named import NamedTuple
from ..size import Size, maximum
from ._lifetimes import tensor_bytes

BESIDE = (SAVED, COPY, CHUNK, TEMPORARY)  # what an operator makes beside its output


class Communication(NamedTuple):
    """What a device takes part in, `times` times a step: one collective, or one message to the next stage."""

    axis: str  # of the group that takes part: Layout.group says which devices that are
    kind: str  # all_reduce, all_gather, reduce_scatter, all_to_all, send
    phase: str  # forward, backward, optimizer
    tensor: str
    bytes: Size  # of the whole (gathered or reduced) tensor as one device sees it
    times: Size
    op: str = ""  # the operator that it is for


def communications(nodes: Iterable[Node], dtype: str) -> Iterator[Communication]:
    """All communication of one device's program, in order; what is received is counted where it is sent."""
    for o, times in walk(nodes):
        if o.rule.family == "collective" and o.kind not in ("receive", "remote"):
            ends = (sum(tensor_bytes(t, o.sizes, dtype) for t in ts) for ts in (o.ins, o.outs))
            whole = maximum(*ends)
            tensor = (o.ins or o.outs)[0].name
            yield Communication(o.axis, o.kind, o.phase, tensor, whole, times, o.of or o.name)


class Collective(NamedTuple):
    """One collective operation of `elements` elements (before division), `times` times."""

    name: str  # all_reduce, all_gather
    tensor: str
    op: str
    phase: str
    elements: Size
    times: Size
    dims: tuple[str, ...]  # the divided dimensions it is about


def collectives(model: Model, divided: Collection[str]) -> list[Collective]:
    """The collectives of a program, in order, when these dimensions are divided over devices.

    One mesh axis for each dimension, or one for several that never meet in one tensor.
    """
    walker = _Walker(frozenset(divided))
    return [*walker.run(model.nodes, 1), *walker.gradients.values()]


class _Walker:
    """Keeps which tensors are partial sums over which divided dimensions, and the weights'
    gradients, which are reduced last: a tied weight's are added up first.
    """

    def __init__(self, divided: frozenset[str]):
        self.divided = divided
        self.partial: dict[str, frozenset[str]] = {}
        self.gradients: dict[str, Collective] = {}

    def run(self, nodes: Iterable[Node], times: Size) -> Iterator[Collective]:
        for node in nodes:
            if isinstance(node, Block):
                for c in node.carry:
                    if c.init in self.partial:
                        self.partial[c.enter] = self.partial.pop(c.init)
                yield from self.run(node.body, times * node.count)
            else:
                yield from self.op(node, times)

    def op(self, o: Op, times: Size) -> Iterator[Collective]:
        parts = [t for t in o.ins if t.name in self.partial]
        passed: frozenset[str] = frozenset()
        sums = o.rule.view or (o.rule.linear and len(parts) == len(o.ins))
        if sums or (o.rule.looks_up and o.phase == "backward"):
            # A sum of partial sums is one: added up first, reduced once.
            passed = passed.union(*(self.partial[t.name] for t in parts))
        else:
            for t in parts:
                yield _reduce(o, t, self.partial.pop(t.name), times)
        last = self.divided.intersection(o.ins[0].dims[-1:])
        if last and o.phase == "forward":
            row = o.ins[0]._replace(dims=o.ins[0].dims[:-1])
            for _ in range(o.rule.reduces):
                yield _reduce(o, row, last, times)
        for t in o.outs:
            if left := passed | self.left(o, t):
                self.partial[t.name] = left
                if t.role == WEIGHT:
                    self.gradients[t.name] = _reduce(o, t, left, times)

    def left(self, o: Op, out: Tensor) -> frozenset[str]:
        """Divided dimensions that the operands have and an output has not."""
        if o.rule.linear or out.part in BESIDE or (o.phase == "forward" and not o.rule.sums):
            return frozenset()
        inside = {d for t in o.ins if not t.added for d in _axes(t)}
        return frozenset((inside - set(_axes(out))) & self.divided)


def _axes(t: Tensor) -> Iterator[str]:
    for axis in t.dims:
        yield from window(base(axis))


def _reduce(o: Op, t: Tensor, dims: frozenset[str], times: Size) -> Collective:
    return Collective("all_reduce", t.name, o.name, o.phase, elements(t, o.sizes), times, tuple(sorted(dims)))
