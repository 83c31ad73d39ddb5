"""Gradient accumulation fusion: a product adds a weight's gradient to the one that is there.

Operators that are no products make a gradient in the weights' dtype, which is cast and added
(plan/precision.py). Autograd expects a gradient of the weights' dtype nevertheless: Transformer Engine keeps
an empty dummy for each different shape of a matrix. The products of one input (queries, keys and values;
gate and up) share a matrix; each expert has its own. Sources: megatron-lm, transformer-engine.
"""

from __future__ import annotations

from ..config import Task, setting
from ..ir import (
    ADDS,
    ROUTER,
    TEMPORARY,
    WEIGHT,
    Model,
    Op,
    Tensor,
    base,
    elements,
    expert_axis,
    rewrite,
    walk,
)
from ..size import Size, product
from ._names import is_trained

SETTINGS = {
    "gradient_accumulation_fusion": setting(False, "products add to gradients of grad_dtype (Megatron)"),
    "dummy_gradients": setting(False, "and an empty one of each shape is kept (Transformer Engine)"),
}
NEEDS = {
    "gradient_accumulation_fusion": ("train",),
    "dummy_gradients": ("train", "gradient_accumulation_fusion"),
}


def fused(model: Model, *, dummies: bool) -> Model:
    """The program whose gradients are added in place. To be applied after `accumulate`. Raises InputError."""
    is_trained(model, "gradient_accumulation_fusion")

    def change(o: Op) -> tuple[Op]:
        made = o.phase == "backward" and any(t.role == WEIGHT for t in o.outs)
        return (o._replace(tag=ADDS) if made and (o.kind == "contract" or o.rule.casts) else o,)

    added = model._replace(nodes=rewrite(model.nodes, change))
    if not dummies:
        return added
    empty = _kept(added)
    kept = tuple(t.name for t in empty.outs)
    return added._replace(nodes=(empty, *added.nodes), outputs=(*added.outputs, *kept))


def _kept(model: Model) -> Op:
    """The operator that makes the empty gradients, which the program keeps."""
    shapes: dict[tuple[Size, Size], Size] = {}
    products: dict[str, list[tuple[Tensor, Op]]] = {}
    for o, _ in walk(model.nodes):
        if o.kind == "contract" and o.phase == "forward" and o.tag != ROUTER:
            for t in o.weights:
                if t.role == WEIGHT and not t.added:
                    products.setdefault(o.ins[0].name, []).append((t, o))
    for gradient in products.values():
        size = sum(_of_one(t, o) for t, o in gradient)
        t, o = gradient[0]
        shapes[size, product(o.sizes[d] for d in t.dims if d in o.ins[0].dims)] = size
    sizes = {f"p{i}": size for i, size in enumerate(shapes.values())}
    outs = tuple(Tensor(f"gradient~{dim}", (dim,), part=TEMPORARY) for dim in sizes)
    return Op("gradients.empty", "empty", (), outs, sizes, "backward")


def _of_one(t: Tensor, o: Op) -> Size:
    """Elements of a matrix; for experts, those of one."""
    axis = expert_axis(t, o)
    return elements(t, o.sizes) // o.sizes[base(axis)] if axis else elements(t, o.sizes)


def apply(model: Model, task: Task) -> Model:
    """The program with its gradients added in place."""
    t = task.techniques
    return fused(model, dummies=t.dummy_gradients) if t.gradient_accumulation_fusion else model


STAGES = {"sparse": apply}
