"""What operators that are no contraction do: work for each element, and what backward reads.

A rule is data. `flops` and `back` count arithmetic for each element that the operator walks
over (its output, or its first input where `walks` says so), an exponential or a root counting
as one; they are reported apart from contractions. `saves` lists what the backward pass reads:
    "in0", "in1", "out"   the tensor itself, stored once however many operators read it
    "ins"                 all of its inputs
    "x:float32@in0"       a new tensor x of that dtype with the shape of in0 (an upcast, a mask)
    "x:float32@row"       the same with the last axis of in0 reduced (a norm's statistics)
`temps` lists in the same way what lives only while the operator runs.

The eager rules follow what torch's own autograd keeps for the operator as transformers writes
it (an RMS norm that upcasts saves a float32 copy); the `fused_` and `_fused` ones what a fused kernel keeps.
Derived: read off torch 2.13's derivatives.yaml and checked against saved-tensor hooks in
tests/test_backward.py.
"""

from __future__ import annotations

from .named import NamedTuple


class Rule(NamedTuple):
    """The work and the memory of one kind of operator."""

    flops: float = 0
    back: float = 0
    saves: tuple[str, ...] = ()
    temps: tuple[str, ...] = ()
    walks: str = (
        "out"  # in: its first input, and back over that one's gradient; first: its first input always
    )
    trained: tuple[str, ...] = ()  # those of `saves` that only a trained weight's gradient needs
    cross: bool = False  # an operand's gradient needs the others, not the operand
    view: bool = False  # the output is the input's storage: no work, no memory
    inplace: bool = False  # the output overwrites the input
    linear: bool = False  # gradients pass through unchanged, partial sums stay partial
    stops: bool = False  # no gradient flows through: choices, masks, look-ups of constants
    reduces: int = 0  # statistics that it needs over its last axis, each an all-reduce if divided
    launches: int = 1  # kernels that eager torch starts for it
    back_launches: int = 1


