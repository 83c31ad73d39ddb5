"""What each kind of operator does: one row a kind, for every question that is asked of it.

`flops` and `back` count arithmetic for each element that the operator walks over (its output, or its
first input where `walks` says so), an exponential or a root counting as one; they are reported apart
from contractions. `saves` lists the tensors that the backward pass reads, `temps` in the same way what
lives only while the operator runs.

The eager rules follow what torch's own autograd keeps for the operator as transformers writes
it (an RMS norm that upcasts saves a float32 copy); the `fused_` and `_fused` ones what a fused kernel keeps.
Derived: read off torch 2.13's derivatives.yaml and checked against saved-tensor hooks in
tests/test_backward.py.
"""

from __future__ import annotations

from .named import NamedTuple

OUT = -1  # as an operand's number: the output


class Save(NamedTuple):
    """A tensor that the backward pass reads: an operand itself, or a new one that is as large."""

    name: str = ""  # of a new tensor; "" is the operand itself, stored once however many operators read it
    like: int = 0  # number of the input that it is, or is as large as; OUT: the output
    dtype: str = ""  # of a new tensor, where it is not the operand's
    row: bool = False  # with the last axis reduced: a norm's statistics
    copy: bool = False  # the operand in another dtype: no new tensor where it has that dtype already
    trained: bool = False  # needed for the gradient of a trained weight only


class Rule(NamedTuple):
    """The work, the memory and the names of one kind of operator."""

    flops: float = 0
    back: float = 0
    saves: tuple[Save, ...] = ()
    temps: tuple[Save, ...] = ()
    walks: str = (
        "out"  # in: its first input, and back over that one's gradient; first: its first input always
    )
    saves_all: bool = False  # the backward pass reads every input
    cross: bool = False  # an operand's gradient needs the others, not the operand
    view: bool = False  # the output is the input's storage: no work, no memory
    inplace: bool = False  # the output overwrites the first input
    updates: bool = False  # the output overwrites the last input: sums, parts written into a whole
    part: bool = False  # only as much of the output is written as the first input has
    casts: bool = False  # the output is the input in another dtype, and its storage where it has that already
    linear: bool = False  # gradients pass through unchanged, partial sums stay partial
    sums: bool = False  # adds up over the dimensions that the output lacks
    stops: bool = False  # no gradient flows through: choices, masks, look-ups of constants
    lost: bool = False  # what it makes is never kept for the backward pass
    looks_up: bool = False  # takes rows of a table, of which the gradient needs nothing
    gradient: str = ""  # the kind that makes an operand's gradient of the output's alone; "": its own kind
    plain: str = ""  # the same kind not in place, as its backward operator is
    reduces: int = 0  # statistics that it needs over its last axis, each an all-reduce if divided
    passes: bool = False  # walks over its input more than once, though no all-reduce is needed
    launches: int = 1  # kernels that eager torch starts for it
    back_launches: int = 1
    family: str = ""  # norm, loss, activation, cell, optimizer
    fused: str = ""  # the kind that a fused kernel runs in its place
    autocast: tuple[str, str] = ("", "")  # class in torch.autocast's lists on a GPU, on a CPU
    measured: bool = False  # a device may spend its time on it in a way of its own (calibration)
    torch: tuple[str, ...] = ()  # aten's names of it
    config: tuple[str, ...] = ()  # names of it in Hugging Face configs


# Classes of torch.autocast: inputs are cast to the low dtype, or to float32; the answer alone is in float32;
# the answer has the first input's dtype, whatever the weights have. "": the widest of the inputs' dtypes.
LOW, SINGLE, ANSWERS_SINGLE, AS_INPUT = "low", "float32", "answers float32", "as input"
SAME = "same"  # as a gradient: the output's own
X, Y, Z, OUTPUT = Save(), Save(like=1), Save(like=2), Save(like=OUT)
UPCAST = Save("up", dtype="float32", copy=True)
MEAN, RSTD = (Save(name, dtype="float32", row=True) for name in ("mean", "rstd"))
NORMED = Save("normed", trained=True)
NORMED_FLOAT32 = Save("normed", dtype="float32", trained=True)
KEPT = Save("kept")  # of an input that is overwritten

