"""Lifetimes: a program as changes of the bytes alive, from each tensor's writer to its last reader.

Of a block that is repeated many times the first two and the last repetition are walked. Between them memory
grows by the same amount each time: by what the second repetition changes. Gradients to which products add
(plan/gradient_fusion.py) lie in buffers that are there before anything runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from ..dtype import BYTES
from ..ir import (
    ACTIVATION,
    ADDS,
    CACHE,
    COPY,
    FIRST,
    HOST,
    INPUT,
    ONCE,
    SAVED,
    STATE,
    TRANSPOSED,
    WEIGHT,
    WEIGHTS,
    Block,
    Node,
    Op,
    Rule,
    Tensor,
    elements,
)
from ..named import Any, NamedTuple
from ..size import Size, ceil_div, maximum

# What a program holds, by kind; `host` is not on the device and not in the total.
KINDS = ("inputs", "parameters", "gradients", "optimizer", "activations", "temporaries", "kv_cache")
STAYS = ("gradients", "kv_cache")  # once it is there
COPIES = "copies"  # of weights, activations that all micro-batches in flight share
_KIND = {WEIGHT: "gradients", CACHE: "kv_cache"}

Scope = dict[Any, Any]  # tensors by name -> their storages; repetitions of a block, homes of its gradients


def tensor_bytes(t: Tensor, sizes: Mapping[str, Size], dtype: str) -> Size:
    """Bytes of a tensor; an unnamed dtype is the model's own."""
    size = BYTES[t.dtype or dtype]
    n = elements(t, sizes)
    return n * size if isinstance(size, int) else ceil_div(n * int(size * 2**20), 2**20)


# An operator, and what is the same each time that it runs: the names that it reads, inputs with their bytes,
# what it writes (name, the input whose storage it is, kind, bytes), bytes of temporaries, and the gradient
# that it frees before it has the most alive, if any.
Step = tuple[Op, Sequence[str], Sequence[tuple[str, Size]], Sequence[tuple[str, str, str, Size]], Size, str]


class Repeat(NamedTuple):
    """A block with the steps of its body."""

    block: Block
    steps: tuple[Step | Repeat, ...]


def steps(nodes: Iterable[Node], dtype: str) -> tuple[Step | Repeat, ...]:
    """Nodes with what memory asks of them."""
    return tuple(
        [Repeat(n, steps(n.body, dtype)) if isinstance(n, Block) else _step(n, dtype) for n in nodes]
    )


def _step(o: Op, dtype: str) -> Step:
    rule, forward = o.rule, o.phase == "forward"
    usual = (COPIES if o.tag in (ONCE, FIRST) else "activations") if forward else "temporaries"
    writes = []
    for t in o.outs:
        shared = _shares(o, rule, t, dtype)
        if shared or t.role not in (STATE, HOST):
            # A view of a weight is where the weight is.
            there = t.on_chip or (rule.view and any(u.name == shared and u.role in WEIGHTS for u in o.ins))
            size = 0 if there else tensor_bytes(t, o.sizes, dtype)
            writes.append((t.name, shared, _KIND.get(t.role, usual), size))
    extra = sum((tensor_bytes(t, o.sizes, dtype) for t in o.temporaries), 0) if rule.temps else 0
    if rule.upcasts and (forward or o.again) and not o.out.on_chip:
        extra += _widened(o, dtype)
    if rule.most != (0, 0) and (forward or o.again):
        own, single = rule.most
        made = sum((size for _, shared, _, size in writes if not shared), 0)
        copies = 0 if (o.out.dtype or dtype) == "float32" else single
        extra += maximum(0, _most(o, (own, copies), dtype) - made)
    let_go = ""
    if rule.back_most != (0, 0) and o.phase == "backward" and not o.again and o.out.role != WEIGHT:
        extra, let_go = _beyond(o, dtype), o.ins[0].name
    reads, inputs = [], []
    for t in o.ins:
        if t.part or t.role not in WEIGHTS:  # these are there all the time; gradients and copies are not
            reads.append(t.name)
        if t.role == INPUT:
            inputs.append((t.name, tensor_bytes(t, o.sizes, dtype)))
    return o, (*reads, *o.holds, *o.callers), inputs, writes, extra, let_go


