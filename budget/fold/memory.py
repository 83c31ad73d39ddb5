"""Memory: a walk over the program in which every tensor lives from its writer to its last reader.

Nothing here knows what training is: a tensor that a backward operator reads is alive until
then, so "saved activations" fall out. Of a block that is repeated many times the first two and
the last repetition are walked; between them memory grows by the same amount each time, so the peak
is at one of the ends. Derived.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property, reduce
from itertools import islice

from ..dtype import BYTES
from ..ir import (
    CACHE,
    COPY,
    HOST,
    INPUT,
    NOTHING,
    SAVED,
    STATE,
    WEIGHT,
    Block,
    Model,
    Node,
    Op,
    Tensor,
    elements,
    states,
    walk,
    weights,
)
from ..named import Any, NamedTuple
from ..size import Size, ceil_div, is_number, maximum

# What a program holds, by kind; `host` is not on the device and not in the total.
KINDS = ("inputs", "parameters", "gradients", "optimizer", "activations", "temporaries", "kv_cache")


_KIND = {WEIGHT: "gradients", CACHE: "kv_cache"}


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

    walker: _Walker  # that found it

    @cached_property
    def curve(self) -> tuple[Moment, ...]:
        """Every operator that the walk meets, in the order in which they run."""
        return tuple(
            Moment(o.name, o.phase, _with(live, extra), total)
            for o, live, extra, total in self.walker.replay()
        )


class _Walked(NamedTuple):
    program: Model
    dtype: str


class Walked(_Walked):
    """The memory of a program, worked out by the first who asks."""

    @cached_property
    def memory(self) -> Memory:
        """Bytes on one device."""
        return memory(self.program, self.dtype)

    def __reduce__(self) -> tuple[object, ...]:
        """Without the answer: pickled, it is many times as large as the program."""
        return Walked, tuple(self)


def tensor_bytes(t: Tensor, sizes: Mapping[str, Size], dtype: str) -> Size:
    """Bytes of a tensor; an unnamed dtype is the model's own."""
    size = BYTES[t.dtype or dtype]
    n = elements(t, sizes)
    return n * size if isinstance(size, int) else ceil_div(n * int(size * 2**20), 2**20)


def memory(model: Model, dtype: str) -> Memory:
    """Peak memory of a model's program, in whatever phases it has. Counts may not be arrays."""
    walker = _Walker(dtype)
    own = ((t, o, n) for t, o, n in weights(model.nodes) if not t.on_chip)  # in no other's memory
    parameters = sum(tensor_bytes(t, o.sizes, dtype) * copies for t, o, copies in own)
    walker.live["parameters"] = parameters
    for t, o, copies in states(model.nodes):
        walker.live["optimizer"] = walker.live["optimizer"] + tensor_bytes(t, o.sizes, dtype) * copies
    scope: dict[str, Any] = {}
    walker.plan(model.nodes, (scope,), scope)
    walker.keep |= {scope[name] for name in model.outputs if name in scope}
    totals = [total for *_, total in walker.replay()]
    fixed = {k: walker.final[k] for k in ("parameters", "gradients", "optimizer", "kv_cache")}
    sums = {**fixed, "host": _on_host(model, dtype), "activations": walker.kept}
    if totals and is_number(sum(totals)):
        top = max(range(len(totals)), key=totals.__getitem__)
        o, live, extra, peak = next(islice(walker.replay(), top, None))
        at, at_peak = o.name, _with(live, extra)
    else:
        at, at_peak, peak = "", {}, reduce(maximum, totals, parameters)
    found = Memory(**sums, temporaries=at_peak.get("temporaries", 0), peak=peak, at=at, at_peak=at_peak)
    found.walker = walker
    return found


def _with(live: dict[str, Size], extra: Size) -> dict[str, Size]:
    """What is alive, and an operator's own temporaries."""
    return {**live, "temporaries": live["temporaries"] + extra}


def _on_host(model: Model, dtype: str) -> Size:
    """Bytes offloaded: each tensor once, for as many layers as make it. A micro-batch's are gone when the
    next one starts.
    """
    seen: set[str] = set()
    total: Size = 0
    nodes = (n._replace(count=1) if isinstance(n, Block) and n.keeps == NOTHING else n for n in model.nodes)
    for o, times in walk(nodes):
        for t in (*o.ins, *o.outs):
            if t.role == HOST and t.name not in seen:
                seen.add(t.name)
                total = total + tensor_bytes(t, o.sizes, dtype) * times
    return total


class _Facts(NamedTuple):
    """What is the same each time that an operator runs."""

    reads: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    writes: tuple[tuple[str, str, str, Size], ...]  # name, the input whose storage it is, kind, bytes
    extra: Size  # bytes of temporaries


