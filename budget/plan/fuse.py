"""Fuse neighbours into one kernel: tensors that only they read stay on the chip.

For attention's group that is flash attention: scores and probabilities never reach device
memory, and the backward pass computes them again (plan/recompute.py). Source: flash-attention-2.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from ..model import Block, Model, Node
from ..op import Op, Tensor


def fuse(model: Model, groups: Collection[str]) -> Model:
    """The model with its operators of the named groups fused. To be applied before `backward`."""
    return model._replace(nodes=tuple(_fuse(model.nodes, groups)))


def _fuse(nodes: Iterable[Node], groups: Collection[str]) -> Iterator[Node]:
    nodes = tuple(nodes)
    readers: dict[str, set[str]] = {}
    for node in nodes:
        for name, group in _reads(node):
            readers.setdefault(name, set()).add(group)
    chip = {
        t.name
        for node in nodes
        if isinstance(node, Op) and node.group in groups
        for t in node.outs
        if readers.get(t.name) == {node.group}
    }
    for node in nodes:
        if isinstance(node, Block):
            yield node._replace(body=tuple(_fuse(node.body, groups)))
        elif node.group in groups:
            ins, outs = (tuple(_on_chip(t, chip) for t in ts) for ts in (node.ins, node.outs))
            yield node._replace(kernel=node.group, ins=ins, outs=outs)
        else:
            yield node


def _on_chip(t: Tensor, chip: set[str]) -> Tensor:
    return t._replace(on_chip=True) if t.name in chip else t


def _reads(node: Node) -> Iterator[tuple[str, str]]:
    if isinstance(node, Op):
        yield from ((t.name, node.group) for t in node.ins)
    else:
        for inner in node.body:
            yield from ((name, "") for name, _ in _reads(inner))
        yield from ((c.leave, "") for c in node.carry)
        yield from ((c.init, "") for c in node.carry)
