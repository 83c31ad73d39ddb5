"""The layers of a network in order, where its stacks repeat one layer or a period of unlike ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..errors import InputError, wrong
from ..ir import Block, Model, Node, Op, pieces, renamed
from ..named import TYPE_CHECKING
from ..size import Size, any_of, is_number, is_zero

if TYPE_CHECKING:
    from typing import TypeGuard

Parts = tuple[tuple[Node, ...], tuple[Node, ...]]


def is_stack(node: Node) -> TypeGuard[Block]:
    """Whether a node is a block of layers with weights of their own."""
    return isinstance(node, Block) and not node.shared


def layers(node: Node) -> Size:
    """How many layers a node has: the innermost repetitions with weights of their own."""
    return node.count * in_one(node) if is_stack(node) else 0


def in_one(node: Block) -> Size:
    """Layers in one repetition of a stack: 1, or those of a period."""
    return sum(layers(n) for n in node.body) or 1


def outside(nodes: Iterable[Node]) -> Iterator[Op]:
    """The operators outside of all layers."""
    for node in nodes:
        if isinstance(node, Op):
            yield node
        elif node.shared:
            yield from outside(node.body)


def first_layers(model: Model, field: str, n: int) -> Parts:
    """The nodes up to the n-th layer, and those behind it. Raises InputError where there are fewer."""
    total = sum(layers(node) for node in model.nodes)
    if is_zero(total):
        raise InputError(field, f"{model.name} has no repeated layers; allowed: 0")
    if any_of(total < n):
        fewest = total.min() if hasattr(total, "min") else total
        raise wrong(field, n, f"0 to {fewest:.0f}, the layers of {model.name}")
    return cut(model.nodes, field, n)


def cut(nodes: tuple[Node, ...], field: str, n: int) -> Parts:
    """Nodes up to the n-th layer, and those behind it. Raises InputError for a period not made of layers."""
    for i, node in enumerate(nodes):
        if n == 0:
            return nodes[:i], nodes[i:]
        size = layers(node)
        if isinstance(node, Block) and not (is_number(size) and size <= n):
            low, high = _cut_block(node, field, n)
            return (*nodes[:i], *low), (*high, *nodes[i + 1 :])
        n -= size
    return nodes, ()


def _cut_block(node: Block, field: str, n: int) -> Parts:
    """A stack cut behind its n-th layer; the period that is cut is listed layer by layer."""
    each = in_one(node)
    periods, rest = divmod(n, each)
    low: tuple[Node, ...] = ()
    if periods:
        head, node = pieces(node, periods)
        low = (head,)
    if not rest:
        return low, (node,)
    one, *others = pieces(node, 1)
    inner = cut(_written_out(one, field, n, each), field, rest)
    return (*low, *inner[0]), (*inner[1], *others)


def _written_out(node: Block, field: str, n: int, each: int) -> tuple[Node, ...]:
    """The blocks of a period that runs once, under names of their own."""
    blocks = [b for b in node.body if is_stack(b)]
    if len(blocks) < len(node.body):
        raise InputError(field, f"got {n}, layers come in periods of {each}; allowed: multiples of {each}")
    ends = {c.leave for c in node.carry}
    new = {c.leave: f"{c.leave}@{node.name}" for b in blocks for c in b.carry if c.leave not in ends}
    new |= {c.enter: c.init for c in node.carry if c.enter}
    written = (b for b in renamed(blocks, new) if isinstance(b, Block))
    return tuple(b._replace(name=f"{node.name}.{b.name}", piece=True) for b in written)
