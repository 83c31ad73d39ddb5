"""What torch's allocator holds of a device for an answer's program, and how little would do."""

from __future__ import annotations

from .named import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .answer import Estimate


def least(e: Estimate) -> Any:
    """Bytes that the allocator holds at the least: the tensors, fragments, other streams' pools."""
    peak = e.memory.peak
    if e.spread is not None and e.stack.pools and not e.reserve.asked:
        from .fold.pools import idle

        peak = peak + idle(e.spread, e.memory, e.stack.pools)
    return e.reserve.reserved(peak)


def reserved(e: Estimate, lowest: Any) -> Any:
    """Bytes that the allocator holds at the peak: the tensors, what is freed and cached, fragments.

    lowest: what it holds at the least. Where a device has no more, the allocator gives back what it has
    cached, and goes on.
    """
    room = e.device.usable_bytes - e.reserve.bytes
    if not _replays(e) or lowest >= room:
        return lowest
    from .fold.pools import held, idle

    one, spread, pools = (e.program, e.task.dtype), e.spread, e.stack.pools
    programs, beside = [one], 0
    if spread is not None:
        programs = [(r.program, spread.dtype) for r in spread.ranks]
        gathers = tuple(p for p in pools if p == "gathers")
        beside = idle(spread, e.memory, gathers) + max(r.in_buckets for r in spread.ranks)
    found = held(programs, pools, grows=e.devices <= e.stack.expandable, beside=beside)
    return lowest if found is None else min(found, room)


def _replays(e: Estimate) -> bool:
    """Whether the allocator's rules are known and say more: of passes whose micro-batches do not wait for
    another stage, but for tokens one by one, and of sizes that are numbers.
    """
    known = e.stack.allocator == "torch" and e.reserve.fragments > 0
    passes = e.task.workload.mode != "decode" and type(e.memory.peak) is int
    return known and passes and (e.spread is None or e.spread.layout.pp == 1)
