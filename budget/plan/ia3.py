"""(IA)^3: learned vectors that scale the keys, the values and the input of an MLP's second layer.

Source: peft.
"""

from __future__ import annotations

from .. import table
from ..config import Task, setting
from ..ir import Model, Op
from ._beside import FIELD, Layer, adapt, matched, targets, wide

KEEPS_WEIGHTS = True
SETTINGS = {"ia3": setting(False, "learned scales of layers (IA3); all else is frozen")}
NEEDS = {"ia3": ("train",)}
ADAPTER = {"ia3": FIELD}


def ia3(model: Model, names: frozenset[str], inputs: frozenset[str], dtype: str = "") -> Model:
    """The model with scales of the products' outputs, or of the inputs of those in `inputs`."""

    def change(o: Op) -> list[Op]:
        layer = Layer(o, FIELD, dtype)
        if o.name in inputs:
            scale = layer.weight("ia3", *layer.fan_in)
            scaled = layer.do("scale", "mul", (layer.cast(layer.x), scale), layer.x.dims)
            layer.of(layer.uncast(scaled))
        else:
            layer.end("mul", layer.own(), layer.weight("ia3", *layer.fan_out))
        return layer.ops

    return adapt(model, names, change)


def apply(model: Model, task: Task) -> Model:
    """The model with its learned scales."""
    family = table.load("peft.json")["families"].get(task.family, {})
    inputs = matched(model, family.get("feedforward", "mlp.down"))
    return ia3(model, targets(model, task, "ia3"), inputs, wide(task))


STAGES = {"adapt": apply}
