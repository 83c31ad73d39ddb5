"""Accumulate gradients over micro-batches: forward and backward several times, one optimizer step.

The program is repeated with the same weights. A gradient that is there already is added to in place,
so the new one is a temporary (fold/memory.py). Derived.
"""

from __future__ import annotations

from ..config import Task, setting
from ..ir import NOTHING, Block, Carry, Model
from ._names import is_trained

SETTINGS = {"accumulate": setting(1, "micro-batches, of the batch each, before one optimizer step")}
NEEDS = {"accumulate": ("train",)}
UNNAMED = True


def accumulate(model: Model, steps: int) -> Model:
    """The training program over `steps` micro-batches. To be applied after `backward` and `recompute`.

    Raises InputError before the one and after `optimizer`.
    """
    if steps == 1:
        return model
    is_trained(model, "accumulate")
    outputs = tuple(Carry("", "", name) for name in model.outputs)
    micro = Block("micro", model.nodes, steps, shared=True, carry=outputs, keeps=NOTHING)
    return model._replace(nodes=(micro,), samples=model.samples * steps, tokens=model.tokens * steps)


def apply(model: Model, task: Task) -> Model:
    """The training program over its micro-batches."""
    return accumulate(model, task.techniques.accumulate)


STAGES = {"accumulate": apply}
