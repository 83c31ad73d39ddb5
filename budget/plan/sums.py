"""Where autograd adds up the gradients that a tensor receives from its readers.

On a device a sum overwrites one of its two summands. It is a third tensor where gradients are tensor
subclasses (DTensor: tensor parallelism in torchtitan) or calls are recorded (FakeTensor, MemTracker), since a
subclass may
not be writable. Source: torch-accumulate.
"""

from __future__ import annotations

from ..config import setting
from ..ir import Model, Op, rewrite

SETTINGS = {
    "gradient_sums": setting(
        "in_place", "where gradients of one tensor are added up (new: DTensor's)", choices=("in_place", "new")
    )
}
NEEDS = {"gradient_sums": ("train",)}
APART = {
    "accumulate": "sum_gradients",
    "reorder": "reorder_new",
    "scan": "scan_new",
}  # a kind, and the same not in place


def into_new(model: Model) -> Model:
    """The training program whose sums of gradients are tensors of their own."""

    def change(o: Op) -> tuple[Op]:
        return (o._replace(kind=APART[o.kind]) if o.phase == "backward" and o.kind in APART else o,)

    return model._replace(nodes=rewrite(model.nodes, change))


STAGES = {
    "gradients": lambda model, task: into_new(model) if task.techniques.gradient_sums == "new" else model
}
