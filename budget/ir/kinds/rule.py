"""What each kind of operator does: one row a kind, for every question that is asked of it.

`flops` and `back` are the FLOPs for each element that the operator walks over (those of its output, or of its
first input where `walks` says so), an exponential or a root counting as one; they are reported apart from
contractions. `saves` lists the tensors that the backward pass reads, `temps` those that exist only while the
operator runs.

The rules of eager kinds say what torch's autograd keeps for an operator as transformers writes it (an RMS
norm that upcasts saves a float32 copy); those of `fused_` and `_fused` kinds say what a fused kernel keeps.
Derived: read off torch 2.13's derivatives.yaml and checked against saved-tensor hooks in
tests/test_backward.py.
"""

from __future__ import annotations

from ...named import NamedTuple, Record

OUT = -1  # as an operand's number: the output


class Save(NamedTuple):
    """A tensor that the backward pass reads: an operand itself, or a new tensor of its size."""

    name: str = ""  # of a new tensor; "": the operand itself, stored once however many operators read it
    like: int = 0  # index of the input that it is, or whose size it has; OUT: the output
    dtype: str = ""  # of a new tensor, where it is not the operand's
    row: bool = False  # the last axis is reduced: a norm's statistics
    copy: bool = False  # the operand in another dtype; no new tensor where the operand has that dtype
    own: bool = False  # a new tensor in the model's own dtype, whatever the operand's
    trained: bool = False  # needed for the gradient of a trained weight only
    passed: bool = False  # needed for the gradient of the first input only


class Rule(Record):
    """The work, the memory and the names of one kind of operator."""

    flops: float = 0
    back: float = 0
    saves: tuple[Save, ...] = ()
    temps: tuple[Save, ...] = ()
    # What it walks over: out, its output; in, its first input, and backward that one's gradient; first,
    # always its first input; part, of each row of the output as much as a row of the second input has.
    walks: str = "out"
    saves_all: bool = False  # the backward pass reads every input
    cross: bool = False  # an operand's gradient needs the other operands, not this one
    view: bool = False  # the output shares the input's storage: no work, no memory
    inplace: bool = False  # the output overwrites the first input
    updates: bool = False  # the output overwrites the last input: sums, parts written into a whole
    part: bool = False  # only a part of the output is written, of the first input's size
    casts: bool = (
        False  # the output is the input in another dtype, or shares its storage if the dtype is the same
    )
    upcasts: bool = False  # an input of another dtype is first cast to the output's, and its gradient back
    linear: bool = False  # gradients pass through unchanged, partial sums stay partial
    in_order: bool = False  # goes through a sequence step by step
    factors: bool = False  # linear in each operand while the other operands are whole
    additive: bool = False  # partial sums stay partial, though gradients do not pass unchanged
    sums: bool = False  # sums over the dimensions that the output lacks
    stops: bool = False  # no gradient flows through: choices, masks, look-ups of constants
    lost: bool = False  # its output is never kept for the backward pass
    looks_up: bool = False  # takes rows of a table; the gradient needs none of the table
    gradient: str = ""  # the kind that makes an operand's gradient from the output's alone; "": its own kind
    solves: bool = False  # X = A^-1 B: B's gradient is another solution, A's is a product of that and X
    plain: str = ""  # the kind that does the same not in place, for its backward operator
    reduces: int = 0  # statistics over its last axis, each of which is an all-reduce if that axis is divided
    passes: bool = False  # walks over its input more than once, though no all-reduce is needed
    again: int = 0  # more tensors of its input's size that its kernel moves
    launches: int = 1  # kernels that eager torch starts for it
    back_launches: int = 1
    # Those of its kernels, forward and backward, that are casts and not needed in float32.
    narrow: tuple[int, int] = (0, 0)
    widens: int = (
        0  # more kernels backward where its first input is narrower than its output: casts of gradients
    )
    tracks: int = 0  # kernels that it starts in training alone: a batch norm counts its batches
    apart: int = 0  # kernels that eager code starts in addition to the fused kernel that it is part of
    calls: int = 1  # the host's calls for it, with those for the product that it is part of
    # For kinds that widen weights in few bits. Up to `rows` rows are multiplied by the same kernel; for more
    # rows a kernel widens the weights first. ordinary: the fraction of the ordinary units' rate, where it
    # runs on these.
    rows: float = 1
    ordinary: float = 0
    # Where a kernel widens a weight anew for each tile of rows: rows of a tile, and numbers a second of one
    # unit.
    tile: int = 0
    widened: float = 0
    # Tensors of the output's size that these kernels read and write, in its dtype and in float32, where they
    # are more than its operands.
    moves: tuple[int, int] = (0, 0)
    back_moves: tuple[int, int] = (0, 0)
    # Where it walks over a part, `moves` are of the part's size, and these, forward and backward, of the
    # output's: the part is joined with the rest.
    joins: tuple[int, int] = (0, 0)
    # The most tensors of its output's size that exist at once, in its dtype and in float32 (copies, which
    # there are not where its dtype is float32).
    most: tuple[float, float] = (0, 0)
    # The most tensors of its operand's size that its backward pass has at once, in its dtype and in float32.
    back_most: tuple[float, float] = (0, 0)
    # The kind of its backward operator in a non-reentrant checkpoint: what it reads is freed before its
    # gradient is cast, since nothing else holds what a checkpoint has recomputed.
    lets_go: str = ""
    modelled: str = ""  # the part of a network that it models, where it does not follow torch's own calls
    family: str = ""  # norm, loss, activation, rotation, cell, optimizer, dequantize
    fused: str = ""  # the kind that a fused kernel runs instead
    autocast: tuple[str, str] = ("", "")  # its class in torch.autocast's lists, on a GPU and on a CPU
    autocasts_as: str = ""  # the kind that it becomes under CUDA's autocast
    measured: bool = False  # calibration may measure it by itself
    torch: tuple[str, ...] = ()  # its names in aten
    config: tuple[str, ...] = ()  # its names in Hugging Face configs


# Classes of torch.autocast: inputs are cast to the low dtype, or to float32; only the result is in float32;
# the result has the first input's dtype, whatever the weights have. "": the widest of the inputs' dtypes.
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
