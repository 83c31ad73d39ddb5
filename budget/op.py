"""Operators: contractions over named dimensions, and everything that follows from one line.

    op("up", "x: b s d, *d f, +*f -> u: b s f")

is a linear layer with a bias. `name:` names a tensor (left out: what the last operator made),
`name/dtype:` one of a dtype of its own; `*` marks a weight, `!` an input of the network, `%` a cache,
`+` an operand that is added to the contraction, `y+i` the axis that a window `i` slides over to give
`y`, and `~v` a dimension from which each element picks one (embeddings, experts). Parameters, FLOPs,
GEMM sizes and the backward pass are derived.
Operators that are no contraction name their kind, whose rule is in rule.py.

Dimensions: b batch, s sequence (queries), t keys' positions or time steps, d d_model,
h key-value heads, r query heads for each of them, k head_dim, f d_ff or output channels,
v vocabulary, e experts, a experts active for a token, n state, c input channels, R rank,
z y x space, l i j a window's extent along them, g groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from .named import NamedTuple
from .rule import OUT, RULES, Rule, Save
from .size import Size, product

WEIGHT, ACTIVATION, INPUT, CACHE, STATE = "weight", "activation", "input", "cache", "state"
FROZEN = "frozen"  # a weight that is not trained (plan/freeze.py)
HOST = "host"  # in the memory of the host (plan/offload.py)
GIVEN = "given"  # there already and counted by another name: all gradients, a part of a state
SCALE = "scale"  # stored beside a weight in few bits, and no parameter (plan/packed.py)
WEIGHTS = (WEIGHT, FROZEN, SCALE)
ROLES = {"*": WEIGHT, "!": INPUT, "%": CACHE}
ACTIVE = "a"  # the dimension of the experts that a token goes to
# What a tensor is of another one: its gradient, something that the backward pass reads, the same in another
# dtype, a summand, so much of it as one chunk of tokens has; or what lives while an operator runs.
GRADIENT, SAVED, COPY, SUMMAND = "gradient", "saved", "copy", "summand"
CHUNK, TEMPORARY = "chunk", "temporary"
# What an operator is to its network; a kind says what it computes. Techniques ask for these.
HEAD, EMBED, LOSS, ROUTER = "head", "embed", "loss", "router"
ACTIVATION_OF_MLP, GATE, DOWN = "activation", "gate", "down"  # of a multi-layer perceptron
SCORES, MIX, MERGE, PROMPT = "scores", "mix", "merge", "prompt"  # of attention; PROMPT: beside one
QKV, LATENT_UP, LATENT_DIVIDE, LATENT_JOIN = "qkv", "latent up", "latent divide", "latent join"


class Tensor(NamedTuple):
    """A named tensor: its axes, what it is, its dtype ("" is the model's own)."""

    name: str
    dims: tuple[str, ...]
    role: str = ACTIVATION
    dtype: str = ""
    added: bool = False  # added to a contraction, not contracted
    on_chip: bool = False  # never reaches device memory: part of a fused kernel
    part: str = ""  # what it is of another tensor, and of which; "" where it is none but itself
    of: str = ""

    @property
    def label(self) -> str:
        """What it was called in its operator's line: its name without the number that tells it apart."""
        return self.name.partition("'")[0]


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
    holds: tuple[str, ...] = ()  # tensors that nothing lets go before this operator ends, read or not
    tag: str = ""  # what it is to its network: HEAD, EMBED, LOSS, ...
    window: Size = 0  # of attention: positions that a query sees; 0: all

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

    @property
    def saved(self) -> tuple[Tensor, ...]:
        """What the backward pass of a non-contraction reads: its own tensors, and new ones."""
        rule = self.rule
        if rule.saves_all:
            return self.ins
        trains = any(t.role == WEIGHT for t in self.ins)
        return tuple(_select(self, save) for save in rule.saves if trains or not save.trained)

    @property
    def kept(self) -> tuple[Tensor, ...]:
        """Of what the backward pass reads, the tensors that are neither its inputs nor its outputs."""
        trains = any(t.role == WEIGHT for t in self.ins)
        saves = self.rule.saves
        return tuple(_select(self, save) for save in saves if save.name and (trains or not save.trained))

    @property
    def temporaries(self) -> tuple[Tensor, ...]:
        """What lives only while the operator runs."""
        return tuple(_select(self, save) for save in self.rule.temps)

    @property
    def again(self) -> bool:
        """Whether it is a forward operator that the backward pass runs once more."""
        return self.of == self.name

    @property
    def weights(self) -> tuple[Tensor, ...]:
        """The weights that it reads, trained or frozen."""
        return tuple(t for t in self.ins if t.role in WEIGHTS)


def op(name: str, spec: str, kind: str = "contract", tag: str = "", **sizes: Size) -> Op:
    """An operator from one line; `sizes` adds to, or overrides, the model's own; `tag` says what it is
    to its network, for techniques that ask.
    """
    if kind not in RULES:
        raise KeyError(f"operator {name}: unknown kind {kind!r}")
    ins, outs = _parse(name, spec)
    if kind == "contract":
        _check(name, ins, outs[0])
    return Op(name, kind, ins, outs, sizes, tag=tag)


def _select(o: Op, save: Save) -> Tensor:
    like = o.out if save.like == OUT else o.ins[save.like]
    if not save.name:
        return like
    dims = like.dims[:-1] if save.row else like.dims
    part = COPY if save.copy else SAVED
    return Tensor(f"{o.name}#{save.name}", dims, dtype=save.dtype or like.dtype, part=part, of=like.name)


def beside(o: Op, name: str) -> str:
    """The name of another operator of the same module: the same path, another last part."""
    return ".".join((*o.name.split(".")[:-1], name))


def group(name: str, *ops: Op) -> tuple[Op, ...]:
    """Neighbours that a fused kernel exists for; tensors that only they read then stay on chip."""
    return tuple(o._replace(group=name) for o in ops)


@lru_cache(maxsize=4096)
def _parse(name: str, spec: str) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    left, arrow, right = spec.partition("->")
    if not arrow:
        raise ValueError(f"operator {name}: no '->' in {spec!r}")
    ins = [_operand(text) for text in left.split(",")]
    weights = 0
    for i, t in enumerate(ins):
        if t.role == WEIGHT and not t.name:
            suffix = "bias" if t.added else "weight" + (str(weights) if weights else "")
            weights += not t.added
            ins[i] = t._replace(name=f"{name}.{suffix}")
    outs = [_operand(text) for text in right.split(",")]
    return tuple(ins), tuple(t if t.name else t._replace(name=name) for t in outs)


@lru_cache(maxsize=4096)
def _check(name: str, ins: tuple[Tensor, ...], out: Tensor) -> None:
    known = {d for t in ins for axis in t.dims for d in (axis, *axis.split("+"))}
    lost = [d for d in out.dims if d not in known and not set(d.split("+")) <= known and d != "a"]
    if lost and all(t.dims for t in ins if t.role != WEIGHT):
        raise ValueError(f"operator {name}: no operand has the output's dimension {lost[0]!r}")


def _operand(text: str) -> Tensor:
    text = text.strip()
    added = text.startswith("+")
    text = text.removeprefix("+").lstrip()
    role = ROLES.get(text[:1], ACTIVATION)
    text = text.lstrip("*!%")
    head, _, dims = text.rpartition(":")
    name, _, dtype = head.strip().partition("/")
    return Tensor(name, tuple(dims.split()), role, dtype, added)


def line(o: Op) -> str:
    """An operator as a line of text: what was written, with the names and dimensions of its tensors."""
    sides = (", ".join(map(_written, tensors)) for tensors in (o.ins, o.outs))
    return f"{' -> '.join(sides)} ({o.kind})"


def _written(t: Tensor) -> str:
    mark = next((mark for mark, role in ROLES.items() if role == t.role), "")
    dtype = f"/{t.dtype}" if t.dtype else ""
    return f"{'+' if t.added else ''}{mark}{t.name}{dtype}: {' '.join(t.dims)}"


def elements(t: Tensor, sizes: Mapping[str, Size]) -> Size:
    """The number of elements of a tensor."""
    n: Size = 1
    for d in t.dims:
        n = n * sizes[d[1:] if d[0] == "~" else d]
    return n


def picked(t: Tensor) -> str:
    """The dimension from which each element picks one; "" where there is none."""
    return next((d[1:] for d in t.dims if d[0] == "~"), "")


def expert_axis(t: Tensor, o: Op) -> str:
    """The dimension that counts a weight's experts: one that is picked for a product, not looked up."""
    return "" if o.rule.looks_up else picked(t)


def is_convolution(o: Op) -> bool:
    """Whether a window slides over an axis of it: `y+i`."""
    return any("+" in axis for t in (*o.ins, *o.outs) for axis in t.dims)


def contracted_dims(o: Op) -> tuple[str, ...]:
    """All dimensions that a contraction loops over; `y+i` is y and i, `~v` picks one."""
    return _loops(*(t.dims for t in (*o.ins, o.out) if not t.added))


@lru_cache(maxsize=4096)
def _loops(*operands: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(
        dict.fromkeys(d for dims in operands for axis in dims if axis[0] != "~" for d in axis.split("+"))
    )


def contraction_flops(o: Op) -> Size:
    """2 x the product of all dimensions (1 multiply-add = 2 FLOPs); 0 for other kinds. Derived."""
    if o.kind != "contract":
        return 0
    flops = 2 * product(o.sizes[d] for d in contracted_dims(o))
    return flops // 2 if any(t.dtype[:6] == "sparse" for t in o.ins) else flops  # plan/prune.py


def pointwise_flops(o: Op) -> Size:
    """FLOPs of everything that is no contraction: the rule's work for each element of the
    widest tensor, and one addition for each output element and added operand. Derived.
    """
    added = sum(t.added for t in o.ins)
    flops = added * elements(o.out, o.sizes) if added else 0
    rate = o.rule.back if o.phase == "backward" else o.rule.flops
    return flops + rate * widest(o) if rate else flops


def widest(o: Op) -> Size:
    """Elements of the operator's first input or first output, whichever it walks over."""
    walks = o.rule.walks
    if o.ins and (walks == "first" or (walks == "in" and o.phase != "backward")):
        return elements(o.ins[0], o.sizes)
    return elements(o.out, o.sizes)


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
    a, b, out = ({d for axis in t.dims if axis[0] != "~" for d in axis.split("+")} for t in (*ins, o.out))
    # A picked dimension (an expert's weights) sends rows to it: it neither adds nor removes work.
    edges = ((a & out) - b, (b & out) - a, (a & b) - out, a & b & out)
    return Gemm(*(product(o.sizes[d] for d in dims) for dims in edges))
