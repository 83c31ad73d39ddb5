"""Operators, and everything that follows from one line (ir/line.py): FLOPs, what is saved, the GEMM."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache

from ..dtype import SPARSE
from ..named import NamedTuple
from ..size import Size, exact_div, product
from .kinds import RULES
from .kinds.rule import OUT, Rule, Save
from .tensor import COPY, SAVED, SCALE, WEIGHT, WEIGHTS, Tensor, elements, is_picked, picked, window

# What an operator is to its network; a kind says what it computes. Techniques ask for these.
HEAD, EMBED, LOSS, ROUTER = "head", "embed", "loss", "router"
ADDS = "adds"  # a product whose result is added in place to a gradient that is there
LEAF = "leaf"  # an embedding whose output has a gradient, whatever is below
ACTIVATION_OF_MLP, GATE, DOWN = "activation", "gate", "down"  # of a multi-layer perceptron
SCORES, MIX, MERGE, PROMPT = "scores", "mix", "merge", "prompt"  # of attention; PROMPT: beside one
SHAPED = "shaped"  # a gradient that autograd casts or adds up to what its tensor is
ONCE = "once"  # makes of a weight alone what every micro-batch of a step reads
FIRST = "first"  # the same, and only a step's first micro-batch makes it
CHANNELS_FIRST = "channels first"  # a gradient of weights of one channel a group, of pictures that lie so
REMADE = "remade"  # not kept, but recomputed by its reader's own backward pass
QKV, LATENT_UP, LATENT_DIVIDE, LATENT_JOIN = "qkv", "latent up", "latent divide", "latent join"
# Products with a weight, by what they make: of attention, of an MLP and its experts, of a state space.
QUERY, KEY, VALUE, OUTPUT = "query", "key", "value", "output"
LATENT_QUERY, LATENT_DOWN = "latent query", "latent down"
INDEX = "index"  # how an indexer chooses the positions that queries see
INDEX_WEIGHTS = "index weights"
GATED, UP = "gated", "up"  # GATED: of two projections that are multiplied, the one that is activated
EXPERT_GATED, EXPERT_UP, EXPERT_DOWN = "expert gated", "expert up", "expert down"
EXPERT_IN, EXPERT_OUT = "expert in", "expert out"  # to the width in which experts work, and back
EXPERT_SEND = "expert send"  # a copy of each token's row for each of its experts
SHARED_GATED, SHARED_UP, SHARED_DOWN = "shared gated", "shared up", "shared down"
SHARED_GATE = "shared gate"
SSM_IN, SSM_PARTS, SSM_STEP, SSM_OUT = "ssm in", "ssm parts", "ssm step", "ssm out"
# Modules of a layer that trainers recompute one by one. Source: megatron-lm.
SSM_MIXER = "ssm mixer"  # of a state space: what lies between its projections
LAYER_NORM, MLA_UP, MLP, MOE, SHARED_EXPERTS = "layernorm", "mla_up_proj", "mlp", "moe", "shared_experts"


class Op(NamedTuple):
    """One operator. `sizes` gives every dimension; `of` is the forward operator it belongs to."""

    name: str
    kind: str
    ins: tuple[Tensor, ...]
    outs: tuple[Tensor, ...]
    sizes: Mapping[str, Size]
    phase: str = "forward"
    of: str = ""
    group: str = ""  # neighbours of one group can be fused into one kernel (plan/fuse.py)
    kernel: str = ""  # the fused kernel that this operator is part of
    holds: tuple[str, ...] = ()  # tensors that are not freed before this operator ends, read or not
    # Tensors that variables of the code around hold while it runs forward, read or not.
    callers: tuple[str, ...] = ()
    tag: str = ""  # what it is to its network: HEAD, EMBED, LOSS, ...
    window: Size = 0  # of attention: positions that a query sees; 0: all
    causal: bool = False  # of attention: a query sees no later position
    parts: Size = 1  # of attention: devices that share its queries, as many pairs each
    axis: str = ""  # of a collective: the group of devices that takes part (layout.py)
    # Kernels that eager code starts beside those of its kind, forward and backward: casts, indices, masks;
    # and what it copies beside them, a kernel each.
    beside: tuple[Size, Size] = (0, 0)
    copies: tuple[tuple[Tensor, ...], tuple[Tensor, ...]] = ((), ())
    module: str = ""  # the module of its layer that it is part of: LAYER_NORM, MLP, ...
    # What its module keeps for the backward pass, which runs the rest again: INPUT_ONLY, what others read of
    # it besides; NOTHING, not even that; "", as the layer does.
    keeps: str = ""
    # The product whose kernel it is part of, as is what is done to its result (plan/endings.py).
    ends: str = ""

    @property
    def rule(self) -> Rule:
        """What its kind of operator does."""
        return RULES[self.kind]

    @property
    def label(self) -> str:
        """What it was called in its line: the last part of its name."""
        return self.name.split(".")[-1]

    @property
    def out(self) -> Tensor:
        """Its output; others, if any, are made on the side."""
        return self.outs[0]

    def saved(self, needs: Collection[str]) -> tuple[Tensor, ...]:
        """What the backward pass of a non-contraction reads: its own tensors, and new ones. `needs` names the
        activations that need a gradient.
        """
        if self.rule.saves_all:
            return self.ins
        return tuple([_select(self, save) for save in self._saves(needs)])

    def kept(self, needs: Collection[str]) -> tuple[Tensor, ...]:
        """The tensors that the backward pass reads and that are neither inputs nor outputs of the
        operator.
        """
        return tuple([_select(self, save) for save in self._saves(needs) if save.name])

    def _saves(self, needs: Collection[str]) -> Sequence[Save]:
        saves = self.rule.saves
        for save in saves:
            if save.trained or save.passed:
                trains, passes = any(t.role == WEIGHT for t in self.ins), self.ins[0].name in needs
                return [s for s in saves if (trains or not s.trained) and (passes or not s.passed)]
        return saves

    @property
    def temporaries(self) -> tuple[Tensor, ...]:
        """What lives only while the operator runs."""
        return tuple([_select(self, save) for save in self.rule.temps])

    @property
    def again(self) -> bool:
        """Whether it is a forward operator that the backward pass recomputes."""
        return self.of == self.name

    @property
    def derived(self) -> bool:
        """Whether it is of the backward pass itself, and not a recomputed forward operator."""
        return self.phase == "backward" and self.of != self.name

    @property
    def weights(self) -> tuple[Tensor, ...]:
        """The weights that it reads, trained or frozen."""
        return tuple([t for t in self.ins if t.role in WEIGHTS])


def _select(o: Op, save: Save) -> Tensor:
    like = o.out if save.like == OUT else o.ins[save.like]
    if not save.name:
        return like
    dims = like.dims[:-1] if save.row else like.dims
    part = COPY if save.copy else SAVED
    dtype = "" if save.own else save.dtype or like.dtype
    return Tensor(f"{o.name}#{save.name}", dims, dtype=dtype, part=part, of=like.name)


def beside(o: Op, name: str) -> str:
    """The name of another operator of the same module: the same path, another last part."""
    return ".".join((*o.name.split(".")[:-1], name))


def expert_axis(t: Tensor, o: Op) -> str:
    """The dimension that counts a weight's experts: one that is picked for a product, not looked up."""
    return "" if o.rule.looks_up else picked(t)


