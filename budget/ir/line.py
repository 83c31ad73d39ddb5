"""An operator from one line of text, and its errors.

    op("up", "x: b s d, *d f, +*f -> u: b s f")

is a linear layer with a bias. `name:` names a tensor (left out: what the last operator made),
`name/dtype:` one of a dtype of its own; `*` marks a weight, `!` an input of the network, `%` a cache,
`+` an operand that is added to the contraction, `y+i` the axis that a window `i` slides over to give
`y`, and `~v` a dimension from which each element picks one (embeddings, experts). Parameters, FLOPs,
GEMM sizes and the backward pass are derived (ir/op.py). An operator that is no contraction names its
kind, whose row is in ir/kinds/; ir/tensor.py has the letters.
"""

from __future__ import annotations

from functools import lru_cache

from ..size import Size
from .kinds import RULES
from .op import Op
from .tensor import ACTIVATION, CACHE, INPUT, WEIGHT, Tensor

ROLES = {"*": WEIGHT, "!": INPUT, "%": CACHE}


def op(name: str, spec: str, kind: str = "contract", tag: str = "", **sizes: Size) -> Op:
    """An operator from one line; `sizes` adds to, or overrides, the model's own; `tag` says what it is
    to its network, for techniques that ask. Raises ValueError, which names operator and line.
    """
    if kind not in RULES:
        raise ValueError(f"operator {name}: unknown kind {kind!r}; line {spec!r}")
    ins, outs = _parse(name, spec)
    if kind == "contract":
        _check(name, spec, ins, outs[0])
    return Op(name, kind, ins, outs, sizes, tag=tag)


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
def _check(name: str, spec: str, ins: tuple[Tensor, ...], out: Tensor) -> None:
    known = {d for t in ins for axis in t.dims for d in (axis, *axis.split("+"))}
    lost = [d for d in out.dims if d not in known and not set(d.split("+")) <= known and d != "a"]
    if lost and all(t.dims for t in ins if t.role != WEIGHT):
        raise ValueError(f"operator {name}: no operand has the output's dimension {lost[0]!r}; line {spec!r}")


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