def _widened(o: Op, dtype: str) -> Size:
    """The copy of an operator's input in its output's dtype; of float16 a kernel makes none.

    Source: torch-softmax.
    """
    own, out = (t.dtype or dtype for t in (o.ins[0], o.out))
    return 0 if own in (out, "float16") else tensor_bytes(o.out, o.sizes, dtype)


def _beyond(o: Op, dtype: str) -> Size:
    """What a backward operator has alive at once beyond its results and what it reads but the gradient that
    arrived: Rule.back_most.
    """
    seen = (t for t in (*o.ins[1:], *o.outs) if t.role == ACTIVATION)
    most = _most(o, o.rule.back_most, dtype)
    return maximum(0, most - sum(tensor_bytes(t, o.sizes, dtype) for t in seen))


def _most(o: Op, tensors: tuple[float, float], dtype: str) -> Size:
    """Bytes of so many tensors of its output's size, in its own dtype and in float32."""
    own, single = tensors
    width = own * BYTES[o.out.dtype or dtype] + single * BYTES["float32"]
    return int(width) * elements(o.out, o.sizes)


def _shares(o: Op, rule: Rule, t: Tensor, dtype: str) -> str:
    """The input whose storage an output has, if any: a view, an update in place, a cast or a copy to the
    dtype that is there already.
    """
    if t.part in (SAVED, TRANSPOSED):
        return ""
    if t.part == COPY:
        casts = t.of == o.ins[0].name
    elif rule.updates:
        return o.ins[-1].name
    elif (rule.view and o.ins) or rule.inplace:
        return o.ins[0].name
    else:
        casts = rule.casts
    return o.ins[0].name if casts and (t.dtype or dtype) == (o.ins[0].dtype or dtype) else ""


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

    def walk(self, found: Iterable[Step | Repeat], scopes: tuple[Scope, ...], home: Scope) -> None:
        """Write down the events of steps. `scopes`: what is known here, then in the blocks around it; `home`:
        where gradients of weights stay.
        """
        here, events, last, storages = scopes[0], self.events, self.last, self.storages
        for step in found:
            if isinstance(step, Repeat):
                self.repeat(step, scopes, home)
                continue
            o, reads, inputs, writes, extra, let_go = step
            now = len(events)
            for name, size in inputs:
                if name not in here:
                    self.put(name, size, scopes)
            for name in reads:
                if name in here:
                    last[here[name]] = now
            if let_go in here:  # a network's last operator has it from outside
                self.arrived[now] = here[let_go]
            made: list[int] = []
            for name, source, kind, size in writes:
                if source in here:
                    here[name] = shared = here[source]
                    last[shared] = now
                    continue
                storage = len(storages)
                if kind not in STAYS:
                    storages.append((kind, size))
                elif kind == "gradients" and name in home:  # there already: the new one is added to it
                    storages.append(("temporaries", 0 if o.tag == ADDS else size))
                    if name in reads and here.get(name) == home[name]:  # in whose place the sum is
                        made.append(storage)
                        last[storage] = now
                        continue
                else:
                    adds = o.tag == ADDS
                    there = adds or (self.resident and kind == "kv_cache")
                    self.buffers = self.buffers + size * self.times if adds else self.buffers
                    storages.append((kind, 0 if there else size))
                    home[name] = storage
                    self.keep.add(storage)
                here[name] = storage
                made.append(storage)
                last[storage] = now
            events.append((o, made, [], extra, None))

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
        if not node.mirrors:
            around[node.name,] = frames

    def replay(self, there: Mapping[str, Size]) -> Iterator[tuple[Op, dict[str, Size], Size, Size]]:
        """Each operator with the bytes alive while it runs, by kind, those of its temporaries, and all of
        them; `there` before anything runs. The bytes by kind are one dictionary that goes on changing.
        """
        live = {**dict.fromkeys((*KINDS, COPIES), 0), **there}
        live |= {"inputs": self.inputs, "gradients": self.buffers}
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
