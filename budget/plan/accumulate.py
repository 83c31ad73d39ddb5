"""Accumulate gradients over micro-batches: forward and backward several times, one optimizer step.

The program is repeated with the same weights. A gradient that is there already is added to in place,
so the new one is a temporary (fold/memory.py). Derived.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ..config import setting
from ..fold.count import trained, training
from ..ir import ADDS, NOTHING, STATE, Block, Carry, Model, Node, Op, walk
from ..size import Size
from ._names import is_trained
from ._states import all_gradients

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
    nodes: tuple[Node, ...] = (micro, *_sums(model, steps - 1))
    return model._replace(nodes=nodes, samples=model.samples * steps, tokens=model.tokens * steps)


def _sums(model: Model, times: Size) -> Iterator[Op]:
    """Autograd's sums of new gradients and old ones, a kernel a weight, where no product adds them."""
    if any(o.tag == ADDS for o, _ in walk(model.nodes)):
        return
    sizes, weights = trained(model), Counter[str]()
    for t, _, copies in training(model):
        weights[t.dtype] += copies
    for dtype, size in sizes.items():
        grads, sums = all_gradients(dtype), all_gradients(dtype)._replace(name="sums")
        more = times * weights[dtype] - 1  # kernels: its kind counts one
        elements = {"p": size * times}
        adds = Op("accumulate", "add", (grads, sums), (sums._replace(role=STATE),), elements, "backward")
        yield adds._replace(beside=(more, 0))


STAGES = {"accumulate": lambda model, task: accumulate(model, task.techniques.accumulate)}