class _Walker:
    """First every read and write is written down, then replayed with what is alive."""

    def __init__(self, dtype: str):
        self.dtype = dtype
        self.events: list[tuple[Op | None, list[int], Size]] = []
        self.bytes: list[Size] = []
        self.kind: list[str] = []
        self.last: dict[int, int] = {}  # storage -> the last event that reads it
        self.keep: set[int] = set()
        self.live: dict[str, Size] = dict.fromkeys(KINDS, 0)
        self.kept: Size = 0  # activations when the forward pass ends
        self.final: dict[str, Size] = {}
        self.homes: dict[tuple[int, str, int], dict[str, Any]] = {}  # of weights' gradients, by repetition
        self.known: dict[int, _Facts] = {}

    def new(self, size: Size, kind: str) -> int:
        self.bytes.append(size)
        self.kind.append(kind)
        return len(self.bytes) - 1

    def plan(self, nodes: Iterable[Node], scopes: tuple[dict[str, Any], ...], home: dict[str, Any]) -> None:
        """Write down the events of nodes; `home` is the scope to which weights belong."""
        for node in nodes:
            if isinstance(node, Block):
                self.block(node, scopes, home)
            else:
                self.op(node, scopes, home)

    def facts(self, o: Op) -> _Facts:
        writes = []
        for t in o.outs:
            if not (source := self.source(o, t)) and t.role in (STATE, HOST):
                continue
            kind = _KIND.get(t.role) or ("activations" if o.phase == "forward" else "temporaries")
            writes.append((t.name, source, kind, 0 if t.on_chip else tensor_bytes(t, o.sizes, self.dtype)))
        extra = sum((tensor_bytes(t, o.sizes, self.dtype) for t in o.temporaries), 0)
        reads = (*(t.name for t in o.ins), *o.holds)
        return _Facts(reads, tuple(t for t in o.ins if t.role == INPUT), tuple(writes), extra)

    def source(self, o: Op, t: Tensor) -> str:
        """The input whose storage an output shares, if any: a view, an update in place, a cast or an
        upcast to the dtype that is there already.
        """
        rule = o.rule
        if t.part in (SAVED, COPY):
            if t.part == SAVED or t.of != o.ins[0].name:
                return ""
        elif rule.view or rule.inplace:
            return o.ins[0].name
        elif rule.updates:
            return o.ins[-1].name
        elif not rule.casts:
            return ""
        return o.ins[0].name if (t.dtype or self.dtype) == (o.ins[0].dtype or self.dtype) else ""

    def op(self, o: Op, scopes: tuple[dict[str, Any], ...], home: dict[str, Any]) -> None:
        facts = self.known.get(id(o))
        if facts is None:
            facts = self.known[id(o)] = self.facts(o)
        here, event, last = scopes[0], len(self.events), self.last
        for t in facts.inputs:
            if _find(t.name, scopes) is None:
                storage = scopes[-1][t.name] = self.new(tensor_bytes(t, o.sizes, self.dtype), "inputs")
                self.live["inputs"] = self.live["inputs"] + self.bytes[storage]
                self.keep.add(storage)
        for name in facts.reads:
            if (read := _find(name, scopes)) is not None:
                last[read] = event
        writes: list[int] = []
        for name, source, kind, size in facts.writes:
            if source and (shared := _find(source, scopes)) is not None:
                here[name] = shared
                last[shared] = event
                continue
            # A gradient that is there already: the new one is added to it.
            added = kind == "gradients" and name in home
            storage = here[name] = self.new(size, "temporaries" if added else kind)
            if kind in ("gradients", "kv_cache") and not added:
                self.keep.add(storage)
                home[name] = storage
            writes.append(storage)
            last[storage] = event
        self.events.append((o, writes, facts.extra))

    def block(self, node: Block, scopes: tuple[dict[str, Any], ...], home: dict[str, Any]) -> None:
        n = node.count
        many = not isinstance(n, int) or n > 3
        frames: list[dict[str, Any]] = []
        mirrored = _find(f"#{node.mirrors}", scopes) or []
        carried = {c.enter: _find(c.init, scopes) for c in node.carry if c.enter}
        for i in range(3 if many else int(n)):
            if many and i == 2:
                self.events.append((None, [], n - 3))
            elif many and i == 1:
                self.events.append((None, [], -1))
            frame: dict[str, Any] = {k: v for k, v in carried.items() if v is not None}
            frames.append(frame)
            past = (mirrored[-1 - i],) if i < len(mirrored) else ()
            # A layer's gradients stay where they are when it runs again, for another micro-batch.
            own = home if node.shared else self.homes.setdefault((id(home), node.name, i), {})
            inner = (frame, *past, *scopes) if node.shared else (frame, *past, own, *scopes)
            self.plan(node.body, inner, own)
            left = {c: _find(c.leave, inner) for c in node.carry}
            carried = {c.enter: storage for c, storage in left.items() if c.enter}
        if frames:
            scopes[0].update((c.leave, storage) for c, storage in left.items() if storage is not None)
        if not node.mirrors:
            scopes[0][f"#{node.name}"] = frames

    @cached_property
    def gone(self) -> dict[int, list[int]]:
        """The storages that nothing reads after an event."""
        gone: dict[int, list[int]] = {}
        for storage, event in self.last.items():
            if storage not in self.keep and self.kind[storage] != "inputs":
                gone.setdefault(event, []).append(storage)
        return gone

    def replay(self) -> Iterator[tuple[Op, dict[str, Size], Size, Size]]:
        """Each operator with the bytes alive while it runs, by kind, those of its temporaries, and all of
        them. The bytes by kind are one dictionary that goes on changing.
        """
        live, kind, size = dict(self.live), self.kind, self.bytes
        total = sum(live.values())
        mark: list[dict[str, Size]] = []
        for event, (o, writes, extra) in enumerate(self.events):
            if o is None:  # the second repetition starts, or those that are not walked are skipped
                if is_number(extra) and extra == -1:
                    mark.append(dict(live))
                else:
                    before = mark.pop()
                    for k in KINDS:
                        live[k] = live[k] + (live[k] - before[k]) * extra
                    total = sum(live.values())
                continue
            for storage in writes:
                live[kind[storage]] = live[kind[storage]] + size[storage]
                total = total + size[storage]
            yield o, live, extra, total + extra
            for storage in self.gone.get(event, ()):
                live[kind[storage]] = live[kind[storage]] - size[storage]
                total = total - size[storage]
            if o.phase == "forward":
                self.kept = live["activations"]
        self.final = live


def _find(name: str, scopes: tuple[dict[str, Any], ...]) -> Any:
    for scope in scopes:
        if name in scope:
            return scope[name]
    return None
