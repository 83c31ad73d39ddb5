"""The memory that torch's allocator holds for a program, and the least that would do."""

from __future__ import annotations

from collections.abc import Mapping

from .. import table
from ..config import Task
from ..device.reserve import Reserve
from ..fold.memory import Memory
from ..ir import Model
from ..named import TYPE_CHECKING, Any, NamedTuple
from ..size import floor_div, maximum, minimum
from ..stack import Stack

if TYPE_CHECKING:
    from ..fold.step import Spread


INTERVALS = "memory_intervals.json"
# The three sizes that are called memory, the smallest first, and their names among measurements.
SIZES = {"peak": "allocated", "reserved": "reserved", "process": "process"}


def kind(mode: str) -> str:
    """The kind of run whose errors are alike: training, or serving."""
    return "train" if mode == "train" else "serve"


def ranges(stack: Stack, mode: str, sizes: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The interval of each size within which nine of ten measured ones lie. What is allocated is part of what
    is reserved, and that of what the process holds: the ends of the intervals are in the same order.
    """
    about = table.load(INTERVALS)[kind(mode)]
    ends = {**about[""], **about.get(stack.same or stack.name, {})}
    low, high, lows, highs = 0, None, {}, {}
    for name, quantity in SIZES.items():
        low = lows[name] = maximum(low, _times(sizes[name], ends[quantity][0]))
    for name, quantity in reversed(SIZES.items()):
        most = _times(sizes[name], ends[quantity][1])
        high = highs[name] = most if high is None else minimum(high, most)
    return {name: (lows[name], highs[name]) for name in SIZES}


def provenance(stack: Stack, mode: str) -> str:
    """Where the intervals are from."""
    return f"published peaks of {measured(stack, mode) or 'other stacks'}"


def measured(stack: Stack, mode: str) -> str:
    """The stack whose published peaks tell how far off a size may be; empty: all others."""
    name = stack.same or stack.name
    return name if name in table.load(INTERVALS)[kind(mode)] else ""


def _times(size: Any, factor: float) -> Any:
    """A size of whole bytes."""
    return floor_div(size * round(factor * 1000), 1000)


class Held(NamedTuple):
    """A program, what it needs, and what runs it. room: bytes of the device that the allocator may have."""

    program: Model
    task: Task
    memory: Memory
    spread: Spread | None
    stack: Stack
    reserve: Reserve
    room: Any

    def least(self) -> Any:
        """Bytes that the allocator holds at the least: the tensors, fragments, other streams' pools."""
        peak, spread = self.memory.peak, self.spread
        if spread is not None and self.stack.pools and not self.reserve.asked:
            from ..fold.pools import idle

            peak = peak + idle(spread, self.memory, self.stack.pools)
        return self.reserve.reserved(peak)

    def most(self, least: Any) -> Any:
        """Bytes that it holds at the peak: the tensors, cached blocks that were freed, fragments.

        Where the device has no more memory, the allocator gives cached blocks back and goes on.
        """
        numbers = type(self.memory.peak) is int
        return self._replayed(least) if numbers and self._replays() and least < self.room else least

    def in_turn(self) -> Any:
        """The same for a program of arrays that runs one step for each element, in turn: blocks that were
        freed by a short sequence are too small for a longer one, and stay until the device is full.
        """
        least = self.least()
        if not getattr(least, "shape", ()):
            return self.most(least)
        most = int(least.max())
        return self._replayed(most, len(least)) if self._replays() and most < self.room else most

    def _replayed(self, least: Any, in_turn: int = 0) -> Any:
        from ..fold.pools import held, idle

        spread, pools = self.spread, self.stack.pools
        programs, beside, devices = [(self.program, self.task.dtype)], 0, 1
        if spread is not None:
            programs, devices = [(r.program, spread.dtype) for r in spread.ranks], spread.layout.devices
            gathers = tuple(p for p in pools if p == "gathers")
            beside = idle(spread, self.memory, gathers) + max(r.in_buckets for r in spread.ranks)
        grows = devices <= self.stack.expandable
        replay = held(programs, pools, grows=grows, beside=beside, in_turn=in_turn)
        return least if replay is None else min(replay, self.room)

    def _replays(self) -> bool:
        """Whether the allocator is replayed: its rules must be known, no micro-batch may wait for another
        stage, and it is no decoding.
        """
        replayable = self.stack.allocator == "torch" and self.reserve.fragments > 0
        alone = self.spread is None or self.spread.layout.pp == 1
        return replayable and alone and self.task.workload.mode != "decode"
