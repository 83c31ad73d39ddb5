"""Biases that train beside an adapter: the setting `bias` of peft's LoRA and others. Source: peft."""

from __future__ import annotations

from ..config import setting
from ..errors import InputError
from ..ir import FROZEN, SUMMAND, WEIGHT, Model, Op, rewrite, walk

SETTINGS = {
    "adapter_bias": setting(
        "none",
        "biases that train beside an adapter (peft's bias): all, or those of adapted layers",
        choices=("none", "all", "lora_only"),
    )
}
NEEDS = {"adapter_bias": ("train", "adapter")}


def biases(model: Model, which: str) -> Model:
    """The model with adapters whose biases train, or those of the layers that have one. Raises InputError."""

    def trains(o: Op) -> bool:
        own = which == "all" or (o.kind == "contract" and o.out.part == SUMMAND)
        return own and any(t.added and t.role == FROZEN for t in o.ins)

    def change(o: Op) -> tuple[Op]:
        ins = (t._replace(role=WEIGHT) if t.added and t.role == FROZEN else t for t in o.ins)
        return (o._replace(ins=tuple(ins)) if trains(o) else o,)

    if not any(trains(o) for o, _ in walk(model.nodes)):
        raise InputError("adapter_bias", f"{model.name} has no such bias; allowed: none")
    return model._replace(nodes=rewrite(model.nodes, change))


STAGES = {"bottom": lambda model, task: biases(model, task.techniques.adapter_bias)}
