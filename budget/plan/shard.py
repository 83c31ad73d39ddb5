"""What data-parallel devices divide between them: states, gradients, weights (ZeRO 1 to 3, FSDP, HSDP).

Dividing a program (plan/divide.py) leaves each weight's gradient a partial sum over the devices that saw
other data. Here they are added up, and what all of these would store is divided among them: among dp's,
which counts cp's devices too, or edp's, those that hold the same experts.

    zero   gradients                        weights, for a step
    0      all-reduced once a step          kept
    1      reduce-scattered once a step     gathered once, behind the optimizer
    2      reduce-scattered a micro-batch   gathered once, behind the optimizer
    3      reduce-scattered a micro-batch   gathered for each layer, forward and backward

plan/units.py has what is done in each micro-batch. Sources: zero, pytorch-fsdp, megatron-lm.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from ..errors import InputError
from ..fold.count import training
from ..ir import (
    EXPERTS,
    GIVEN,
    GRADIENT,
    WEIGHT,
    WEIGHTS,
    Block,
    Model,
    Node,
    Op,
    Tensor,
    elements,
    expert_axis,
    walk,
)
from ..layout import Layout
from ..named import NamedTuple
from ..size import Size, ceil_div, is_number, is_one, is_zero
from .mesh import Axis

Partial = Mapping[str, Sequence[Axis]]  # by weight: the axes over which its gradient is a partial sum
SHAPED = ("adafactor", "muon", "shampoo")  # optimizers that need a weight's rows and columns


class Part(NamedTuple):
    """Weights, or gradients, that the same devices hold: the devices' axis, the dtype, how many elements."""

    axis: str
    dtype: str
    size: Size


def owned(model: Model, layout: Layout, optimizer: str) -> Model:
    """The program with the part of each weight that one device's optimizer updates.

    Raises InputError for an optimizer that needs whole weights, unless it shares them out (`among`).
    """
    if not layout.zero or is_alone(layout) or among(layout, optimizer) is not None:
        return model
    if optimizer in SHAPED:
        allowed = "0, or 1 without ep" if optimizer == "muon" else "0"
        raise InputError("layout.zero", f"{optimizer} steps whole matrices; allowed: {allowed}")
    if layout.zero == 3:  # divided already
        return model
    return model._replace(nodes=tuple(_owned(model.nodes, layout)))


def among(layout: Layout, optimizer: str) -> Size | None:
    """How many devices share out the whole matrices that Muon steps, or None where each steps its own."""
    if optimizer != "muon" or is_alone(layout) or layout.zero != 1 or not is_one(layout.ep):
        return None
    return layout.group("dp").size


def _owned(nodes: Iterable[Node], layout: Layout) -> Iterator[Node]:
    for node in nodes:
        if isinstance(node, Block):
            yield node._replace(body=tuple(_owned(node.body, layout)))
            continue
        shards = [stored(t, node, layout) if t.role in WEIGHTS else (t, {}) for t in node.ins]
        sizes = {name: size for _, own in shards for name, size in own.items()}
        yield node._replace(ins=tuple(t for t, _ in shards), sizes={**node.sizes, **sizes})


def stored(t: Tensor, o: Op, layout: Layout) -> tuple[Tensor, dict[str, Size]]:
    """One device's part of a weight or a gradient, as a tensor of one dimension, and its size."""
    n = layout.group(axis_of(t, o, layout)).size
    return t._replace(dims=(t.name,), added=False), {t.name: ceil_div(elements(t, o.sizes), n)}


def reductions(model: Model, layout: Layout, partial: Partial) -> Iterator[Op]:
    """The sums of gradients once a step, behind the last micro-batch."""
    names = {name for name, axes in partial.items() if any(axis.name == "tp" for axis in axes)}
    for part in _parts(model, layout, names):
        if part.axis == "dp":  # experts that tp does not divide are among edp's
            yield _once("all_reduce", "tp", part, part.size, "backward")
    if is_alone(layout) or layout.zero > 1:
        return
    for part in _parts(model, layout):
        yield _once("reduce_scatter" if layout.zero else "all_reduce", part.axis, part, part.size, "backward")
        if has_copies(layout):
            share = ceil_div(part.size, layout.group(part.axis).size) if layout.zero else part.size
            yield _once("all_reduce", "replicate", part, share, "backward")


def gathers(model: Model, layout: Layout) -> Iterator[Op]:
    """The weights as their owners updated them, for all: once a step, behind the optimizer."""
    if layout.zero in (1, 2) and not is_alone(layout):
        for part in _parts(model, layout, of_weights=True):
            yield _once("all_gather", part.axis, part, part.size, "optimizer")


def _once(kind: str, axis: str, part: Part, size: Size, phase: str) -> Op:
    """One collective for all gradients, or all weights, of some devices; the tensors exist already."""
    what = Tensor("weights" if kind == "all_gather" else "gradients", ("p",), GIVEN, part.dtype)
    return Op(f"{what.name}.{kind}", kind, (what,), (), {"p": size}, phase, axis=axis)


def _parts(
    model: Model, layout: Layout, names: set[str] | None = None, *, of_weights: bool = False
) -> list[Part]:
    """The trained weights (names: some of them), or their gradients, by dtype and by the devices that hold
    them.
    """
    made = (t for o, _ in walk(model.nodes) for t in o.outs if t.role == WEIGHT and t.part == GRADIENT)
    dtypes = {t.of: t.dtype for t in made}
    sums: dict[tuple[str, str], Size] = {}
    for t, o, copies in training(model):
        if names is None or t.name in names:
            key = axis_of(t, o, layout), t.dtype if of_weights else dtypes.get(t.name, t.dtype)
            sums[key] = sums.get(key, 0) + elements(t, o.sizes) * copies
    return [Part(axis, dtype, size) for (axis, dtype), size in sums.items()]


def axis_of(t: Tensor, o: Op, layout: Layout) -> str:
    """The devices that hold the same of a weight, or of its gradient: experts have groups of their own."""
    if is_one(layout.ep) and is_zero(layout.etp):
        return "dp"
    return "edp" if EXPERTS in t.dims and (expert_axis(t, o) or t.part == GRADIENT) else "dp"


def has_copies(layout: Layout) -> bool:
    """Whether zero divides over some of dp's devices only, and others hold copies (HSDP)."""
    return not (is_zero(layout.shard) or (is_number(layout.dp) and layout.shard == layout.dp))


def is_alone(layout: Layout) -> bool:
    """Whether no two devices hold the same weights."""
    return is_one(layout.replicas)
