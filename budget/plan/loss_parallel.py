"""Losses written for a vocabulary that is divided over devices, with the tensors that their code allocates.

dtensor: torch's loss_parallel, where tp divides the logits. Its backward pass makes the gradient of the
logits in one step, from four float32 tensors of the logits' size: the log-probabilities, the classes, and
two for their exponentials, sums and products.
in_place: Megatron's, with or without tp. A float32 copy of the logits becomes their exponentials, then
probabilities, then the gradient. native: the same compiled (--cross-entropy-loss-fusion), whose exponentials
are another copy. Sources: torch-loss-parallel, megatron-cross-entropy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..config import Task, setting
from ..errors import InputError
from ..ir import LOSS, Model, Op, rewrite, walk
from ..size import is_one
from .fused import OF_LOSS

SETTINGS = {
    "loss_parallel": setting(
        "none",
        "a loss written for a divided vocabulary (torch's), or Megatron's: in place, or native (fused)",
        choices=("none", "dtensor", "in_place", "native"),
    )
}
NEEDS = {"loss_parallel": ("train",)}
# By choice, the kinds of the forward operators, and of their backward ones.
FORWARD: Mapping[str, Mapping[str, str]] = {"in_place": {"log_softmax": "log_softmax_"}}
IN_PLACE = {"nll": "nll_", "log_softmax": "view"}
BACKWARD: Mapping[str, Mapping[str, str]] = {
    "dtensor": {"nll": "nll_parallel", "log_softmax": "view"},
    "in_place": IN_PLACE,
    "native": IN_PLACE,
}
OF_MEGATRON = ("in_place", "native")


def widened(model: Model) -> Model:
    """The network whose loss begins with a float32 copy of the logits, while a variable holds these. To be
    applied before `backward`.
    """
    copies: dict[str, str] = {}

    def change(o: Op) -> Iterator[Op]:
        x = o.ins[0] if o.ins else None
        if o.tag != LOSS or x is None or o.kind not in ("cast", "log_softmax"):
            yield o
        elif o.kind == "cast":
            copies[o.out.name] = x.name
            yield o
        elif x.dtype == "float32":
            yield o._replace(callers=(*o.callers, *filter(None, (copies.get(x.name),))))
        else:
            made, held = x._replace(name=f"{x.name}~float32", dtype="float32"), (*o.callers, x.name)
            yield Op(f"{o.name}.upcast", "cast", (x,), (made,), o.sizes, tag=LOSS, callers=held)
            outs = (o.out._replace(dtype="float32"), *o.outs[1:])
            yield o._replace(ins=(made, *o.ins[1:]), outs=outs, callers=held)

    return model._replace(nodes=rewrite(model.nodes, change))


def parallel(model: Model, choice: str) -> Model:
    """The training program whose loss is one of these. To be applied after `backward`."""
    of_loss = {o.name: o.kind for o, _ in walk(model.nodes) if o.phase == "forward" and _eager(o)}

    def change(o: Op) -> tuple[Op]:
        if o.name in of_loss and o.phase == "forward":
            return (o._replace(kind=FORWARD.get(choice, {}).get(o.kind, o.kind)),)
        kind = BACKWARD[choice].get(o.kind) if o.of in of_loss else None
        if kind is None:
            return (o,)
        return (o._replace(kind=kind, ins=o.ins[:1] if kind == "view" else o.ins),)

    return model._replace(nodes=rewrite(model.nodes, change))


def _eager(o: Op) -> bool:
    return o.tag == LOSS and not o.kernel


def check(task: Task, device: object) -> None:
    """Raise an InputError for what a loss of this kind excludes."""
    t = task.techniques
    if t.loss_parallel not in OF_MEGATRON:  # a fused loss has no DTensor
        return
    if set(OF_LOSS).intersection(name.strip() for name in t.fuse.split(",")):
        raise InputError(
            "loss_parallel", f"got {t.loss_parallel} with fuse {t.fuse}; allowed: with an unfused loss"
        )
    for name in ("loss_chunk", "hold_logits"):
        if name in t.used:
            raise InputError("loss_parallel", f"got {t.loss_parallel} with {name}; allowed: one of them")


def apply_gradients(model: Model, task: Task) -> Model:
    """The training program with its loss as it is written; DTensor's is torch's own where tp is 1."""
    choice = task.techniques.loss_parallel
    alone = task.layout is None or is_one(task.layout.tp)
    return model if choice == "dtensor" and alone else parallel(model, choice)


STAGES = {
    "fuse": lambda model, task: widened(model) if task.techniques.loss_parallel in OF_MEGATRON else model,
    "gradients": apply_gradients,
}
