"""Selective activation checkpointing: which operators' results a recomputed layer keeps.

torch names calls whose results are kept (create_selective_checkpoint_contexts); a layer's other operators are
recomputed, and its input is kept. `keep_second_products` is torchtitan's: every other product with a weight,
beginning with the first. Attention's kernel is one call; without a kernel its products are recomputed.
Sources: torch-sac, torchtitan.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..ir import COPY, Node, Op
from ._sdpa import FUSABLE

EVERY = {
    "keep_attention": 0,
    "keep_second_products": 2,
    "keep_products": 1,
}  # of how many products one is kept


def without_kept(
    layer: Sequence[Node], again: Sequence[Node], policy: str
) -> tuple[tuple[Node, ...], tuple[str, ...]]:
    """The operators of a layer that run again, and the kept results that none of them reads: those stay until
    the layer is done. again: what would run again without a policy.
    """
    stay = {o.name: o for o in _kept(layer, policy)}
    body: list[Node] = []
    for node in again:
        if isinstance(node, Op) and node.name in stay:
            body += _casts(node)
        else:
            body.append(node)
    reads = {t.name for o in body if isinstance(o, Op) for t in o.ins}
    made = (t for o in stay.values() for t in o.outs if not t.on_chip and t.part != COPY)
    return tuple(body), tuple(t.name for t in made if t.name not in reads)


def _kept(layer: Sequence[Node], policy: str) -> Iterator[Op]:
    """The operators whose results a policy keeps."""
    every, products = EVERY[policy], 0
    casts = {t.name for o in layer if isinstance(o, Op) and o.rule.casts and o.weights for t in o.outs}
    for o in layer:
        if not isinstance(o, Op):
            continue
        if o.kernel == FUSABLE:
            yield o
        elif o.kind == "contract" and (o.weights or any(t.name in casts for t in o.ins)):
            if every and products % every == 0:
                yield o
            products += 1


def _casts(o: Op) -> Iterator[Op]:
    """Casts that are recomputed though their operator's result is kept: masks in its kernel's dtype."""
    for t in o.outs[1:]:
        if t.part == COPY:
            source = next(u for u in o.ins if u.name == t.of)
            yield o._replace(kind="cast", ins=(source,), outs=(t._replace(part=""),), kernel="", group="")
