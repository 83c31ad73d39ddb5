"""What torch's caching allocator holds for a program: its tensors, replayed by the allocator's rules.

Sizes are rounded up to 512 bytes; those up to 1 MiB have a pool of their own. The smallest free block that is
large enough is taken and split; freed blocks are joined with free neighbours. Where no block is large enough
a segment is allocated, or the expandable segment grows. The optimizer's states, which the first step
allocates between blocks that its passes have freed, then break up the blocks that the next step's largest
tensors need. Source: torch-allocator.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence

from ..ir import Model, Op, Tensor, states, walk, weights
from ..size import Size, ceil_div
from ._bytes import tensor_bytes
from ._lifetimes import Lifetimes

LEAST, MIB = 512, 2**20
SMALL, BETWEEN = MIB, 10 * MIB  # the largest small block; the largest block that shares a segment
PAGE = {True: 2 * MIB, False: 20 * MIB}  # a segment of small blocks, and of large ones
STEPS = 3  # the second step is the first with states, and the third finds what it leaves
MOST = 50_000  # operators: more are not replayed


class _Block:
    """A stretch of a segment; `before` and `behind` it its neighbours."""

    __slots__ = ("before", "behind", "free", "number", "size", "small")

    def __init__(self, number: int, size: int, small: bool, before: _Block | None):
        self.number, self.size, self.small, self.free = number, size, small, False
        self.before, self.behind = before, None
        if before is not None:
            self.behind = behind = before.behind
            before.behind = self
            if behind is not None:
                behind.before = self


class Allocator:
    """The blocks of one stream. reserved: bytes of its segments, which are never given back."""

    def __init__(self, *, expandable: bool):
        self.expandable, self.reserved, self.made = expandable, 0, 0
        # By pool, in order: size, number, block. Tuples, which are compared fast.
        self.free: dict[bool, list[tuple[int, int, _Block]]] = {True: [], False: []}
        self.last: dict[bool, _Block] = {}  # of each pool's growing segment

    def allocate(self, size: int) -> _Block:
        """A block of at least that many bytes."""
        size = -(-size // LEAST) * LEAST or LEAST
        small = size <= SMALL
        free = self.free[small]
        at = bisect_left(free, (size,))
        block = free.pop(at)[2] if at < len(free) else self._new(size, small)
        left = block.size - size
        if left >= LEAST if small or self.expandable else left > SMALL:
            block.size = size
            self._release(self._block(left, small, block))
        block.free = False
        return block

    def release(self, block: _Block) -> None:
        """Free a block, joined with its free neighbours."""
        behind, before = block.behind, block.before
        if behind is not None and behind.free:
            self._take(behind)
            self._join(block, behind)
        if before is not None and before.free:
            self._take(before)
            self._join(before, block)
            block = before
        self._release(block)

    def lend(self, size: int) -> None:
        """Allocate and free at once, which changes nothing where a free block is large enough."""
        free = self.free[size <= SMALL]
        if not free or free[-1][0] < size:
            self.release(self.allocate(size))

    def _take(self, block: _Block) -> None:
        """Take a block off the list of free ones."""
        free = self.free[block.small]
        del free[bisect_left(free, (block.size, block.number))]

    def _join(self, block: _Block, behind: _Block) -> None:
        block.size, block.behind = block.size + behind.size, behind.behind
        if behind.behind is not None:
            behind.behind.before = block
        if self.last.get(block.small) is behind:
            self.last[block.small] = block

    def _release(self, block: _Block) -> None:
        block.free = True
        insort(self.free[block.small], (block.size, block.number, block))

    def _block(self, size: int, small: bool, before: _Block | None = None) -> _Block:
        self.made += 1
        block = _Block(self.made, size, small, before)
        if before is not None and self.last.get(small) is before:
            self.last[small] = block
        return block

    def _new(self, size: int, small: bool) -> _Block:
        if not self.expandable:
            shared = small or size < BETWEEN
            size = PAGE[small] if shared else ceil_div(size, 2 * MIB) * 2 * MIB
            self.reserved += size
            return self._block(size, small)
        end = self.last.get(small)
        there = end.size if end is not None and end.free else 0
        more = ceil_div(size - there, PAGE[small]) * PAGE[small]
        self.reserved += more
        if end is not None and end.free:
            self._take(end)
            end.size += more
            return end
        self.last[small] = block = self._block(more, small, end)
        return block


def replayed(
    model: Model, dtype: str, *, apart: tuple[str, ...], expandable: bool, in_turn: int = 0
) -> int | None:
    """Bytes that the allocator holds after some training steps; None for a program of arrays, or a long one.

    apart: kinds of storages (fold/_lifetimes.py) that are allocated on a stream of their own. in_turn: the
    number of elements of a program of arrays, of which each is one step; all are run twice, in order.
    """
    counts = [times for _, times in walk(model.nodes)]
    if not all(type(n) is int for n in counts) or sum(counts) > MOST:
        return None
    life = Lifetimes(model.nodes, dtype, model.outputs, whole=True)
    usual, other = Allocator(expandable=expandable), Allocator(expandable=expandable)
    sizes = [int(tensor_bytes(t, o.sizes, dtype)) for t, o, n in _own(model) for _ in range(n)]
    for size in (*sizes, _largest(life.inputs), _largest(life.buffers)):
        if size:
            usual.allocate(size)
    pools = [other if kind in apart else usual for kind, _ in life.storages]
    blocks: dict[int, _Block] = {}
    has_states = False
    for step in range(2 * in_turn or STEPS):
        at = step % (in_turn or STEPS)
        for o, new, gone, extra, _ in life.events:
            if not has_states and o is not None and o.phase == "optimizer":
                has_states = True
                for size in _states(model, dtype, sizes):
                    usual.allocate(size)
            for storage in new:
                size = _of(life.storages[storage][1], at)
                if size:
                    blocks[storage] = pools[storage].allocate(size)
            if lent := _of(extra, at):
                usual.lend(lent)
            for storage in gone:
                if storage in blocks:
                    pools[storage].release(blocks.pop(storage))
        for storage, block in blocks.items():
            pools[storage].release(block)
        blocks.clear()
    return usual.reserved + other.reserved


def _of(size: Size, element: int) -> int:
    """A size, or that of an array's element."""
    return int(size[element] if getattr(size, "shape", ()) else size)


def _largest(size: Size) -> int:
    return int(size.max() if getattr(size, "shape", ()) else size)


def _own(model: Model) -> Iterator[tuple[Tensor, Op, int]]:
    return ((t, o, int(n)) for t, o, n in weights(model.nodes) if not t.on_chip)


def _states(model: Model, dtype: str, sizes: Sequence[int]) -> Iterator[int]:
    """Bytes of an optimizer's states, tensors beside each weight, in the order in which it makes them."""
    each = [tensor_bytes(t, o.sizes, dtype) * n for t, o, n in states(model.nodes)]
    total = sum(sizes)
    for size in sizes:
        yield from (state * size // total for state in each)
