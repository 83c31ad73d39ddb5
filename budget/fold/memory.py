"""Memory: a walk over the program in which every tensor lives from its writer to its last reader.

Nothing here knows what training is: a tensor that a backward operator reads is alive until then, so that
"saved activations" follow by themselves (fold/_lifetimes.py). The peak is the largest running sum of what
operators allocate and free; it lies in the first or the last repetition of a block. Derived.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from ..errors import InputError
from ..ir import CACHE, HOST, NOTHING, Block, Model, states, walk, weights
from ..named import NamedTuple
from ..size import Size, is_number, largest, maximum, shared
from ._bytes import COPIES, KINDS, tensor_bytes
from ._lifetimes import Lifetimes

__all__ = ["KINDS", "Memory", "Moment", "Walked", "memory", "tensor_bytes"]


class Moment(NamedTuple):
    """Memory while one operator runs: bytes alive, by kind."""

    op: str
    phase: str
    live: dict[str, Size]
    total: Size


class _Memory(NamedTuple):
    parameters: Size
    gradients: Size
    optimizer: Size
    activations: Size  # kept for the backward pass when the forward pass ends
    temporaries: Size  # what the peak holds besides the others
    kv_cache: Size
    host: Size  # offloaded to the host's memory
    peak: Size
    at: str  # the operator that runs at the peak ("" for arrays)
    at_peak: Mapping[str, Size]


class Memory(_Memory):
    """Bytes on one device: by kind in total, at the peak, and over time."""

    lifetimes: Lifetimes  # that it was found by: one program's
    there: Mapping[str, Size]  # before anything runs
    waiting: Size  # activations of other micro-batches, while the passes run

    @cached_property
    def curve(self) -> tuple[Moment, ...]:
        """Every operator that the walk meets, in the order in which they run. Raises InputError."""
        if not hasattr(self, "lifetimes"):  # parts of several programs
            raise InputError("by", "got moment, and another stage holds most for each size; allowed: rank")
        moments = []
        for o, live, extra, total in self.lifetimes.replay(self.there):
            more = 0 if o.phase == "optimizer" else self.waiting
            kinds = _with(live, extra)
            kinds["activations"] = kinds["activations"] + more
            moments.append(Moment(o.name, o.phase, kinds, total + more))
        return tuple(moments)


class Walk(NamedTuple):
    """What a walk over a program found, without micro-batches that wait."""

    there: Mapping[str, Size]  # bytes before anything runs, by kind
    lifetimes: Lifetimes
    passes: Peak
    stepping: Peak
    host: Size


class _Walked(NamedTuple):
    program: Model
    dtype: str
    resident: bool = False
    buckets: bool = False


class Walked(_Walked):
    """The memory of a program, computed when it is first read. Counts of blocks may not be arrays.

    resident: the cache is there before anything runs, and its last entry is written in place (decode).
    buckets: memory for all gradients is allocated before anything runs, and stays.
    """

    @cached_property
    def memory(self) -> Memory:
        """Bytes on one device."""
        return self.held()

    def held(self, in_flight: Size = 1, beside: Size = 0) -> Memory:
        """Bytes on a device of a pipeline.

        in_flight: the micro-batches whose activations it keeps at once, the running one and those that wait
        for their backward passes. beside: further bytes during the passes.
        """
        walk = self.walk
        lifetimes = walk.lifetimes
        waiting = (in_flight - 1) * (lifetimes.kept - lifetimes.copies) + beside
        peak, at, at_peak = _highest(walk.passes.with_more("activations", waiting), walk.stepping)
        held = Memory(
            **{k: lifetimes.ended[k] for k in ("parameters", "gradients", "optimizer", "kv_cache")},
            activations=lifetimes.kept + waiting,
            temporaries=at_peak.get("temporaries", 0),
            host=walk.host,
            peak=peak,
            at=at,
            at_peak=at_peak,
        )
        held.lifetimes, held.there, held.waiting = lifetimes, walk.there, waiting
        return held

    @cached_property
    def walk(self) -> Walk:
        """The walk itself."""
        model, dtype = self.program, self.dtype
        own = ((t, o, n) for t, o, n in weights(model.nodes) if not t.on_chip)  # in no other's memory
        there: dict[str, Size] = {
            "parameters": sum(tensor_bytes(t, o.sizes, dtype) * n for t, o, n in own),
            "optimizer": sum(tensor_bytes(t, o.sizes, dtype) * n for t, o, n in states(model.nodes)),
        }
        if self.resident:
            there["kv_cache"] = sum(
                tensor_bytes(t, o.sizes, dtype) * times
                for o, times in walk(model.nodes)
                for t in o.outs
                if t.role == CACHE
            )
        lifetimes = Lifetimes(model.nodes, dtype, model.outputs, resident=self.resident)
        peaks = dict.fromkeys((False, True), Peak(sum(there.values()), "", {}))
        for o, live, extra, total in lifetimes.replay(there):
            known = peaks[o.phase == "optimizer"]
            if type(total) is not int and not is_number(total):
                peaks[o.phase == "optimizer"] = Peak(maximum(known.total, total), "", {})
            elif not known.live or total > known.total:
                peaks[o.phase == "optimizer"] = Peak(total, o.name, _with(live, extra))
        if self.buckets:
            there["gradients"] = lifetimes.ended["gradients"]
            peaks = {k: p.with_more("gradients", there["gradients"]) for k, p in peaks.items()}
        return Walk(there, lifetimes, peaks[False], peaks[True], _on_host(model, dtype))

    def __reduce__(self) -> tuple[object, ...]:
        """Without the answer: pickled, it is many times as large as the program."""
        return Walked, tuple(self)


def memory(model: Model, dtype: str, *, resident: bool = False, in_flight: Size = 1) -> Memory:
    """The memory of a model's program, whichever phases it has, as `Walked` finds it."""
    return Walked(model, dtype, resident).held(in_flight)


