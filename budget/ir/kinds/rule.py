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

from ...named import NamedTuple, Record

OUT = -1  # as an operand's number: the output


class Save(NamedTuple):
    """A tensor that the backward pass reads: an operand itself, or a new one that is as large."""

    name: str = ""  # of a new tensor; "" is the operand itself, stored once however many operators read it
    like: int = 0  # number of the input that it is, or is as large as; OUT: the output
    dtype: str = ""  # of a new tensor, where it is not the operand's
    row: bool = False  # with the last axis reduced: a norm's statistics
    copy: bool = False  # the operand in another dtype: no new tensor where it has that dtype already
    own: bool = False  # a new tensor in the model's own dtype, whatever the operand's
    trained: bool = False  # needed for the gradient of a trained weight only
    passed: bool = False  # needed for the gradient of the first input only


class Rule(Record):
    """The work, the memory and the names of one kind of operator."""

    flops: float = 0
    back: float = 0
    saves: tuple[Save, ...] = ()
    temps: tuple[Save, ...] = ()
    # in: its first input, and back over that one's gradient; first: its first input always; part: of each row
    # of the output as much as a row of the second input has.
    walks: str = "out"
    saves_all: bool = False  # the backward pass reads every input
    cross: bool = False  # an operand's gradient needs the others, not the operand
    view: bool = False  # the output is the input's storage: no work, no memory
    inplace: bool = False  # the output overwrites the first input
    updates: bool = False  # the output overwrites the last input: sums, parts written into a whole
    part: bool = False  # only as much of the output is written as the first input has
    casts: bool = False  # the output is the input in another dtype, and its storage where it has that already
    upcasts: bool = False  # an input of another dtype is cast to the output's first, and its gradient back
    linear: bool = False  # gradients pass through unchanged, partial sums stay partial
    in_order: bool = False  # goes through a sequence step by step
    factors: bool = False  # linear in each operand while the others are whole
    additive: bool = False  # partial sums stay partial, though gradients do not pass unchanged
    sums: bool = False  # adds up over the dimensions that the output lacks
    stops: bool = False  # no gradient flows through: choices, masks, look-ups of constants
    lost: bool = False  # what it makes is never kept for the backward pass
    looks_up: bool = False  # takes rows of a table, of which the gradient needs nothing
    gradient: str = ""  # the kind that makes an operand's gradient of the output's alone; "": its own kind
    solves: bool = False  # X = A^-1 B: B's gradient is solved in its turn, A's is a product of that and X
    plain: str = ""  # the same kind not in place, as its backward operator is
    reduces: int = 0  # statistics that it needs over its last axis, each an all-reduce if divided
    passes: bool = False  # walks over its input more than once, though no all-reduce is needed
    again: int = 0  # tensors as large as its input that its kernel moves besides, where that is no one's own
    launches: int = 1  # kernels that eager torch starts for it
    back_launches: int = 1
    # Of its kernels, forward and backward, the casts that float32 needs not.
    narrow: tuple[int, int] = (0, 0)
    # More of them backward: the casts of gradients where its first input is narrower than the output.
    widens: int = 0
    tracks: int = 0  # kernels that it starts in training alone: a batch norm counts its batches
    apart: int = 0  # kernels that eager code starts for it beside the fused one that it is part of
    calls: int = 1  # operators that it is to the host, with those of a product's that it is part of
    # Of what widens weights of few bits: so many rows its kernel multiplies as it does so; more take one
    # before them. It reaches so much of the rate of ordinary units, where it runs on these.
    rows: float = 1
    ordinary: float = 0
    # Its tiles have so many rows, each of which widens all of a weight anew, a unit so many numbers a second.
    tile: int = 0
    widened: float = 0
    # Tensors as large as the output that these kernels read and write, in its dtype and in float32, where
    # they are more than the operator's own.
    moves: tuple[int, int] = (0, 0)
    back_moves: tuple[int, int] = (0, 0)
    # Where it walks over a part, `moves` are as large as that; and so many beside them, forward and backward,
    # as large as the output: the part is joined with the rest.
    joins: tuple[int, int] = (0, 0)
    # Tensors of its output's size that it has made and not freed at once, in its dtype and in float32 (these
    # are copies: none where that is its dtype).
    most: tuple[float, float] = (0, 0)
    # Tensors of its operand's size that its backward pass has alive at once, in its dtype and in float32.
    back_most: tuple[float, float] = (0, 0)
    # The kind of its backward pass in a checkpoint that is not reentrant: what it reads is gone before its
    # gradient is cast, since nothing else holds what a checkpoint has recomputed.
    lets_go: str = ""
    modelled: str = ""  # what torch's own code is, where this is a model of it and not its calls
    family: str = ""  # norm, loss, activation, rotation, cell, optimizer, dequantize
    fused: str = ""  # the kind that a fused kernel runs in its place
    autocast: tuple[str, str] = ("", "")  # class in torch.autocast's lists on a GPU, on a CPU
    autocasts_as: str = ""  # the kind that it is under CUDA's autocast
    measured: bool = False  # a device may spend its time on it in a way of its own (calibration)
    torch: tuple[str, ...] = ()  # aten's names of it
    config: tuple[str, ...] = ()  # names of it in Hugging Face configs


# Classes of torch.autocast: inputs are cast to the low dtype, or to float32; the answer alone is in float32;
# the answer has the first input's dtype, whatever the weights have. "": the widest of the inputs' dtypes.
LOW, SINGLE, ANSWERS_SINGLE, AS_INPUT = "low", "float32", "answers float32", "as input"
SAME = "same"  # as a gradient: the output's own
X, Y, Z, OUTPUT = Save(), Save(like=1), Save(like=2), Save(like=OUT)
UPCAST = Save("up", dtype="float32", copy=True, passed=True)
MEAN, RSTD = (Save(name, dtype="float32", row=True) for name in ("mean", "rstd"))
INPUT = Save(passed=True)
SCALED_BY = RSTD._replace(passed=True)  # of a norm that is written out
NORMED = Save("normed", trained=True)
NORMED_FLOAT32 = Save("normed", dtype="float32", trained=True)
KEPT = Save("kept")  # of an input that is overwritten