RULES: dict[str, Rule] = {
    "contract": Rule(),
    # data movement
    "view": Rule(view=True),
    "copy": Rule(),
    "merge": Rule(saves=("in0",)),  # a copy of a kernel's output, which the kernel's own backward pass reads
    "slice": Rule(view=True),
    "split": Rule(view=True),  # into parts, all of them read
    "join": Rule(back=1),  # several tensors beside each other, the smaller ones repeated
    "repeat": Rule(back=1),  # each element several times; its gradients are added up
    "expand": Rule(view=True),  # a sum's gradient, the same one for all that was added
    "broadcast": Rule(back=1),  # the same, left to the product that reads it
    "step": Rule(view=True),  # one time step of a sequence
    "store": Rule(walks="first", inplace=True),  # one time step's gradient into the sequence's
    "pad": Rule(),
    "cat": Rule(),
    "zero_pad": Rule(saves=("ins",)),  # copied between zeros
    "add": Rule(flops=1, linear=True),
    "add_": Rule(flops=1, linear=True, inplace=True),
    "accumulate": Rule(1, 1, linear=True, inplace=True),
    "gather": Rule(saves=("in0",)),
    "frozen_gather": Rule(stops=True),  # from a table that is not trained
    "embedding_bag": Rule(1, 1, ("in0",)),  # rows of a table, added up
    "reduce": Rule(1, 1, walks="first"),
    "cast": Rule(),
    "cache": Rule(),
    "table": Rule(4, stops=True, launches=6),  # made from positions: rotary cosines, ALiBi slopes, masks
    # pointwise
    "mul": Rule(1, 2, ("in0", "in1"), cross=True),
    "scale": Rule(1, 1),
    "modulate": Rule(3, 4, ("in0", "in1"), launches=3, back_launches=5),  # x (1 + scale) + shift
    "mask": Rule(1, 0, linear=True),
    "mask_dense": Rule(1, 0, ("mask:@in1",)),  # as SDPA turns choices into numbers
    "exp": Rule(1, 1, ("out",)),
    "clamp": Rule(1, 1, ("in0",)),
    "relu": Rule(1, 1, ("out",)),
    "relu_": Rule(1, 1, ("out",), inplace=True),
    "relu6": Rule(2, 1, ("in0",)),
    "relu6_": Rule(2, 1, ("kept:@in0",), inplace=True),  # overwritten, so autograd keeps a copy
    "silu_": Rule(4, 7, ("kept:@in0",), inplace=True),
    "hardtanh": Rule(2, 1, ("in0",)),
    "hardtanh_": Rule(2, 1, ("kept:@in0",), inplace=True),
    "hardswish": Rule(4, 5, ("in0",)),
    "hardswish_": Rule(4, 5, ("kept:@in0",), inplace=True),
    "hardsigmoid": Rule(3, 2, ("in0",)),
    "sigmoid": Rule(3, 3, ("out",)),
    "tanh": Rule(3, 3, ("out",)),
    "softcap": Rule(5, 5, ("tanh:@out",), launches=3, back_launches=3),
    "softcap_fused": Rule(5, 5, ("out",)),
    "gelu": Rule(8, 14, ("in0",)),
    "gelu_tanh": Rule(10, 18, ("in0",)),
    "gelu_new": Rule(  # the same written out, so that autograd keeps its parts
        10, 18, ("in0", "half:@in0", "tanh:@in0", "one:@in0"), launches=8, back_launches=10
    ),
    "quick_gelu": Rule(5, 8, ("in0", "sigmoid:@in0"), launches=3, back_launches=5),
    "clamped_glu": Rule(
        10, 14, ("in0", "in1", "gate:@in0", "up:@in0", "glu:@in0"), launches=7, back_launches=9
    ),
    "silu": Rule(4, 7, ("in0",)),
    "softplus": Rule(4, 4, ("in0",)),
    "squared_relu": Rule(2, 2, ("in0",)),
    "xielu": Rule(  # written out, with two learned numbers
        12,
        20,
        ("in0", "scaled:@in0", "exp:@in0", "less:@in0", "mask:bool@in0"),
        launches=12,
        back_launches=20,
    ),
    "glu": Rule(4, 6, ("in0",), walks="in"),
    # recurrent cells, an element being one of the gates' linear maps (in0)
    "lstm_cell": Rule(4, 8, ("gates:@in0", "in1", "tanh_c:@out"), walks="in", launches=10, back_launches=20),
    "gru_cell": Rule(4, 9, ("gates:@in0", "in1", "in2"), walks="in", launches=9, back_launches=18),
    "dropout": Rule(2, 1, ("mask:bool@out",)),
    "dropout_fused": Rule(2, 1),  # its mask is drawn again from the seed
    "rope": Rule(4, 4, ("in1", "in2"), launches=6, back_launches=6),
    # reductions
    "softmax": Rule(5, 4, ("out",), reduces=2),
    "softmax_fused": Rule(5, 4, ("out", "logsumexp:float32@row"), reduces=2),
    "softmax_sink": Rule(8, 6, ("out",), reduces=2, launches=4, back_launches=4),
    "normalize": Rule(2, 4, ("in0", "out"), reduces=1, launches=2, back_launches=3),
    "unit": Rule(  # rows over their lengths
        3, 5, ("in0", "length:@row"), reduces=1, launches=3, back_launches=7
    ),
    "log_softmax": Rule(5, 3, ("out",), reduces=2),
    "nll": Rule(1, 1, ("in0",)),  # the logarithm of one class's probability, averaged
    "ctc": Rule(6, 6, ("in0",), walks="in", launches=2),  # all alignments of a transcript
    "binary_cross_entropy": Rule(8, 5, ("in0",), walks="in", launches=2),
    "mse": Rule(3, 2, ("in0",), walks="in"),
    "instance_norm": Rule(8, 12, ("in0",)),
    "layer_norm": Rule(8, 12, ("in0", "mean:float32@row", "rstd:float32@row"), reduces=2),
    "rms_norm": Rule(
        5,
        9,
        ("up:float32@in0", "rstd:float32@row", "normed:@in0"),
        launches=6,
        back_launches=8,
        reduces=1,
        trained=("normed:@in0",),
    ),
    "fused_rms_norm": Rule(5, 9, ("in0", "rstd:float32@row"), reduces=1),
    "rms_norm_keep": Rule(  # T5's: what is multiplied is not the upcast but the input, which is kept too
        5,
        9,
        ("in0", "up:float32@in0", "rstd:float32@row", "normed:@in0"),
        launches=6,
        back_launches=9,
        reduces=1,
        trained=("normed:@in0",),
    ),
    "rms_norm_float32": Rule(  # the weight is applied before the cast back
        5,
        9,
        ("up:float32@in0", "rstd:float32@row", "normed:float32@in0"),
        launches=7,
        back_launches=9,
        reduces=1,
        trained=("normed:float32@in0",),
    ),
    "layer_norm_float32": Rule(  # written out, without a bias: the difference from the mean is made twice
        8,
        12,
        ("square:float32@in0", "up:float32@in0", "rstd:float32@row", "normed:float32@in0"),
        launches=10,
        back_launches=14,
        reduces=2,
        trained=("normed:float32@in0",),
    ),
    "layer_norm_plain": Rule(6, 10, ("in0", "mean:float32@row", "rstd:float32@row"), reduces=2),
    "response_norm": Rule(  # channels times their lengths over the grid, these over the mean of them
        6, 10, ("in0", "scaled:@in0"), launches=8, back_launches=14, trained=("scaled:@in0",)
    ),
    "batch_norm": Rule(8, 10, ("in0",), reduces=0),
    "group_norm": Rule(8, 12, ("in0",)),
    "max_pool": Rule(1, 1, ("in0", "index:int64@out"), walks="in"),
    "avg_pool": Rule(1, 1, ("in0",), walks="in"),
    "mean": Rule(1, 1, walks="in"),
    "correct": Rule(1, stops=True),  # of scores, before a choice
    "top_k": Rule(1, 0, ("index:int64@out",), walks="in"),
    "scan": Rule(2, 4, ("in0", "out")),  # state = decay x state + input, an element after the other
    "cumsum": Rule(1, 1),
    "segment_sum": Rule(
        3, 3, ("mask:bool@out",), launches=5, back_launches=4
    ),  # of every pair's steps between
    # calls of torch as they are recorded (read/torch_module.py): the same work in either phase
    "pointwise": Rule(1, 1),
    "pointwise_": Rule(1, 1, inplace=True),
    "reduction": Rule(1, 1, walks="first"),
    "resident": Rule(view=True),  # declares what is there before anything runs
    "unknown": Rule(),
    # techniques
    "quantize": Rule(3, linear=True),  # to float8, for a product
    "dequantize": Rule(2, stops=True),  # from 4 or 8 bits, for a product; never kept
    "dequantize_half": Rule(3, stops=True, temps=("half:float16@out",), launches=2),  # to float16, then cast
    "compress": Rule(4, linear=True),  # to 2:4 sparsity, for a product
    "offload": Rule(stops=True),
    "reload": Rule(stops=True),
    "kl": Rule(4, 1, ("in1",), temps=("product:@in0", "entropy:@in0"), walks="in", launches=5),
    # optimizers: for each parameter (plan/optimizer.py has their temporaries)
    "sgd": Rule(2, walks="first"),
    "momentum": Rule(4, walks="first"),
    "adam": Rule(12, walks="first", launches=12),
    "adamw": Rule(14, walks="first", launches=13),
    "adamw_fused": Rule(14, walks="first"),
    "adamw_8bit": Rule(18, walks="first"),
    "adafactor": Rule(10, walks="first", launches=15),
    "lion": Rule(7, walks="first", launches=6),
}
