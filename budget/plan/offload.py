"""Offload to the host's memory: activations until the backward pass needs them, optimizer states
until the step does. What leaves the device crosses the host's link, twice.

Activations: what a layer saves is copied when it is made and freed after its last reader; it is fetched
back before the first reader in the backward pass. Where layers are recomputed that is their input.
Sources: zero-infinity, torch-save-on-cpu.
"""

from __future__ import annotations

from ..config import Task, setting
from ..errors import InputError, unknown
from ..ir import HOST, STATE, Model, Op, Tensor, rewrite, walk
from ._exchange import Known, exchanged
from ._names import is_trained

OFFLOADED = ("none", "activations", "optimizer")
SETTINGS = {"offload": setting("none", "activations, optimizer, or both by commas, to the host")}
NEEDS = {"offload": ("train",)}
UNNAMED = True


def offloaded(names: str) -> frozenset[str]:
    """What is offloaded, from names by commas. Raises InputError."""
    chosen = frozenset(name.strip() for name in names.split(",") if name.strip())
    for name in chosen:
        if name not in OFFLOADED:
            raise unknown("offload", name, OFFLOADED)
    return chosen - {"none"}


def offload_activations(model: Model) -> Model:
    """The training program with what its repeated layers keep on the host; without such layers, with all
    that the forward pass keeps. After `recompute`.
    """
    is_trained(model, "offload")
    nodes = exchanged(model, lambda known: True, _host)
    if not any(o.kind == "offload" for o, _ in walk(nodes)):
        raise InputError("offload", f"{model.name} keeps no activations of its layers; allowed: optimizer")
    return model._replace(nodes=nodes)


def offload_optimizer(model: Model) -> Model:
    """The training program with its optimizer's states on the host. After `optimizer`."""
    if not any(t.role == STATE for o, _ in walk(model.nodes) for t in o.ins):
        raise InputError("offload", "the optimizer has no state; allowed: one that has, as adamw")

    def hosted(ts: tuple[Tensor, ...], o: Op) -> tuple[Tensor, ...]:
        own = {t.name for t in o.ins if t.role == STATE}
        return tuple(t._replace(role=HOST) if t.name in own else t for t in ts)

    def change(o: Op) -> tuple[Op]:
        return (o._replace(ins=hosted(o.ins, o), outs=hosted(o.outs, o)) if o.phase == "optimizer" else o,)

    return model._replace(nodes=rewrite(model.nodes, change))


def _copy(kind: str, known: tuple[Tensor, Op]) -> Op:
    t, o = known
    there = t._replace(name=f"{t.name}@host", role=HOST)
    ins, outs = ((t,), (there,)) if kind == "offload" else ((there,), (t,))
    return Op(
        f"{o.name}.{kind}", kind, ins, outs, o.sizes, "forward" if kind == "offload" else "backward", o.name
    )


def _host(known: Known) -> tuple[Op, Op]:
    """The copies to the host and back."""
    return _copy("offload", known), _copy("reload", known)


def check(task: Task, device: object) -> None:
    """Raise an InputError for a name of something else."""
    offloaded(task.techniques.offload)


def apply(model: Model, task: Task) -> Model:
    """The training program with its activations on the host, where they are named."""
    return offload_activations(model) if "activations" in offloaded(task.techniques.offload) else model


def apply_states(model: Model, task: Task) -> Model:
    """The training program with its optimizer's states on the host, where they are named."""
    return offload_optimizer(model) if "optimizer" in offloaded(task.techniques.offload) else model


STAGES = {"offload": apply, "states": apply_states}
