"""Weights' gradients that products add to those that are there, without a new one beside them.

added: a product adds its result to the weight's gradient in place, once there is one. dummies: so too, and
for autograd, which wants a gradient, an empty one in the weights' dtype is kept for ever, one for each
different shape of a matrix; the products of one input (queries, keys and values; gate and up) have one
matrix, and of experts each has its own. Sources: megatron-lm, transformer-engine.
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
    "main_grads": setting(
        "new",
        "products make new gradients, or these are added in place; dummies: with Transformer Engine's own",
        choices=("new", "added", "dummies"),
    )
}
NEEDS = {"main_grads": ("train",)}


def main_grads(model: Model, *, dummies: bool) -> Model:
    """The program whose products add to gradients in place. To be applied after `accumulate`."""
    is_trained(model, "main_grads")

    def change(o: Op) -> tuple[Op]:
        if o.phase != "backward" or not any(t.role == WEIGHT for t in o.outs):
            return (o,)
        if o.kind == "contract":
            return (o._replace(tag=ADDS),)
        # What is no product makes a gradient in the weight's dtype, which is added to the one that is there.
        own = (Tensor(f"{t.name}#own", t.dims, part=TEMPORARY, of=t.name) for t in o.outs if t.role == WEIGHT)
        return (o._replace(tag=ADDS, outs=(*o.outs, *own)),)

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
    for found in products.values():
        size = sum(_of_one(t, o) for t, o in found)
        t, o = found[0]
        shapes[size, product(o.sizes[d] for d in t.dims if d in o.ins[0].dims)] = size
    sizes = {f"p{i}": size for i, size in enumerate(shapes.values())}
    outs = tuple(Tensor(f"gradient~{dim}", (dim,), part=TEMPORARY) for dim in sizes)
    return Op("gradients.empty", "empty", (), outs, sizes, "backward")


def _of_one(t: Tensor, o: Op) -> Size:
    """Elements of a matrix; of experts, those of one."""
    axis = expert_axis(t, o)
    return elements(t, o.sizes) // o.sizes[base(axis)] if axis else elements(t, o.sizes)


def apply(model: Model, task: Task) -> Model:
    """The program with its gradients added in place."""
    how = task.techniques.main_grads
    if how == "new":
        return model
    return main_grads(model, dummies=how == "dummies")


STAGES = {"sparse": apply}
