"""Pools: memory that one stream freed and no other may use, so that the allocator holds more than tensors
need.

torch's allocator reuses a freed block only on the stream that allocated it. FSDP2 gathers a unit's weights
into a buffer of one stream and copies them out of it; a device's part of each gradient is allocated on
another. So the largest buffer and all these parts are held from the first step on, even while they are not in
use. FSDP1 gathers on a stream of its own, up to two units at a time. Everything else is replayed by the
allocator's rules (fold/allocator.py), unless a micro-batch's storages wait for another stage. Sources:
fsdp2-collectives, torch-fsdp1.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from ..ir import Model
from ..size import Size, exact_div, is_one, maximum
from .allocator import replayed
from .communication import communications
from .memory import Memory
from .step import Spread


def held(
    programs: Sequence[tuple[Model, str]],
    pools: Sequence[str],
    *,
    grows: bool,
    beside: Size = 0,
    in_turn: int = 0,
) -> Size | None:
    """Bytes that the allocator holds for the program that needs most; None for arrays, and for long programs.

    programs: each with its dtype. grows: segments are expandable. beside: bytes that no program has. in_turn:
    how many elements of arrays are run one after the other.
    """
    apart = tuple(p for p in pools if p == "gradients")
    sizes = [
        replayed(program, dtype, apart=apart, expandable=grows, in_turn=in_turn)
        for program, dtype in programs
    ]
    most = [n for n in sizes if n is not None]
    return max(most) + beside if len(most) == len(sizes) else None


def idle(spread: Spread, memory: Memory, pools: Sequence[str]) -> Size:
    """Bytes that streams' own pools hold at the peak without use. pools: see POOLS in stack/_parse.py.

    In a pipeline weights stay gathered and whole gradients wait for the last micro-batch (zero 1). For arrays
    of sizes it is not known what is alive at the peak; with several micro-batches, all gradients count there.
    """
    zero, unused = spread.layout.zero, 0
    if "gradients" in pools and zero == 3:
        alive = 0 if is_one(spread.micro) else memory.gradients
        unused = unused + memory.gradients - memory.at_peak.get("gradients", alive)
    if "gradients" in pools and zero == 1:
        unused = unused + exact_div(memory.gradients, spread.layout.group("dp").size)
    if "gathers" in pools and zero == 3:
        collectives = (c for r in spread.ranks for c in communications(r.program.nodes, spread.dtype))
        buffers = (c.bytes for c in collectives if c.kind == "all_gather" and c.axis in ("dp", "edp"))
        unused = unused + reduce(maximum, buffers, 0)
    return unused