RULES: dict[str, Rule] = {
    "contract": Rule(sums=True, gradient="contract", autocast=(LOW, LOW)),
    # data movement
    "view": Rule(view=True),
    "copy": Rule(
        torch=tuple(
            """
            _assert_async _copy_from _index_put_impl _to_copy _unsafe_index _unsafe_index_put
            _upsample_nearest_exact2d alias arange as_strided_scatter cat channel_shuffle clone col2im
            constant_pad_nd contiguous copy diag_embed diagonal_backward diagonal_scatter embedding_renorm
            empty empty_like empty_permuted empty_strided expand_copy eye fill flip full full_like gather
            im2col index index_add index_copy index_fill index_put index_select index_select_backward
            lift_fresh lift_fresh_copy linspace masked_fill masked_scatter masked_select max_unpool2d
            native_channel_shuffle new_empty new_empty_strided new_full new_ones new_zeros nonzero_static
            one_hot ones ones_like permute_copy pixel_shuffle pixel_unshuffle reflection_pad1d
            reflection_pad1d_backward reflection_pad2d reflection_pad2d_backward repeat repeat_interleave
            replication_pad1d replication_pad2d replication_pad3d resize roll scalar_tensor scatter
            scatter_add scatter_reduce select_backward select_scatter slice_backward slice_scatter
            split_copy split_with_sizes_copy stack trace_backward tril tril_indices triu triu_indices
            unfold_backward unsafe_split upsample_nearest1d upsample_nearest2d upsample_nearest2d_backward
            upsample_nearest3d value_selecting_reduction_backward view_copy zero zeros zeros_like
            """.split()  # noqa: SIM905 - two hundred quotes less
        )
    ),
    "copy_": Rule(walks="first", inplace=True),  # into what is there
    "merge": Rule(saves=(X,)),  # a copy of a kernel's output, which the kernel's own backward pass reads
    "slice": Rule(view=True, gradient="pad"),
    "split": Rule(view=True),  # into parts, all of them read
    "join": Rule(back=1),  # several tensors beside each other, the smaller ones repeated
    "repeat": Rule(back=1),  # each element several times; its gradients are added up
    "expand": Rule(view=True),  # a sum's gradient, the same one for all that was added
    "broadcast": Rule(back=1),  # the same, left to the product that reads it
    "step": Rule(view=True, gradient=SAME),  # one time step of a sequence
    "store": Rule(walks="first", updates=True, part=True),  # one time step's gradient into the sequence's
    "pad": Rule(),
    "cat": Rule(),
    "zero_pad": Rule(saves_all=True),  # copied between zeros
    "add": Rule(flops=1, linear=True, gradient="reduce"),
    "add_": Rule(flops=1, linear=True, inplace=True, plain="add"),
    "accumulate": Rule(1, 1, linear=True, updates=True),
    "gather": Rule(saves=(X,), sums=True, looks_up=True),
    "frozen_gather": Rule(stops=True, looks_up=True),  # from a table that is not trained
    "embedding_bag": Rule(1, 1, (X,), looks_up=True, torch=("_embedding_bag",)),  # rows of a table, added up
    "reduce": Rule(1, 1, walks="first", sums=True, gradient="expand", autocast=(ANSWERS_SINGLE, "")),
    "cast": Rule(casts=True),
    "cache": Rule(part=True),
    "fill": Rule(stops=True),  # zeros, a recurrence's first state
    "table": Rule(4, stops=True, launches=6),  # made from positions: rotary cosines, ALiBi slopes, masks
    # pointwise
    "mul": Rule(1, 2, (X, Y), cross=True),
    "scale": Rule(1, 1),
    "modulate": Rule(3, 4, (X, Y), launches=3, back_launches=5),  # x (1 + scale) + shift
    "mask": Rule(1, 0, linear=True),
    "mask_dense": Rule(1, 0, (Save("mask", like=1),)),  # as SDPA turns choices into numbers
    "exp": Rule(1, 1, (OUTPUT,), autocast=(SINGLE, ""), torch=("exp",)),
    "clamp": Rule(1, 1, (X,)),
    "relu": Rule(1, 1, (OUTPUT,), family="activation", torch=("relu", "threshold"), config=("relu",)),
    "relu_": Rule(1, 1, (OUTPUT,), inplace=True, plain="relu", family="activation"),
    "relu6": Rule(2, 1, (X,), family="activation"),
    "relu6_": Rule(2, 1, (KEPT,), inplace=True, plain="relu6", family="activation"),
    "silu_": Rule(4, 7, (KEPT,), inplace=True, plain="silu", family="activation"),
    "hardtanh": Rule(2, 1, (X,), family="activation"),
    "hardtanh_": Rule(2, 1, (KEPT,), inplace=True, plain="hardtanh", family="activation"),
    "hardswish": Rule(4, 5, (X,), family="activation", torch=("hardswish",)),
    "hardswish_": Rule(4, 5, (KEPT,), inplace=True, plain="hardswish", family="activation"),
    "hardsigmoid": Rule(3, 2, (X,), family="activation", torch=("hardsigmoid",)),
    "sigmoid": Rule(3, 3, (OUTPUT,), family="activation", torch=("sigmoid",)),
    "tanh": Rule(3, 3, (OUTPUT,), family="activation", measured=True, torch=("tanh",)),
    "softcap": Rule(5, 5, (Save("tanh", like=OUT),), launches=3, back_launches=3, fused="softcap_fused"),
    "softcap_fused": Rule(5, 5, (OUTPUT,)),
    "gelu": Rule(
        8, 14, (X,), family="activation", measured=True, torch=("gelu",), config=("gelu", "gelu_python")
    ),
    "gelu_tanh": Rule(10, 18, (X,), family="activation", config=("gelu_pytorch_tanh",)),
    "gelu_new": Rule(  # the same written out, so that autograd keeps its parts
        10,
        18,
        (X, Save("half"), Save("tanh"), Save("one")),
        launches=8,
        back_launches=10,
        family="activation",
        measured=True,
        config=("gelu_new", "gelu_fast"),
    ),
    "quick_gelu": Rule(
        5, 8, (X, Save("sigmoid")), launches=3, back_launches=5, family="activation", config=("quick_gelu",)
    ),
    "clamped_glu": Rule(  # (up + 1) x gate x sigmoid(1.702 gate), both clamped before (gpt-oss)
        10,
        14,
        (X, Y, Save("gate"), Save("sigmoid"), Save("up"), Save("glu")),
        launches=7,
        back_launches=9,
        family="activation",
    ),
    "silu": Rule(4, 7, (X,), family="activation", measured=True, torch=("silu",), config=("silu", "swish")),
    "softplus": Rule(4, 4, (X,), autocast=(SINGLE, ""), torch=("softplus",)),
    "squared_relu": Rule(2, 2, (X,), family="activation", config=("relu2",)),
    "xielu": Rule(  # written out, with two learned numbers
        12,
        20,
        (X, Save("scaled"), Save("exp"), Save("less"), Save("mask", dtype="bool")),
        launches=12,
        back_launches=20,
        family="activation",
        config=("xielu",),
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
    ),
    "dropout": Rule(
        2, 1, (Save("mask", like=OUT, dtype="bool"),), fused="dropout_fused", torch=("native_dropout",)
    ),
    "dropout_fused": Rule(2, 1),  # its mask is drawn again from the seed
    "rope": Rule(4, 4, (Y, Z), launches=6, back_launches=6),
    # reductions
    "softmax": Rule(
        5,
        4,
        (OUTPUT,),
        reduces=2,
        fused="softmax_fused",
        autocast=(ANSWERS_SINGLE, ""),
        measured=True,
        torch=("_softmax", "_safe_softmax", "_masked_softmax"),
    ),
    "softmax_fused": Rule(
        5,
        4,
        (OUTPUT, Save("logsumexp", dtype="float32", row=True)),
        reduces=2,
        autocast=(ANSWERS_SINGLE, ""),
    ),
    "softmax_sink": Rule(
        8, 6, (OUTPUT,), reduces=2, launches=4, back_launches=4, autocast=(ANSWERS_SINGLE, "")
    ),
    "normalize": Rule(2, 4, (X, OUTPUT), reduces=1, passes=True, launches=2, back_launches=3),
    "unit": Rule(
        3, 5, (X, Save("length", row=True)), reduces=1, launches=3, back_launches=7
    ),  # rows / lengths
    "log_softmax": Rule(5, 3, (OUTPUT,), reduces=2, autocast=(ANSWERS_SINGLE, ""), torch=("_log_softmax",)),
    # losses
    "nll": Rule(  # the logarithm of one class's probability, averaged
        1,
        1,
        (X,),
        family="loss",
        autocast=(SINGLE, SINGLE),
        torch=("nll_loss_forward", "nll_loss2d_forward", "nll_loss", "nll_loss2d"),
    ),
    "ctc": Rule(6, 6, (X,), walks="in", launches=2, family="loss"),  # all alignments of a transcript
    "binary_cross_entropy": Rule(
        8,
        5,
        (X,),
        walks="in",
        launches=2,
        family="loss",
        autocast=(SINGLE, SINGLE),
        torch=("binary_cross_entropy_with_logits", "binary_cross_entropy"),
    ),
    "mse": Rule(3, 2, (X,), walks="in", family="loss", autocast=(SINGLE, SINGLE), torch=("mse_loss",)),
    "kl": Rule(
        4,
        1,
        (Y,),
        temps=(Save("product"), Save("entropy")),
        walks="in",
        launches=5,
        family="loss",
        autocast=(SINGLE, SINGLE),
    ),
    # norms
    "instance_norm": Rule(8, 12, (X,), passes=True, family="norm", autocast=(AS_INPUT, AS_INPUT)),
    "layer_norm": Rule(
        8,
        12,
        (X, MEAN, RSTD),
        reduces=2,
        family="norm",
        autocast=(SINGLE, AS_INPUT),
        measured=True,
        torch=("native_layer_norm", "_fused_rms_norm"),
    ),
    "rms_norm": Rule(
        5,
        9,
        (UPCAST, RSTD, NORMED),
        launches=6,
        back_launches=8,
        reduces=1,
        family="norm",
        fused="fused_rms_norm",
    ),
    "fused_rms_norm": Rule(5, 9, (X, RSTD), reduces=1, family="norm"),
    "rms_norm_keep": Rule(  # T5's: what is multiplied is not the upcast but the input, which is kept too
        5,
        9,
        (X, UPCAST, RSTD, NORMED),
        launches=6,
        back_launches=9,
        reduces=1,
        family="norm",
        fused="fused_rms_norm",
    ),
    "rms_norm_float32": Rule(  # the weight is applied before the cast back
        5,
        9,
        (UPCAST, RSTD, NORMED_FLOAT32),
        launches=7,
        back_launches=9,
        reduces=1,
        family="norm",
        fused="fused_rms_norm",
    ),
    "layer_norm_float32": Rule(  # written out, without a bias: the difference from the mean is made twice
        8,
        12,
        (Save("square", dtype="float32"), UPCAST, RSTD, NORMED_FLOAT32),
        launches=10,
        back_launches=14,
        reduces=2,
        family="norm",
    ),
    "layer_norm_plain": Rule(6, 10, (X, MEAN, RSTD), reduces=2, family="norm", autocast=(SINGLE, "")),
    "response_norm": Rule(  # channels times their lengths over the grid, these over the mean of them
        6, 10, (X, Save("scaled", trained=True)), launches=8, back_launches=14, family="norm"
    ),
    "batch_norm": Rule(
        8,
        10,
        (X,),
        passes=True,
        family="norm",
        autocast=(AS_INPUT, AS_INPUT),
        measured=True,
        torch=(
            "native_batch_norm",
            "_native_batch_norm_legit",
            "_native_batch_norm_legit_no_training",
            "_batch_norm_with_update",
            "_batch_norm_no_update",
            "batch_norm",
            "cudnn_batch_norm",
        ),
    ),
    "group_norm": Rule(
        8,
        12,
        (X,),
        passes=True,
        family="norm",
        autocast=(SINGLE, AS_INPUT),
        torch=("native_group_norm",),
    ),
    # windows, choices and scans
    "max_pool": Rule(
        1,
        1,
        (X, Save("index", like=OUT, dtype="int64")),
        walks="in",
        measured=True,
        torch=("adaptive_max_pool2d", "max_pool2d_with_indices", "max_pool3d_with_indices"),
    ),
    "avg_pool": Rule(
        1,
        1,
        (X,),
        walks="in",
        torch=(
            "_adaptive_avg_pool2d",
            "_adaptive_avg_pool3d",
            "avg_pool1d",
            "avg_pool2d",
            "avg_pool3d",
        ),
    ),
    "mean": Rule(1, 1, walks="in", sums=True),
    "correct": Rule(1, stops=True),  # of scores, before a choice
    "top_k": Rule(
        1,
        0,
        (Save("index", like=OUT, dtype="int64"),),
        walks="in",
        torch=("sort", "topk", "histc", "bincount", "searchsorted"),
    ),
    "scan": Rule(2, 4, (X, OUTPUT)),  # state = decay x state + input, an element after the other
    "cumsum": Rule(1, 1, autocast=(ANSWERS_SINGLE, ""), torch=("cumsum", "logcumsumexp", "cumprod")),
    "segment_sum": Rule(  # of every pair's steps between
        3, 3, (Save("mask", like=OUT, dtype="bool"),), launches=5, back_launches=4
    ),
    # calls of torch as they are recorded (read/torch_module.py): the same work in either phase
    "pointwise": Rule(
        1,
        1,
        torch=(
            "upsample_bilinear2d",
            "upsample_bicubic2d",
            "upsample_linear1d",
            "grid_sampler_2d",
            "_weight_norm_interface",
            "addcmul",
            "uniform",
            "normal",
            "bernoulli",
            "rand",
            "randn",
            "rand_like",
            "randn_like",
            "randint",
            "randperm",
            "floor_divide",
            "normal_functional",
            "prelu",
            "_prelu_kernel",
        ),
    ),
    "pointwise_": Rule(1, 1, inplace=True),
    "reduction": Rule(1, 1, walks="first", torch=("linalg_vector_norm", "max", "min", "median")),
    "resident": Rule(view=True),  # declares what is there before anything runs
    "unknown": Rule(),
    # techniques
    "quantize": Rule(3, linear=True),  # to float8, for a product
    "dequantize": Rule(2, stops=True, lost=True),  # from 4 or 8 bits, for a product; never kept
    "dequantize_half": Rule(  # to float16, then cast
        3, stops=True, lost=True, temps=(Save("half", like=OUT, dtype="float16"),), launches=2
    ),
    "compress": Rule(4, linear=True),  # to 2:4 sparsity, for a product
    "offload": Rule(stops=True),
    "reload": Rule(stops=True),
    # optimizers: for each parameter (plan/optimizer.py has their temporaries)
    "sgd": Rule(2, walks="first", family="optimizer"),
    "momentum": Rule(4, walks="first", family="optimizer"),
    "adam": Rule(12, walks="first", launches=12, family="optimizer"),
    "adamw": Rule(14, walks="first", launches=13, family="optimizer"),
    "adamw_fused": Rule(14, walks="first", family="optimizer"),
    "adamw_8bit": Rule(18, walks="first", family="optimizer"),
    "adafactor": Rule(10, walks="first", launches=15, family="optimizer"),
    "lion": Rule(7, walks="first", launches=6, family="optimizer"),
}
