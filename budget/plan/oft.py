"""OFT: a layer's input is rotated, block by block, before its frozen weight.

A rotation is made of a skew-symmetric matrix by Cayley's transform, as a Neumann series of five terms.
Source: peft.
"""

from __future__ import annotations

from ..config import setting
from ..ir import Op
from ..size import Size, exact_div, is_number
from ._beside import FIELD, Layer, adapter

KEEPS_WEIGHTS = True
SETTINGS = {
    "oft_block_size": setting(0, "width of OFT's rotated blocks (peft: 32); all else is frozen", least=0)
}
ADAPTER = {"oft_block_size": FIELD}


def fitting(width: Size, block: Size) -> Size:
    """The block that peft takes: the divisor of the width that is closest, the lower one of two."""
    if not (is_number(width) and is_number(block)):
        return block
    if block >= width:
        return width
    low = next(n for n in range(block, 0, -1) if width % n == 0)
    high = next(n for n in range(block, width + 1) if width % n == 0)
    return low if block - low <= high - block else high


def oft(o: Op, block: Size, dtype: str, dropout: bool) -> list[Op]:
    """One layer's operators with OFT. Raises InputError."""
    width = Layer(o, FIELD).inputs
    k = fitting(width, block)
    upper = exact_div(k * (k - 1), 2)
    layer = Layer(o, FIELD, dtype, q=exact_div(width, k), k0=k, k1=k, u=upper)
    x, square = layer.cast(layer.x), ("q", "k0", "k1")
    half = layer.do("oft_upper", "pad", (layer.weight("oft_R", "q", "u"),), square)
    skew = layer.do("oft_skew", "skew", (half,), square)
    rotation = layer.do("oft_eye", "fill", (), square)
    power = skew
    for term in range(1, 5):
        if term > 1:
            right = skew._replace(dims=("q", "k1", "k2"))
            layer.sizes = {**layer.sizes, "k2": k}
            power = layer.do(f"oft_power{term}", "contract", (power, right), ("q", "k0", "k2"))._replace(
                dims=square
            )
        part = layer.do(f"oft_term{term}", "scale", (power,), square) if term < 4 else power
        rotation = layer.do(f"oft_sum{term}", "add_", (rotation, part), square)
    blocks = layer.do("oft_blocks", "view", (x,), (*layer.rest, "q", "k0"))
    turned = layer.do("oft_rotate", "contract", (blocks, rotation), (*layer.rest, "q", "k1"))
    whole = layer.do("oft_join", "view", (turned,), layer.x.dims)
    whole = layer.do("oft_lay", "contiguous", (whole,), layer.x.dims)
    layer.of(layer.uncast(whole))
    return layer.ops


STAGES = {"adapt": adapter("oft_block_size", oft, plain=True)}
