"""AdaLoRA: low-rank adapters as singular vectors and values, whose ranks are cut down during training.

The step that is counted has the rank with which training starts. Source: peft.
"""

from __future__ import annotations

from ..config import setting
from ..ir import FROZEN, Op
from ..size import Size
from ._beside import FIELD, Layer, adapter

KEEPS_WEIGHTS = True
SETTINGS = {
    "adalora_rank": setting(0, "AdaLoRA's rank at first (peft's init_r: 12); all else is frozen", least=0)
}
ADAPTER = {"adalora_rank": FIELD}
LEFT_OUT = "AdaLoRA's penalty for vectors that are not orthogonal"


def adalora(o: Op, rank: Size, dtype: str, dropout: bool) -> list[Op]:
    """One layer's operators with AdaLoRA. Raises InputError."""
    layer = Layer(o, FIELD, dtype, R=rank, one=1)
    own, x = layer.own(), layer.cast(layer.x)
    if dropout:
        x = layer.do("lora_dropout", "dropout", (x,), x.dims)
    a, b = layer.weight("lora_A", "R", *layer.fan_in), layer.weight("lora_B", *layer.fan_out, "R")
    number = layer.weight("ranknum", "one")
    if not dtype:  # peft's cast to float32 makes a parameter of it
        number = number._replace(role=FROZEN)
    number = layer.do("ranknum", "scale", (number,), ("one",))
    a = layer.do("values", "mul", (a, layer.weight("lora_E", "R")), a.dims)
    low = layer.do("lora_A", "contract", (x, a), (*layer.rest, "R"))
    delta = layer.do("lora_B", "contract", (low, b), o.out.dims)
    delta = layer.do("lora_scale", "scale", (delta,), delta.dims)
    delta = layer.do("lora_rank", "mul", (delta, number), delta.dims)
    layer.put("lora_add", "add_", (own, layer.uncast(delta)), o.out)
    return layer.ops


ADAPT = adapter("adalora_rank", adalora, dropout="lora_dropout")


STAGES = {"adapt": lambda model, task: ADAPT(model, task)._replace(uncounted=(*model.uncounted, LEFT_OUT))}