def beside(own: Memory, other: Memory) -> Memory:
    """The memory of a device that also holds another program's weights, states and waiting activations."""
    kinds = ("parameters", "gradients", "optimizer", "activations")
    more = {kind: getattr(other, kind) for kind in kinds}
    at_peak = {kind: size + more.get(kind, 0) for kind, size in own.at_peak.items()}
    sums = {kind: getattr(own, kind) + size for kind, size in more.items()}
    both = own._replace(**sums, peak=own.peak + sum(more.values()), at_peak=at_peak)
    both.lifetimes, both.there, both.waiting = own.lifetimes, own.there, own.waiting + sum(more.values())
    return both


def most(memories: Sequence[Memory]) -> Memory:
    """The memory with the highest peak; for arrays of sizes that of each element, without a curve."""
    high = largest(memories, [m.peak for m in memories])
    if len(high) == 1:
        return high[0][0]  # type: ignore[no-any-return] # one of those given
    kinds = [kind for kind in Memory._fields if kind not in ("at", "at_peak")]
    return Memory(
        **{k: shared((getattr(m, k), share) for m, share in high) for k in kinds}, at="", at_peak={}
    )


class Peak(NamedTuple):
    """The most bytes alive, at which operator, and by kind ("" and nothing for arrays)."""

    total: Size
    at: str
    live: dict[str, Size]

    def with_more(self, kind: str, more: Size) -> Peak:
        """The same with more bytes of a kind, such as activations of micro-batches that wait."""
        live = {**self.live, kind: self.live[kind] + more} if self.live else self.live
        return Peak(self.total + more, self.at, live)


def _highest(passes: Peak, stepping: Peak) -> Peak:
    """The higher of the peak of the passes and that of the optimizer's step."""
    if not (is_number(passes.total) and is_number(stepping.total)):
        return Peak(maximum(passes.total, stepping.total), "", {})
    return stepping if stepping.live and (not passes.live or stepping.total > passes.total) else passes


def _with(live: dict[str, Size], extra: Size) -> dict[str, Size]:
    """What is alive, and an operator's own temporaries."""
    kinds = {**live, "temporaries": live["temporaries"] + extra}
    kinds["activations"] = kinds["activations"] + kinds.pop(COPIES)
    return kinds


def _on_host(model: Model, dtype: str) -> Size:
    """Offloaded bytes: each tensor once for each layer that makes it. A micro-batch's are freed before the
    next one.
    """
    nodes = [n._replace(count=1) if isinstance(n, Block) and n.keeps == NOTHING else n for n in model.nodes]
    seen: set[str] = set()
    total: Size = 0
    for o, times in walk(nodes):
        for t in o.ins + o.outs:
            if t.role == HOST and t.name not in seen:
                seen.add(t.name)
                total = total + tensor_bytes(t, o.sizes, dtype) * times
    return total
