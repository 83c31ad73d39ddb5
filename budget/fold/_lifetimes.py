"""Lifetimes: a program as changes of the bytes alive, from each tensor's writer to its last reader.

In a block with many repetitions only the first two and the last are walked. In between memory grows by the
same amount each time, which is what the second repetition adds. Gradients to which products add
(plan/gradient_fusion.py) lie in buffers that exist before anything runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ..ir import ADDS, HEAD, LOSS, Node, Op
from ..named import Any
from ..size import Size, maximum
from ._bytes import COPIES, KINDS, Repeat, Step, steps

STAYS = ("gradients", "kv_cache")  # once it is there

Scope = dict[Any, Any]  # tensors by name -> their storages; repetitions of a block, homes of its gradients

# An operator runs: the storages that it makes, those that nothing reads after it, bytes of its temporaries,
# None. Without an operator a block's second repetition starts, or so many repetitions are skipped (the last
# element). A plain tuple, as there are hundreds of them.
Event = tuple[Op | None, list[int], list[int], Size, Size]


class Lifetimes:
    """Every storage of a program with the events between which it is alive."""

    def __init__(
        self,
        nodes: Iterable[Node],
        dtype: str,
        outputs: Iterable[str] = (),
        *,
        resident: bool = False,
        whole: bool = False,
    ):
        self.resident = resident  # caches are there before anything runs
        self.whole = whole  # all repetitions are walked
        self.events: list[Event] = []
        self.storages: list[tuple[str, Size]] = []  # kind and bytes of each
        self.last: dict[int, int] = {}  # storage -> the last event that reads it
        self.arrived: dict[int, int] = {}  # event -> the gradient that it frees before its most
        self.inputs: Size = 0
        self.buffers: Size = 0  # of gradients to which products add
        self.times: Size = 1  # repetitions that those walked now stand for
        self.kept: Size = 0  # activations when the forward pass ends
        self.copies: Size = 0  # those of them that all micro-batches in flight share
        self.ended: dict[str, Size] = {}  # what is alive when the program ends
        here: Scope = {}
        self.keep: set[int] = set()
        self.walk(steps(nodes, dtype), (here,), here)
        self.keep |= {here[name] for name in outputs if name in here}
        for event, storage in self.arrived.items():
            if self.last[storage] == event:  # nothing else reads it: it is freed before
                o, made, gone, extra, skipped = self.events[event]
                extra = maximum(0, extra - self.storages[storage][1])
                self.events[event] = o, made, gone, extra, skipped
        events, keep = self.events, self.keep
        for storage, event in self.last.items():
            if storage not in keep:
                events[event][2].append(storage)

    def walk(self, nodes: Iterable[Step | Repeat], scopes: tuple[Scope, ...], home: Scope) -> None:
        """Write down the events of steps. `scopes`: what is known here, then in the blocks around it; `home`:
        where gradients of weights stay.
        """
        here, events, last = scopes[0], self.events, self.last
        for step in nodes:
            if isinstance(step, Repeat):
                self.repeat(step, scopes, home)
                continue
            now = len(events)
            for name, size in step.inputs:
                if name not in here:
                    self.put(name, size, scopes)
            for name in step.reads:
                if name in here:
                    last[here[name]] = now
            if step.let_go in here:  # a network's last operator has it from outside
                self.arrived[now] = here[step.let_go]
            made: list[int] = []
            for name, source, kind, size in step.writes:
                if source in here:
                    here[name] = storage = here[source]
                else:
                    storage = self.write(step, name, kind, size, here, home)
                    made.append(storage)
                last[storage] = now
            events.append((step.op, made, [], step.extra, None))

    def write(self, step: Step, name: str, kind: str, size: Size, here: Scope, home: Scope) -> int:
        """The storage of a tensor that a step makes."""
        storage, adds = len(self.storages), step.op.tag == ADDS
        if kind not in STAYS:
            self.storages.append((kind, size))
        elif kind == "gradients" and name in home:  # there already: the new one is added to it
            self.storages.append(("temporaries", 0 if adds else size))
            if name in step.reads and here.get(name) == home[name]:  # in whose place the sum is
                return storage
        else:
            there = adds or (self.resident and kind == "kv_cache")
            self.buffers = self.buffers + size * self.times if adds else self.buffers
            self.storages.append((kind, 0 if there else size))
            home[name] = storage
            self.keep.add(storage)
        here[name] = storage
        return storage

    def put(self, name: str, size: Size, scopes: Iterable[Scope]) -> None:
        """Write down an input of the network: it is there from the start to the end, in all blocks."""
        self.keep.add(len(self.storages))
        for scope in scopes:
            scope[name] = len(self.storages)
        self.storages.append(("inputs", size))
        self.inputs = self.inputs + size

    def repeat(self, step: Repeat, scopes: tuple[Scope, ...], home: Scope) -> None:
        node, n, around = step.block, step.block.count, scopes[0]
        many = not isinstance(n, int) or (n > 3 and not self.whole)
        frames: list[Scope] = []
        mirrored = around.get((node.mirrors,), ())
        carried = {c.enter: around.get(c.init) for c in node.carry if c.enter}
        left: dict[str, Any] = {}
        times = self.times
        for i in range(3 if many else int(n)):
            self.times = times * (n - 2) if many and i == 1 else times
            if many and i > 0:
                self.events.append((None, [], [], 0, n - 3 if i == 2 else None))
            # A layer's gradients keep their storage when it runs for another micro-batch.
            own = home if node.shared else home.setdefault((node.name, i), {})
            here: Scope = {**own, **around} if node.shared else {**around, **own}
            here |= mirrored[-1 - i] if i < len(mirrored) else {}
            here |= {name: storage for name, storage in carried.items() if storage is not None}
            frames.append(here)
            self.walk(step.steps, (here, *scopes), own)
            left = {c.leave: here.get(c.leave) for c in node.carry}
            carried = {c.enter: left[c.leave] for c in node.carry if c.enter}
        self.times = times
        around.update((name, storage) for name, storage in left.items() if storage is not None)
        if node.shared:
            around |= {name: storage for name, storage in home.items() if name not in around}
        around[node.name,] = frames

    def replay(self, there: Mapping[str, Size]) -> Iterator[tuple[Op, dict[str, Size], Size, Size]]:
        """Each operator with the bytes alive while it runs, by kind, those of its temporaries, and all of
        them; `there` before anything runs. The bytes by kind are one dictionary that goes on changing.
        """
        live = {**dict.fromkeys((*KINDS, COPIES), 0), **there}
        live |= {"inputs": self.inputs, "gradients": live["gradients"] + self.buffers}
        storages, total = self.storages, sum(live.values())
        before: list[dict[str, Size]] = []  # as the second repetitions of the blocks around started
        for o, made, gone, extra, skipped in self.events:
            if o is None:
                if skipped is None:
                    before.append(dict(live))
                else:
                    start = before.pop()
                    for k in start:
                        live[k] = live[k] + (live[k] - start[k]) * skipped
                    total = sum(live.values())
                continue
            for storage in made:
                kind, size = storages[storage]
                live[kind] = live[kind] + size
                total = total + size
            yield o, live, extra, total + extra
            for storage in gone:
                kind, size = storages[storage]
                live[kind] = live[kind] - size
                total = total - size
            if o.phase == "forward":
                self.copies = live[COPIES]
                self.kept = live["activations"] + self.copies
        self.ended = live

    @property
    def of_loss(self) -> Size:
        """Bytes that head and loss made and that are still kept when a micro-batch's forward pass ends."""
        left: dict[str, Size] = {}
        for o, made, *_ in self.events:
            if o is not None and o.phase == "forward" and o.tag in (HEAD, LOSS):
                kept = (self.storages[s] for s in made if self._goes_back(s))
                left[o.name] = sum(size for kind, size in kept if kind == "activations")
        return sum(left.values())

    def _goes_back(self, storage: int) -> bool:
        last = self.events[self.last[storage]][0]
        return storage in self.keep or (last is not None and last.phase != "forward")
