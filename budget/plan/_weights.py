"""The trained weights of a program, in the shapes in which a framework holds them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..fold.count import training
from ..ir import HEAD, Model, Op, Tensor, base, expert_axis, is_picked, walk, window
from ..named import NamedTuple
from ..size import Size, maximum, product


class Weight(NamedTuple):
    """One trained weight, held `copies` times (a layer's, for each layer)."""

    name: str
    shape: tuple[Size, ...]
    copies: Size
    dtype: str
    experts: bool  # its first axis counts experts
    embeds: bool  # a table that is looked up, or what makes scores over a vocabulary

    @property
    def size(self) -> Size:
        return product(self.shape)


def trained_weights(model: Model) -> list[Weight]:
    """Every weight that has a gradient, in the order in which the network reads them."""
    readers: dict[str, Op] = {}
    for o, _ in walk(model.nodes):
        for t in o.ins:
            readers.setdefault(t.name, o)
    return [_weight(t, copies, *_used(t, o, readers)) for t, o, copies in training(model)]


def _weight(t: Tensor, copies: Size, used: Tensor, o: Op) -> Weight:
    experts, embeds = bool(expert_axis(used, o)), o.kind != "contract" or o.tag == HEAD
    return Weight(t.name, shape(used, o), copies, t.dtype, experts, embeds)


def _used(t: Tensor, o: Op, readers: Mapping[str, Op]) -> tuple[Tensor, Op]:
    """A weight, or its cast to another dtype, as the operator that computes with it sees it."""
    while o.rule.casts and o.out.name in readers:
        cast = o.out.name
        o = readers[cast]
        t = next(u for u in o.ins if u.name == cast)
    return t, o


def shape(t: Tensor, o: Op) -> tuple[Size, ...]:
    """A linear layer's [out, in], a convolution's [out, in, height, width], experts' [e, out, in],
    a table's [rows, width]; anything else is a vector.
    """
    size = {d: o.sizes[base(d)] for d in t.dims}
    picked = [d for d in t.dims if is_picked(d)]
    rest = [d for d in t.dims if not is_picked(d)]
    if o.kind == "gather":
        return (*(size[d] for d in picked), product(size[d] for d in rest))
    if t.added or o.kind != "contract":
        return (*(size[d] for d in picked), product(size[d] for d in rest))
    windows = [d for d in rest if any(d in window(axis)[1:] for u in o.ins for axis in u.dims)]
    made = [d for d in rest if d in o.out.dims and d not in windows]
    read = [d for d in rest if d not in made and d not in windows]
    lead = [product(size[d] for d in part) for part in (made, read)]
    return (*(size[d] for d in picked), *lead, *(size[d] for d in windows))


def largest(weights: Iterable[Weight], cur: float = 1, prev: float = 0) -> Size:
    """The most elements that a loop over weights needs at once: `cur` times the current weight and `prev`
    times the previous one, which Python still holds.
    """
    most: Size = 0
    before: Size = 0
    for w in weights:
        most = maximum(most, cur * w.size + prev * before)
        before = w.size
    return most
