"""LoKr: a weight's change is the Kronecker product of a small matrix and another one, of low rank (LyCORIS).

Source: peft.
"""

from __future__ import annotations

from ..config import setting
from ..errors import InputError
from ..ir import Op
from ..size import Size, is_number
from ._beside import FIELD, Layer, adapter

KEEPS_WEIGHTS = True
SETTINGS = {"lokr_rank": setting(0, "rank of LoKr's larger factor (peft: 8); all else is frozen", least=0)}
EXCLUDES = {"lokr_rank": ("quantize",)}  # peft needs the weight's shape
ADAPTER = {"lokr_rank": FIELD}


def factors(n: int) -> tuple[int, int]:
    """The two factors of a whole number that are closest to each other, the smaller one first."""
    small = max(m for m in range(1, int(n**0.5) + 1) if n % m == 0)
    return small, n // small


def lokr(o: Op, rank: Size, dtype: str, dropout: bool) -> list[Op]:
    """One layer's operators with LoKr. Raises InputError."""
    plain = Layer(o, FIELD)
    if not all(map(is_number, (plain.inputs, plain.outputs, rank))):
        raise InputError(
            "lokr_rank", "factors of a size are those of one number; allowed: no arrays, no symbols"
        )
    (k1, k2), (m1, m2) = factors(plain.outputs), factors(plain.inputs)
    layer = Layer(o, FIELD, dtype, R=rank, k1=k1, k2=k2, m1=m1, m2=m2)
    own = layer.own()
    if rank < max(k2, m2) / 2:
        pair = layer.weight("lokr_w2_a", "k2", "R"), layer.weight("lokr_w2_b", "R", "m2")
        large = layer.do("lokr_w2", "contract", pair, ("k2", "m2"))
    else:
        large = layer.weight("lokr_w2", "k2", "m2")
    small = layer.weight("lokr_w1", "k1", "m1")
    product = layer.do("kron", "mul", (small, large), ("k1", "k2", "m1", "m2"))
    scaled = layer.do("kron_scale", "scale", (product,), product.dims)
    delta = layer.do("kron_view", "view", (scaled,), (*layer.fan_out, *layer.fan_in))
    if dropout:
        delta = layer.rows_dropped(delta, scaled=False)
    layer.end("add", own, layer.do("delta", "contract", (layer.cast(layer.x), delta), o.out.dims))
    return layer.ops


STAGES = {"adapt": adapter("lokr_rank", lokr, dropout="rank_dropout", plain=True)}
