"""Layers of several kinds in a repeating order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

from ..ir import Node, block
from ..named import TYPE_CHECKING
from ..size import Size

if TYPE_CHECKING:
    from typing import TypeVar

    K = TypeVar("K")


def period(kinds: tuple[K, ...]) -> tuple[K, ...]:
    """The shortest part of the layers' kinds that repeats."""
    for n in range(1, len(kinds)):
        if all(kind == kinds[i % n] for i, kind in enumerate(kinds)):
            return kinds[:n]
    return kinds


def stack(
    name: str,
    kinds: tuple[K, ...],
    count: Size,
    layer: Callable[[K], Iterable[Node]],
    *,
    shared: bool = False,
) -> Iterator[Node]:
    """`count` layers that cycle through `kinds`: a block of one period, and a block for the remainder."""
    if len(kinds) == 1:
        yield block(name, layer(kinds[0]), count, shared=shared)
        return
    periods, rest = divmod(count, len(kinds))
    if periods:
        yield block(name, _runs(kinds, layer), periods)
    if rest:
        yield block(f"{name}.rest", _runs(kinds[:rest], layer), 1)


def _runs(kinds: tuple[K, ...], layer: Callable[[K], Iterable[Node]]) -> Iterator[Node]:
    """Consecutive layers of one kind as one block."""
    first = 0
    for kind, run in groupby(kinds):
        count = len(tuple(run))
        yield block(f"run{first}", layer(kind), count)
        first += count
