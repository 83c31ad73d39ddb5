"""The recorded calls as a program: with lifetimes, with gradients marked, with what outlives it.

The last operator before Python and autograd free a storage holds it until then (Op.holds), so that the memory
walk has true lifetimes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..ir import FROZEN, GRADIENT, INPUT, STATE, WEIGHT, WEIGHTS, Op, Tensor
from ..named import NamedTuple
from ._aten import NUMBERS, shaped
from ._capture import Recorder
from ._storages import Storages, Tensors, address, parts


class Successor(NamedTuple):
    """A storage that a weight has from some operator on, after its first one was freed."""

    weight: str
    role: str
    since: int


def program(
    recorder: Recorder, parameters: Mapping[str, torch.Tensor], gradients: Mapping[str, torch.Tensor]
) -> tuple[tuple[Op, ...], tuple[str, ...]]:
    """The operators, and what outlives them."""
    storages = recorder.storages
    grads, successors = _gradients(gradients, storages), _successors(parameters, storages)
    later = {s.weight: name for name, s in successors.items()}

    def known(t: Tensor, i: int) -> Tensor:
        s = successors.get(t.name)
        return t._replace(name=s.weight, role=s.role) if s and i > s.since else _as_gradient(t, grads)

    ops = []
    for i, o in enumerate(recorder.ops):
        outs = tuple(new for t in o.outs for new in _split(t, known(t, i), grads.get(t.name)))
        holds = tuple(later.get(name, name) for name in storages.freed.get(i, ()))
        ops.append(o._replace(ins=tuple(known(t, i) for t in o.ins), outs=outs, holds=holds))
    named = {t.name for ts in grads.values() for t in ts}
    for name, dtype in recorder.trained.items():  # whose gradient is gone: a hook has used it
        if f"d:{name}" not in named:
            mark = Tensor(f"d:{name}", ("0",), WEIGHT, dtype, part=GRADIENT, of=name)
            ops.append(Op(f"d:{name}", "copy", (), (mark,), NUMBERS, "backward"))
    alive = {s.name for s in storages.alive.values() if s.role not in (WEIGHT, FROZEN, INPUT)}
    return tuple(ops), tuple(sorted(alive - set(grads) - set(successors)))


def _successors(parameters: Mapping[str, torch.Tensor], storages: Storages) -> dict[str, Successor]:
    """The storages that took a parameter's place, by `weight.data = ...`."""
    freed = {name: i for i, names in storages.freed.items() for name in names}
    successors = {}
    for name, p in parameters.items():
        for t in parts(p):
            now = storages.alive.get(address(t))
            if now and now.role not in WEIGHTS and name in freed:
                successors[now.name] = Successor(name, WEIGHT if p.requires_grad else FROZEN, freed[name])
    return successors


def _gradients(gradients: Mapping[str, torch.Tensor], storages: Storages) -> dict[str, Tensors]:
    """By storage, the gradients in it and the rest of its elements."""
    homes: dict[str, list[Tensor]] = {}
    sizes: dict[str, int] = {}
    for name, g in gradients.items():
        for i, t in enumerate(reversed(parts(g))):
            storage = storages.of(t)
            there = homes.setdefault(storage.name, [])
            left = sizes.setdefault(storage.name, storage.bytes) - t.numel() * t.itemsize
            grad = shaped(f"d:{name}" + ".indices" * i, t, WEIGHT)._replace(part=GRADIENT, of=name)
            there.append(grad if left >= 0 else grad._replace(dims=("0",)))
            sizes[storage.name] = max(left, 0) if left >= 0 else sizes[storage.name]
    for name, left in sizes.items():
        if left:
            homes[name].append(Tensor(f"{homes[name][0].name}.rest", (str(left),), WEIGHT, "uint8"))
    return {name: tuple(ts) for name, ts in homes.items()}


def _split(t: Tensor, known: Tensor, grads: Tensors | None) -> Tensors:
    """An operator's output, divided into the gradients that are in it."""
    if grads is None or t.role == STATE:
        return (known,)
    if len(grads) == 1:
        return (known._replace(role=WEIGHT),)
    return (t._replace(on_chip=True), *grads)


def _as_gradient(t: Tensor, grads: Mapping[str, Tensors]) -> Tensor:
    """A tensor by the name of the first gradient that is in it."""
    first = grads[t.name][0] if t.name in grads else None
    return t._replace(name=first.name, part=GRADIENT, of=first.of) if first else t
