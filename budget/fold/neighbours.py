"""Neighbours: which operators run as one kernel, and in which order."""

from __future__ import annotations

from collections.abc import Sequence

from ..config import FUSED
from ..ir import FIRST, Block, Node, Op, gemm
from ..size import all_of


def key(node: Node, execution: str) -> tuple[str, str]:
    """What neighbours must share to run as one kernel; an empty name runs alone."""
    if isinstance(node, Block):
        return "", ""
    if node.ends:
        return f"product {node.ends}", node.phase
    alone = node.kind == "contract" or node.phase == "optimizer" or node.tag == FIRST
    fuses = execution != "eager" and not alone
    return node.kernel or ("pointwise" if fuses else ""), node.phase


def ordered(run: Sequence[Node], execution: str) -> list[tuple[Node, tuple[str, str]]]:
    """Operators in the order in which they run, with their keys.

    In a graph, products of one input run together, after the first. Weights in few bits are widened within a
    product in a graph, and in other executions if it has no more rows than their format's kernel takes.
    """
    kept: list[tuple[Node, tuple[str, str]]] = []
    ends: dict[str, int] = {}
    products: list[Op] = []
    for node in run:
        if isinstance(node, Op) and node.rule.family == "dequantize":
            products.append(node)
            continue
        if not products and execution not in FUSED:
            kept.append((node, key(node, execution)))
            continue
        if merged := _merged(node, execution, products):
            at = ends.get(merged[0], len(kept))
            ends = {name: end + (end > at) * (1 + len(products)) for name, end in ends.items()}
            ends[merged[0]] = at + 1 + len(products)
            kept[at:at] = [(o, merged) for o in (*products, node)]
        else:
            kept += [(o, key(o, execution)) for o in (*products, node)]
        products = []
    return [*kept, *((o, key(o, execution)) for o in products)]


def _merged(o: Node, execution: str, products: Sequence[Op]) -> tuple[str, str] | None:
    """The key of a product that runs together with products of the same input, or with what widens its
    weights.
    """
    if isinstance(o, Block) or o.kind != "contract" or o.kernel:
        return None
    if o.ends:
        return key(o, execution)
    fused = execution in FUSED
    most = [w.rule.rows for w in products if w.rule.tile or not fused]  # of an engine's own kernels, any
    g = gemm(o) if most else None
    if (g is None or not all_of(g.m <= min(most))) if most else not fused:
        return None
    return (f"products of {o.ins[0].name}" if fused else f"product {o.name}"), o.phase
