"""What works element by element, and recurrent cells."""

from __future__ import annotations

from .rule import ANSWERS_SINGLE, AS_INPUT, KEPT, LOW, OUT, OUTPUT, SINGLE, Rule, Save, X, Y, Z

RULES: dict[str, Rule] = {
    "mul": Rule(1, 2, (X, Y), cross=True, factors=True),
    # the same of what experts make, of which a copy in the tokens' order is added up
    "weigh": Rule(1, 2, (X, Y), cross=True, factors=True, most=(2, 0)),
    "weigh_wide": Rule(1, 2, (X, Y), cross=True, factors=True, most=(2, 1)),  # both of them in float32
    "scale": Rule(1, 1, additive=True),
    # the same of what is cast for it and copied for a product of batches
    "upcast_scale": Rule(1, 1, additive=True, launches=3, back_launches=2, narrow=(1, 1)),
    "skew": Rule(1, 2, back_launches=2, additive=True),  # a matrix less its transpose
    # x (1 + scale) + shift, these two of all rows of a sample
    "modulate": Rule(2, 4, (X, Y), launches=3, back_launches=4, moves=(4, 0), back_moves=(7, 0)),
    "mask": Rule(1, 0, linear=True),
    "mask_made": Rule(1, 0, linear=True, launches=4, moves=(2, 0)),  # made of booleans first
    "mask_rows": Rule(1, 1, (Y,), inplace=True, plain="masked_fill"),  # by a number for each
    "masked_fill": Rule(1, 1, (Y,)),  # by booleans, which its gradient needs, too
    "mask_dense": Rule(
        1, 0, (Save("mask", like=1, own=True, copy=True),), apart=3
    ),  # as SDPA turns choices into numbers
    "exp": Rule(1, 1, (OUTPUT,), autocast=(SINGLE, ""), torch=("exp",)),
    "clamp": Rule(1, 1, (X,)),
    "relu": Rule(1, 1, (OUTPUT,), family="activation", torch=("relu", "threshold"), config=("relu",)),
    "relu_": Rule(1, 1, (OUTPUT,), inplace=True, plain="relu", family="activation"),
    "relu6": Rule(2, 1, (X,), family="activation"),
    "relu6_": Rule(2, 1, (KEPT,), inplace=True, plain="relu6", family="activation"),
    "silu_": Rule(4, 7, (KEPT,), inplace=True, plain="silu", family="activation"),
    "hardtanh": Rule(2, 1, (X,), family="activation", torch=("hardtanh",)),
    "hardtanh_": Rule(2, 1, (KEPT,), inplace=True, plain="hardtanh", family="activation"),
    "hardswish": Rule(4, 5, (X,), family="activation", torch=("hardswish",)),
    "hardswish_": Rule(4, 5, (KEPT,), inplace=True, plain="hardswish", family="activation"),
    "hardsigmoid": Rule(3, 2, (X,), family="activation", torch=("hardsigmoid",)),
    "sigmoid": Rule(3, 3, (OUTPUT,), family="activation", torch=("sigmoid",)),
    "tanh": Rule(3, 3, (OUTPUT,), family="activation", measured=True, torch=("tanh",)),
    "softcap": Rule(
        5,
        5,
        (Save("tanh", like=OUT),),
        launches=3,
        back_launches=3,
        fused="softcap_fused",
        moves=(6, 0),
        back_moves=(7, 0),
    ),
    "softcap_fused": Rule(5, 5, (OUTPUT,)),
    "gelu": Rule(
        8, 14, (X,), family="activation", measured=True, torch=("gelu",), config=("gelu", "gelu_python")
    ),
    "gelu_tanh": Rule(10, 18, (X,), family="activation", torch=("gelu_tanh",), config=("gelu_pytorch_tanh",)),
    "gelu_new": Rule(  # the same written out, so that autograd keeps its parts
        10,
        13,
        (X, Save("half"), Save("tanh"), Save("one")),
        launches=8,
        back_launches=11,
        autocasts_as="gelu_new_autocast",
        fused="gelu_tanh",
        most=(3, 0),
        back_most=(7, 0),
        family="activation",
        measured=True,
        config=("gelu_new", "gelu_fast"),
        moves=(18, 0),
        back_moves=(28, 0),
    ),
    "gelu_new_autocast": Rule(  # its cube is float32, and so is all that is made with it
        10,
        13,
        (
            Save("up", dtype="float32", copy=True),
            Save("half"),
            Save("tanh", dtype="float32"),
            Save("one", dtype="float32"),
        ),
        launches=9,
        back_launches=12,
        back_most=(0, 7),
        lets_go="gelu_new_again",
        family="activation",
        moves=(18, 0),
        back_moves=(28, 0),
        autocast=(ANSWERS_SINGLE, ""),
    ),
    "quick_gelu": Rule(
        5,
        7,
        (X, Save("sigmoid")),
        fused="quick_gelu_fused",
        launches=3,
        back_launches=5,
        most=(2, 0),
        back_most=(5, 0),
        family="activation",
        config=("quick_gelu",),
        moves=(7, 0),
        back_moves=(14, 0),
    ),
    "quick_gelu_fused": Rule(5, 7, (X,), family="activation"),
    "clamped_glu": Rule(  # (up + 1) x gate x sigmoid(1.702 gate), both clamped before (gpt-oss)
        9,
        15,
        (X, Y, Save("gate"), Save("sigmoid"), Save("up"), Save("glu")),
        launches=7,
        back_launches=15,
        family="activation",
        moves=(16, 0),
        back_moves=(31, 0),
    ),
    "silu": Rule(4, 7, (X,), family="activation", measured=True, torch=("silu",), config=("silu", "swish")),
    "softplus": Rule(4, 4, (X,), autocast=(SINGLE, ""), torch=("softplus",)),
    # x tanh(softplus(x))
    "mish": Rule(8, 15, (X,), family="activation", torch=("mish",), config=("mish",)),
    "squared_relu": Rule(
        2,
        4,
        (X,),
        family="activation",
        config=("relu2",),
        launches=2,
        back_launches=4,
        moves=(4, 0),
        back_moves=(10, 0),
    ),
    "xielu": Rule(  # written out, with two learned numbers
        12,
        24,
        (X, Save("scaled"), Save("exp"), Save("less"), Save("mask", dtype="bool")),
        launches=15,
        back_launches=29,
        family="activation",
        config=("xielu",),
        moves=(29, 0),
        back_moves=(60, 0),
    ),
    "glu": Rule(4, 6, (X,), walks="in", family="activation", torch=("glu",)),
    # recurrent cells, an element being one of the gates' linear maps (in0)
    "lstm_cell": Rule(
        4,
        8,
        (Save("gates"), Y, Save("tanh_c", like=OUT)),
        walks="in",
        launches=10,
        back_launches=20,
        family="cell",
        autocast=(LOW, LOW),
        modelled="recurrent cells",
    ),
    "gru_cell": Rule(
        4,
        9,
        (Save("gates"), Y, Z),
        walks="in",
        launches=9,
        back_launches=18,
        family="cell",
        autocast=(LOW, LOW),
        modelled="recurrent cells",
    ),
    "dropout": Rule(
        2, 1, (Save("mask", like=OUT, dtype="bool"),), fused="dropout_fused", torch=("native_dropout",)
    ),
    "dropout_fused": Rule(2, 1),  # its mask is regenerated from the seed
    "rope": Rule(
        4, 4, (Y, Z), family="rotation", launches=5, back_launches=7, moves=(10, 0), back_moves=(14, 0),
        widens=2, measured=True
    ),
    "rope_float32": Rule(  # in float32, and cast back
        4, 4, (Y, Z), family="rotation", launches=7, back_launches=9, moves=(2, 12), back_moves=(2, 16),
        narrow=(2, 2), autocast=(AS_INPUT, AS_INPUT)
    ),
    "rope_part": Rule(  # of a part of each head, joined with the rest
        4, 4, (Y, Z), family="rotation", launches=6, back_launches=10, moves=(10, 0), back_moves=(14, 0),
        widens=3, walks="part", joins=(2, 6)
    ),
}  # fmt: skip
RULES["gelu_new_again"] = RULES["gelu_new_autocast"]._replace(back_most=(1, 6))
