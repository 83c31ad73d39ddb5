"""DoRA: beside a low-rank adapter, a trained magnitude for each feature that a layer makes.

The weight's own change is computed once more from a unit matrix, for the norms of W + B A, which have no
gradient. With dropout the frozen product runs twice. Source: peft.
"""

from __future__ import annotations

from ..ir import Op
from ..size import Size
from ._beside import Layer


def dora(o: Op, rank: Size, dtype: str, dropout: bool) -> list[Op]:
    """One layer's operators with DoRA in place of LoRA. Raises InputError."""
    layer = Layer(o, "lora_targets", dtype, R=rank, I=Layer(o, "lora_targets").inputs)
    own, x = layer.own(), layer.cast(layer.x)
    if dropout:
        x = layer.do("lora_dropout", "dropout", (x,), x.dims)
    a, b = layer.weight("lora_A", "R", *layer.fan_in), layer.weight("lora_B", *layer.fan_out, "R")
    whole = ("I", *layer.fan_out)
    unit = layer.do("dora_unit", "fill", (), ("I", *layer.fan_in))
    half = layer.do("dora_half", "contract", (unit, a), ("I", "R"))
    change = layer.do("dora_change", "contract", (half, b), whole)
    w = layer.cast(layer.w)
    scaled = layer.do("dora_scale", "scale", (layer.do("dora_detach", "detach", (change,), whole),), whole)
    flat = layer.do("dora_w", "view", (w,), whole)
    norm = layer.do(
        "dora_norm", "reduce", (layer.do("dora_sum", "add", (flat, scaled), whole),), layer.fan_out
    )
    size = layer.do("dora_size", "mul", (layer.weight("lora_magnitude", *layer.fan_out), norm), layer.fan_out)
    low = layer.do("lora_A", "contract", (x, a), (*layer.rest, "R"))
    delta = layer.do("lora_B", "contract", (low, b), o.out.dims)
    less = layer.do("dora_less", "scale", (size,), size.dims)
    base = layer.do("dora_base", "contract", (x, w), o.out.dims) if dropout else layer.unbiased(own)
    left = layer.do("dora_left", "mul", (base, less), o.out.dims)
    right = layer.do("dora_right", "mul", (delta, size), o.out.dims)
    right = layer.do("lora_scale", "scale", (right,), o.out.dims)
    both = layer.do("dora_both", "add", (left, right), o.out.dims)
    layer.keep(change, unit, half, w)
    layer.end("add", own, both)
    return layer.ops
