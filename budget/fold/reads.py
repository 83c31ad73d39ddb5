"""Who reads a tensor of a program: what only neighbours in one kernel hand to each other is never moved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from ..ir import Block, Model, Node, Op, Tensor, walk
from ..named import NamedTuple


class Reads(NamedTuple):
    """Who reads the tensors of a program: how many operators, by name; and what a view is a view of."""

    number: Mapping[str, int]
    root: Mapping[str, str]

    def of(self, t: Tensor) -> str:
        """The tensor in memory that one is, or is a view of."""
        return self.root.get(t.name, t.name)


def reads(model: Model) -> Reads:
    """Who reads what in a program; what blocks hand on, and what it leaves, is read once more."""
    count: dict[str, int] = {}
    root: dict[str, str] = {}
    for o, _ in walk(model.nodes):
        if o.rule.view and len(o.ins) == 1:
            root.update({t.name: root.get(o.ins[0].name, o.ins[0].name) for t in o.outs})
        else:
            for t in o.ins:
                name = root.get(t.name, t.name)
                count[name] = count.get(name, 0) + 1
    for last in (*model.outputs, *_handed_on(model.nodes)):
        name = root.get(last, last)
        count[name] = count.get(name, 0) + 1
    return Reads(count, root)


def _handed_on(nodes: Iterable[Node]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, Block):
            yield from _handed_on(node.body)
            for c in node.carry:
                yield from (c.init, c.leave)


NOBODY = Reads({}, {})


def handed(ops: Sequence[Op], read: Reads) -> dict[str, bool] | None:
    """What a fused kernel makes, and whether nobody else reads it; None where that is not known."""
    if len(ops) == 1 or not read.number:
        return None
    number, root = read
    within: dict[str, int] = {}
    made: list[str] = []
    for o in ops:
        view = o.rule.view
        if not (view and len(o.ins) == 1):
            for t in o.ins:
                name = root.get(t.name, t.name)
                within[name] = within.get(name, 0) + 1
        if not view:
            made += [t.name for t in o.outs]
    return {name: within.get(name, 0) == number.get(name, 0) for name in made}
