"""Parameters and FLOPs: sums over operators."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..ir import (
    ACTIVE,
    ROUTER,
    SCALE,
    WEIGHT,
    Model,
    Op,
    Tensor,
    contraction_flops,
    elements,
    expert_axis,
    pointwise_flops,
    walk,
    weights,
)
from ..named import NamedTuple
from ..size import Size


class Params(NamedTuple):
    """Elements of the weights: all, those that one token uses, those that train."""

    total: Size
    active: Size
    trainable: Size


class Flops(NamedTuple):
    """FLOPs by phase: contractions as FlopCounterMode counts them, everything else apart."""

    forward: Size
    backward: Size
    forward_pointwise: Size
    backward_pointwise: Size
    optimizer: Size

    def times(self, n: Size) -> Flops:
        """Those of n devices, or steps, that do the same."""
        return Flops(*(x * n for x in self))

    @staticmethod
    def total(each: Iterable[Flops]) -> Flops:
        """Those of several devices together."""
        return Flops(*map(sum, zip(*each, strict=True)))


def params(model: Model) -> Params:
    """Each weight once, however many operators read it; of an expert the routed fraction is active."""
    total: Size = 0
    active: Size = 0
    for t, o, copies in weights(model.nodes):
        if t.role == SCALE:
            continue
        n = elements(t, o.sizes) * copies
        total = total + n
        e = expert_axis(t, o)
        active = active + (n * o.sizes[ACTIVE] // o.sizes[e] if e else n)
    return Params(total, active, sum(trained(model).values()))


def trained(model: Model) -> dict[str, Size]:
    """Elements of the weights that train, by dtype: those with a gradient, where there is a backward pass."""
    sums: dict[str, Size] = {}
    for t, o, copies in training(model):
        sums[t.dtype] = sums.get(t.dtype, 0) + elements(t, o.sizes) * copies
    return sums


def training(model: Model) -> Iterator[tuple[Tensor, Op, Size]]:
    """The weights that train, each with an operator that reads it and the number of copies."""
    gradients = {
        t.of for o, _ in walk(model.nodes) if o.phase == "backward" for t in o.outs if t.role == WEIGHT
    }
    for t, o, copies in weights(model.nodes):
        if t.role == WEIGHT and (not gradients or t.name in gradients):
            yield t, o, copies


def modelled(model: Model) -> tuple[str, ...]:
    """The parts whose pointwise FLOPs and bytes moved are a model, not those of torch's own calls
    (tests/test_moved.py has the tolerances); contractions, parameters and lifetimes are exact all the same.
    """
    ops = (o for o, _ in walk(model.nodes) if o.phase == "forward")
    parts = {o.rule.modelled or ("experts" if o.tag == ROUTER else "") for o in ops}
    return tuple(sorted(parts - {""}))


def flops(model: Model) -> Flops:
    """FLOPs of one pass over the model's operators, in whatever phases they are."""
    return each_flops(model)[0]


def each_flops(*models: Model) -> list[Flops]:
    """The same of programs that were made from one another: an operator that they share is counted once."""
    counted: dict[int, tuple[Size, Size]] = {}  # by id: all of them are alive while this runs
    return [_flops(model, counted) for model in models]


def _flops(model: Model, known: dict[int, tuple[Size, Size]]) -> Flops:
    sums: dict[str, Size] = {"forward": 0, "backward": 0, "optimizer": 0}
    rest: dict[str, Size] = dict(sums)
    for o, times in walk(model.nodes):
        counted = known.get(id(o))
        if counted is None:
            counted = known[id(o)] = contraction_flops(o), pointwise_flops(o)
        sums[o.phase] = sums[o.phase] + counted[0] * times
        rest[o.phase] = rest[o.phase] + counted[1] * times
    step = rest["optimizer"] + sums["optimizer"]
    return Flops(sums["forward"], sums["backward"], rest["forward"], rest["backward"], step)
