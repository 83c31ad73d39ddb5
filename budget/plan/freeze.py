"""Freeze parts of a network: their weights have no gradient and no optimizer state.

The backward pass then saves less by itself: a product with a frozen weight does not keep its input,
and below the lowest trained operator nothing is kept at all. Derived.
"""

from __future__ import annotations

from collections.abc import Collection

from ..errors import InputError
from ..model import Block, Model, pieces, rewrite, walk
from ..op import FROZEN, WEIGHT, Op
from ._names import chosen, untrained


def freeze(model: Model, patterns: str) -> Model:
    """The model without gradients for the weights of the operators that match. Raises InputError."""
    untrained(model, "freeze")
    names = chosen(model, "freeze", patterns)
    return frozen(model, {t.name for o, _ in walk(model.nodes) if o.name in names for t in o.weights})


def freeze_layers(model: Model, first: int) -> Model:
    """The model with the first layers of its first stack frozen, and what lies before them."""
    untrained(model, "freeze_layers")
    at = next((i for i, node in enumerate(model.nodes) if isinstance(node, Block) and not node.shared), None)
    if at is None:
        raise InputError("freeze_layers", f"{model.name} has no repeated layers; allowed: 0")
    before, stack, after = model.nodes[:at], model.nodes[at], model.nodes[at + 1 :]
    assert isinstance(stack, Block)
    low, *high = pieces(stack, first)
    below = frozen(model._replace(nodes=(*before, low)), None)
    tied = {t.name for o, _ in walk(before) for t in o.weights}
    return model._replace(nodes=(*below.nodes, *high, *frozen(model._replace(nodes=after), tied).nodes))


def frozen(model: Model, names: Collection[str] | None) -> Model:
    """The model with weights of these names frozen; None: all of them."""

    def change(o: Op) -> tuple[Op]:
        if not o.weights:
            return (o,)
        ins = (
            t._replace(role=FROZEN) if t.role == WEIGHT and (names is None or t.name in names) else t
            for t in o.ins
        )
        return (o._replace(ins=tuple(ins)),)

    return model._replace(nodes=rewrite(model.nodes, change))