def is_convolution(o: Op) -> bool:
    """Whether a window slides over an axis of it: `y+i`."""
    return _slides(*[t.dims for t in (*o.ins, *o.outs)])


@lru_cache(maxsize=4096)
def _slides(*operands: tuple[str, ...]) -> bool:
    return any("+" in axis for dims in operands for axis in dims)


def contracted_dims(o: Op) -> tuple[str, ...]:
    """All dimensions that a contraction loops over; `y+i` is y and i, `~v` picks one."""
    return _loops(*[t.dims for t in (*o.ins, o.out) if not t.added])


@lru_cache(maxsize=4096)
def _loops(*operands: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([d for dims in operands for d in _looped(dims)]))


@lru_cache(maxsize=4096)
def _looped(dims: tuple[str, ...]) -> tuple[str, ...]:
    """The dimensions of one operand that are looped over: all of a window, none that is picked."""
    return tuple([d for axis in dims if not is_picked(axis) for d in window(axis)])


def contraction_flops(o: Op) -> Size:
    """2 x the product of all dimensions (1 multiply-add = 2 FLOPs); 0 for other kinds. Derived."""
    if o.kind != "contract":
        return 0
    flops = 2 * product(map(o.sizes.__getitem__, contracted_dims(o)))
    sparse = [t for t in o.ins if t.dtype in SPARSE]  # plan/prune.py
    return flops // 2 if sparse else flops


def pointwise_flops(o: Op) -> Size:
    """FLOPs of everything that is no contraction: the rule's work for each element of the
    widest tensor, and for a contraction one addition for each output element and added operand (what is
    stored beside a weight in few bits is read with it, not added). Derived.
    """
    if o.kind == "contract":
        added = 0
        for t in o.ins:
            added += t.added and t.role != SCALE
        return added * elements(o.out, o.sizes) if added else 0
    rule = o.rule
    rate = rule.back if o.derived else rule.flops
    return rate * _widest(o, rule) if rate else 0


def widest(o: Op) -> Size:
    """Elements of the operator's first input or first output, whichever it walks over; or of its part."""
    return _widest(o, o.rule)


def _widest(o: Op, rule: Rule) -> Size:
    walks = rule.walks
    if walks == "part":
        n, row, part = elements(o.out, o.sizes), *(o.sizes[t.dims[-1]] for t in (o.out, o.ins[1]))
        return exact_div(n, row) * part
    if o.ins and (walks == "first" or (walks == "in" and o.phase != "backward")):
        return elements(o.ins[0], o.sizes)
    return elements(o.outs[0], o.sizes)


def batch_leads(o: Op, t: Tensor) -> bool:
    """Whether an operand of a batched product has the batch's dimensions first, so that it is not copied."""
    batch = tuple(d for d in o.out.dims if all(d in u.dims for u in o.ins))
    return t.dims[: len(batch)] == batch


class Gemm(NamedTuple):
    """The matrix product that a device sees."""

    m: Size
    n: Size
    k: Size
    batch: Size


def gemm(o: Op) -> Gemm | None:
    """M, N, K and batch of a contraction of two operands: which of them hold which dimension."""
    ins = [t for t in o.ins if not t.added]
    if o.kind != "contract" or len(ins) != 2:
        return None
    edges = _edges(*[t.dims for t in (*ins, o.out)])
    return Gemm(*[product(map(o.sizes.__getitem__, dims)) for dims in edges])


@lru_cache(maxsize=4096)
def _edges(*operands: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """The dimensions of M, N, K and batch, from those of two operands and their product."""
    a, b, out = map(set, map(_looped, operands))
    # A picked dimension (an expert's weights) sends rows to it: it neither adds nor removes work.
    edges = ((a & out) - b, (b & out) - a, (a & b) - out, a & b & out)
    return tuple(tuple(sorted(dims)) for dims in edges)
