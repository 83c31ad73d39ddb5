"""Who reads a tensor of a program: what only neighbours in one kernel hand to each other is never moved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from ..ir import Block, Model, Node, Op, Tensor, walk
from ..named import NamedTuple


class Reads(NamedTuple):
    """Who reads the tensors of a program: how many operators, by name; and what a view is a view of."""

    number: Mapping[str, int]
    root: Mapping[str, str]


NOBODY = Reads({}, {})


def reads(model: Model) -> Reads:
    """Who reads what in a program; what blocks hand on, and what it leaves, is read once more."""
    root: dict[str, str] = {}
    count: dict[str, int] = {}
    for o, _ in walk(model.nodes):
        if o.rule.view:
            for t in o.outs:
                source = o.ins[0] if o.ins else t
                root[t.name] = root.get(source.name, source.name)
        else:
            _count(o.ins, root, count)
    ends = (*model.outputs, *_handed_on(model.nodes))
    for last in ends:
        name = root.get(last, last)
        count[name] = count.get(name, 0) + 1
    return Reads(count, root)


def _count(ins: Iterable[Tensor], root: Mapping[str, str], count: dict[str, int]) -> None:
    for t in ins:
        name = root.get(t.name, t.name)
        count[name] = count.get(name, 0) + 1


def _handed_on(nodes: Iterable[Node]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, Block):
            yield from _handed_on(node.body)
            for c in node.carry:
                yield from (c.init, c.leave)


def handed(ops: Sequence[Op], read: Reads) -> tuple[Sequence[Op], Mapping[str, bool]]:
    """Of a fused kernel the operators that move anything, which views do not; and what they make: whether
    nobody else reads it. Where it is not known who reads what: all of them, and nothing.
    """
    if len(ops) == 1 or not read.number:
        return ops, {}
    movers = [o for o in ops if o.out.name not in read.root]
    within: dict[str, int] = {}
    for o in movers:
        _count(o.ins, read.root, within)
    made = (t.name for o in movers for t in o.outs)
    return movers, {name: within.get(name, 0) == read.number.get(name, 0) for name in made}
