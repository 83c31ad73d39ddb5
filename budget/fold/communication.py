"""Communication: the collectives and messages in the programs of a layout's devices.

plan/divide.py, shard.py and stage.py write collectives as operators; here they are listed, fold/collective.py
has their seconds, and fold/step.py says which of these are waited for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..ir import EXPERT_SEND, NOTHING, Block, Node, Op
from ..named import NamedTuple
from ..size import Size, maximum, product
from ._bytes import tensor_bytes

SILENT = ("receive", "remote")  # the other end of a send, which is counted there


class Communication(NamedTuple):
    """One collective, or one message to the next stage, that takes place `times` times a step."""

    axis: str  # of the group that takes part: Layout.group says which devices that are
    kind: str  # all_reduce, all_gather, reduce_scatter, all_to_all, send
    phase: str  # forward, backward, optimizer
    tensor: str
    bytes: Size  # of the whole (gathered or reduced) tensor as one device sees it
    times: Size
    op: str = ""  # the operator that it is for
    once: bool = False  # a step: behind all micro-batches
    copies: Size = 1  # of what goes to experts: rows of one token


def communications(nodes: Iterable[Node], dtype: str) -> Iterator[Communication]:
    """All communication of one device's program, in order."""
    nodes, rows = tuple(nodes), set[str]()
    loops = any(isinstance(node, Block) and node.keeps == NOTHING for node in nodes)
    for node in nodes:
        yield from _of((node,), dtype, 1, rows, once=loops and isinstance(node, Op))


def _of(
    nodes: Iterable[Node], dtype: str, times: Size, rows: set[str], *, once: bool
) -> Iterator[Communication]:
    """rows: dimensions of a token's copies, as far as they are known."""
    for node in nodes:
        if isinstance(node, Block):
            yield from _of(node.body, dtype, times * node.count, rows, once=once)
        elif node.axis and node.kind not in SILENT:
            whole = maximum(
                *(sum(tensor_bytes(t, node.sizes, dtype) for t in ts) for ts in (node.ins, node.outs))
            )
            first, op = (node.ins or node.outs)[0], node.of or node.name
            copies = product(node.sizes[d] for d in rows.intersection(first.dims))
            yield Communication(node.axis, node.kind, node.phase, first.name, whole, times, op, once, copies)
        elif node.tag == EXPERT_SEND and node.phase == "forward":
            rows.update(set(node.out.dims) - {d for t in node.ins for d in t.dims})
