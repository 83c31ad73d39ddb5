"""BOFT: a layer's input is multiplied by an orthogonal matrix of blocks, and its output scaled.

As peft runs it without its own kernel: one butterfly factor, the rotation as a whole matrix. The backward
pass's product that inverts blocks is not counted; it is below 1e-4 of the FLOPs. Source: peft.
"""

from __future__ import annotations

from ..config import divides, setting
from ..ir import Op
from ..size import Size, exact_div
from ._beside import FIELD, Layer, adapter

KEEPS_WEIGHTS = True
SETTINGS = {
    "boft_block_size": setting(0, "width of BOFT's rotated blocks (peft: 4); all else is frozen", least=0),
    "boft_dropout": setting(0.0, "part of BOFT's blocks that rotate nothing in a step", least=0, most=1),
}
NEEDS = {"boft_dropout": ("boft_block_size",)}
ADAPTER = {"boft_block_size": FIELD}


def boft(o: Op, block: Size, dtype: str, dropout: bool) -> list[Op]:
    """One layer's operators with BOFT. Raises InputError."""
    width = Layer(o, FIELD).inputs
    divides("boft_block_size", block, f"{o.name}'s inputs", width)
    layer = Layer(
        o, FIELD, dtype, q=exact_div(width, block), k0=block, k1=block, w0=width, w1=width, w2=width
    )
    blocks, square = ("q", "k0", "k1"), ("w0", "w1")
    skew = layer.do("boft_skew", "skew", (layer.weight("boft_R", *blocks),), blocks)
    skew = layer.do("boft_half", "scale", (skew,), blocks)
    more = layer.do("boft_more", "scale", (skew,), blocks)
    less = layer.do("boft_less", "scale", (skew,), blocks)
    turned = layer.do("boft_solve", "mul", (more, less), blocks)
    if dropout:  # its masks are float32, and so is all that follows
        turned = layer.single("boft_masked", "scale", (turned,), blocks)
        units = layer.single("boft_eyes", "fill", (), blocks)
        units = layer.single("boft_units", "scale", (units,), blocks)
        turned = layer.single("boft_dropout", "add", (turned, units), blocks)
    whole = layer.put(
        "boft_whole", "pad", (turned,), turned._replace(name=f"{o.out.name}~whole", dims=square)
    )
    whole, order = layer.uncast(whole), layer.given("boft_P", *square)._replace(dtype="")
    right = layer.plain("boft_right", "contract", (whole, order._replace(dims=("w2", "w1"))), ("w0", "w2"))
    both = layer.plain("boft_left", "contract", (order._replace(dims=("w1", "w0")), right), ("w1", "w2"))
    eye = layer.plain("boft_eye", "fill", (), ("w2", "w0"))
    rotation = layer.plain("boft_rotation", "contract", (both, eye), ("w1", "w0"))
    x = layer.plain("boft_flat", "view", (layer.x,), (*layer.rest, "w1"))
    x = layer.plain("boft_rotate", "contract", (x, rotation), (*layer.rest, "w0"))
    x = layer.plain("boft_back", "view", (x,), layer.x.dims)
    own = layer.of(x, o.out._replace(name=f"{o.out.name}~base"))
    layer.without_bias(own, "mul", layer.weight("boft_s", *layer.fan_out))
    return layer.ops


STAGES = {"adapt": adapter("boft_block_size", boft, dropout="boft_dropout", plain=True)}
