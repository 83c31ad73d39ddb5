"""Freeze parts of a network: their weights have no gradient and no optimizer state.

What is saved for the backward pass then follows: a product with a frozen weight does not save its input,
and below the lowest trained operator nothing is saved. Derived.
"""

from __future__ import annotations

from collections.abc import Collection

from ..config import Task, setting
from ..ir import FROZEN, WEIGHT, Model, Op, rewrite, walk
from ._layers import first_layers
from ._names import chosen, untrained

SETTINGS = {
    "freeze": setting("", "names of operators whose weights do not train"),
    "freeze_layers": setting(0, "first layers that do not train, with the embeddings", least=0),
}
NEEDS = {"freeze": ("train",), "freeze_layers": ("train",)}


def freeze(model: Model, patterns: str) -> Model:
    """The model without gradients for the weights of the operators that match. Raises InputError."""
    untrained(model, "freeze")
    names = chosen(model, "freeze", patterns)
    return frozen(model, {t.name for o, _ in walk(model.nodes) if o.name in names for t in o.weights})


def freeze_layers(model: Model, first: int) -> Model:
    """The model with its first layers frozen, and what lies before them. Raises InputError."""
    untrained(model, "freeze_layers")
    low, high = first_layers(model, "freeze_layers", first)
    below = frozen(model._replace(nodes=low), None)
    tied = {t.name for node in low if isinstance(node, Op) for t in node.weights}
    return model._replace(nodes=(*below.nodes, *frozen(model._replace(nodes=high), tied).nodes))


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


def apply(model: Model, task: Task) -> Model:
    """The model with what is named frozen."""
    names = task.techniques.freeze
    return freeze(model, names) if names else model


def apply_layers(model: Model, task: Task) -> Model:
    """The model with its first layers frozen, adapters that they have included."""
    first = task.techniques.freeze_layers
    return freeze_layers(model, first) if first else model


STAGES = {"freeze": apply, "bottom": apply_layers}
