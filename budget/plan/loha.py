"""LoHa: a weight's change is the elementwise product of two products of low rank (LyCORIS).

Both products are recomputed in the backward pass, by its own code. Source: peft.
"""

from __future__ import annotations

from ..config import setting
from ..ir import REMADE, Op, Tensor
from ..size import Size
from ._beside import FIELD, Layer, adapter

KEEPS_WEIGHTS = True
SETTINGS = {"loha_rank": setting(0, "rank of LoHa's products (peft: 8); all else is frozen", least=0)}
EXCLUDES = {"loha_rank": ("quantize",)}  # peft needs the weight's shape
ADAPTER = {"loha_rank": FIELD}


def loha(o: Op, rank: Size, dtype: str, dropout: bool) -> list[Op]:
    """One layer's operators with LoHa. Raises InputError."""
    layer = Layer(o, FIELD, dtype, R=rank)
    own, whole = layer.own(), (*layer.fan_out, *layer.fan_in)

    def low(label: str) -> Tensor:
        pair = (
            layer.weight(f"{label}_a", *layer.fan_out, "R"),
            layer.weight(f"{label}_b", "R", *layer.fan_in),
        )
        made = layer.do(label, "contract", pair, whole)
        layer.ops[-1] = layer.ops[-1]._replace(tag=REMADE)
        return made

    product = layer.do("hada", "mul", (low("hada_w1"), low("hada_w2")), whole)
    delta = layer.do("hada_scale", "scale", (product,), whole)
    if dropout:
        delta = layer.rows_dropped(delta, scaled=True)
    layer.end("add", own, layer.do("delta", "contract", (layer.cast(layer.x), delta), o.out.dims))
    return layer.ops


STAGES = {"adapt": adapter("loha_rank", loha, dropout="rank_dropout", plain=True)}
