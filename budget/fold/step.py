"""A step over many devices: bytes and seconds of each stage's device, from its program.

Memory is that of the device that holds most. A collective is waited for, except for the part of its time that
the software stack hides behind kernels, as far as these take as long: a layer's collectives behind the
kernels of their pass, those once a step behind one micro-batch's pass. The slowest stage sets the time of the
step; the bubble is what it waits for the other stages (fold/pipeline.py). Derived.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, reduce

from ..cluster import Cluster
from ..device import Device
from ..device.kernel_class import Profile
from ..ir import NOTHING, Block, Model, contraction_flops, walk
from ..layout import Layout
from ..named import Any, NamedTuple
from ..size import Size, ceil_div, exact_div, largest, maximum, shared
from .collective import seconds
from .communication import Communication, communications
from .memory import Memory, Walked, beside, most
from .overlap import axis_of, exposed
from .pipeline import Pass, bubble, in_flight, schedule
from .time import Times, time

HELD = ("parameters", "gradients", "optimizer", "activations", "peak")
KERNELS = ("forward", "backward", "optimizer")
PARTS = (*KERNELS, "overhead", "step")


class Timed(NamedTuple):
    """A communication with its seconds in a step, and those of them that nothing hides."""

    what: Communication
    seconds: Size
    exposed: Size


class _Rank(NamedTuple):
    program: Model
    dtype: str
    stages: tuple[int, ...] = (0,)
    layers: int = 0
    buckets: bool = False  # gradients are copied into buckets to be added up


class Rank(_Rank):
    """The program of one device, the stages of a pipeline that run it, and the layers of each."""

    @cached_property
    def walked(self) -> Walked:
        """The memory of its program, without other micro-batches that wait."""
        return Walked(self.program, self.dtype, buckets=self.buckets)

    @property
    def in_buckets(self) -> Size:
        """Bytes of the buckets."""
        return self.walked.walk.there.get("gradients", 0)


class Ran(NamedTuple):
    """One device of some stages: its kernels' times over all micro-batches, and its communications."""

    rank: Rank
    times: Times
    communications: tuple[Timed, ...]
    weights: Size  # the part of its backward products that makes weights' gradients

    @property
    def waits(self) -> Size:
        """Seconds that it waits for collectives."""
        return sum(c.exposed for c in self.communications)

    def passes(self, micro: Size) -> Pass:
        """Seconds of one micro-batch, with what is waited for in each."""
        waits = {"forward": 0.0, "backward": 0.0, "optimizer": 0.0}
        for c in self.communications:
            if not c.what.once:
                waits[c.what.phase] = waits[c.what.phase] + c.exposed
        forward, backward = self.times.forward + waits["forward"], self.times.backward + waits["backward"]
        return Pass(forward / micro, backward / micro, self.times.backward * self.weights / micro)


class Spread(NamedTuple):
    """The programs of a layout's devices, one for each different stage, over `micro` micro-batches."""

    ranks: tuple[Rank, ...]
    layout: Layout
    micro: Size
    dtype: str
    keeps: tuple[str, ...] = ()  # see KEEPS in stack/_parse.py

    def memories(self) -> dict[int, Memory]:
        """The memory of one device, by stage."""
        memories = {stage: self.held(rank, stage) for rank in self.ranks for stage in rank.stages}
        return dict(sorted(memories.items()))

    def held(self, rank: Rank, stage: int) -> Memory:
        """The memory of one device of a stage; with DualPipe it has the opposite stage, too."""
        one_way = self.alone(rank, stage)
        if schedule(self.layout) != "dualpipe" or self.layout.pp == 1:
            return one_way
        other = self.layout.pp - 1 - stage
        far = self.alone(next(r for r in self.ranks if other in r.stages), other)
        return beside(one_way, far)

    def alone(self, rank: Rank, stage: int) -> Memory:
        """The memory of one device for one stage alone."""
        at_once = in_flight(self.layout, stage, self.micro)
        more = self.unscattered(rank) + self.kept(rank, at_once)
        if schedule(self.layout) == "interleaved" and stage == self.layout.pp - 1:
            # Its last chunk runs backward at once: head and loss of no other micro-batch wait. Source:
            # megatron-lm-2021.
            more = more - (at_once - 1) * rank.walked.walk.lifetimes.of_loss
        return rank.walked.held(at_once, more)

    def kept(self, rank: Rank, at_once: Size) -> Size:
        """Bytes that the software keeps during the passes although the network does not need them."""
        kept: Size = 0
        if "sent" in self.keeps:
            sent = communications(rank.program.nodes, self.dtype)
            kept = sum(c.bytes * c.times for c in sent if c.kind == "send" and c.phase == "forward")
            kept = exact_div(kept * at_once, self.micro)
        if "gradients" in self.keeps:
            kept = kept + rank.walked.walk.there["parameters"]
        return kept

    def unscattered(self, rank: Rank) -> Size:
        """Bytes of gradients that wait while an interleaved stage runs several micro-batches in a row: those
        of all its layers but the one that the program has.
        """
        each = ceil_div(rank.layers, self.layout.vpp)
        if not self.in_rows or each == 1:
            return 0
        steps = (node for node in rank.program.nodes if isinstance(node, Block) and node.keeps == NOTHING)
        blocks = [node for step in steps for node in step.body if isinstance(node, Block)]
        sums = (c.bytes * c.times for c in communications(blocks, self.dtype) if _adds_up(c))
        return exact_div(sum(sums) * (each - 1), rank.layers)

    @property
    def in_rows(self) -> bool:
        """Whether a stage reduces divided gradients only after several micro-batches: an interleaved one runs
        `pp` of them in a row. Source: llama-3-parallelism.
        """
        return self.layout.zero == 2 and schedule(self.layout) == "interleaved"

    def most(self) -> Memory:
        """The memory of the device that holds most: of stages with one program, an early one keeps most."""
        return most([self.held(rank, stage) for rank in self.ranks for stage in self.early(rank)])

    def early(self, rank: Rank) -> tuple[int, ...]:
        """The stages of a rank that may hold most."""
        return rank.stages if schedule(self.layout) == "dualpipe" else rank.stages[:1]

    def run(
        self, device: Device, profile: Profile, cluster: Cluster, overlap: Mapping[str, float], execution: str
    ) -> tuple[Ran, ...]:
        """The seconds of each rank."""
        ran = []
        for rank in self.ranks:
            usual = time(rank.program, device, profile, self.dtype, execution)
            slow = self.layout.straggler  # every collective waits for the slowest
            times = usual._replace(**{part: getattr(usual, part) * slow for part in KERNELS})
            timed = self.communicate(rank, times, cluster, overlap)
            ran.append(Ran(rank, times, timed, _of_weights(rank.program)))
        return tuple(ran)

    def on(self, ran: Sequence[Ran], cluster: Cluster, overlap: Mapping[str, float]) -> tuple[Ran, ...]:
        """The same ranks on a cluster's links."""
        moved = (self.communicate(r.rank, r.times, cluster, overlap) for r in ran)
        return tuple(r._replace(communications=timed) for r, timed in zip(ran, moved, strict=True))

    def communicate(
        self, rank: Rank, times: Times, cluster: Cluster, overlap: Mapping[str, float]
    ) -> tuple[Timed, ...]:
        """The communications of a rank's device, timed. times: of the kernels that may hide them."""
        sent = list(communications(rank.program.nodes, self.dtype))
        groups = {axis: self.layout.group(axis).levels for axis in {c.axis for c in sent}}
        rows = self.layout.ep_kind == "tokens"
        took = [
            seconds(cluster, c.kind, c.bytes, groups[c.axis], copies=c.copies if rows else 1) * self.often(c)
            for c in sent
        ]
        waited = exposed(sent, took, self.layout, overlap, times, self.micro, cluster)
        return tuple(map(Timed, sent, took, waited))

    def often(self, c: Communication) -> Size:
        """How often a communication takes place in a step: each of a device's interleaved stages sends."""
        if self.in_rows and _adds_up(c) and not c.once:
            return exact_div(c.times, self.layout.pp)
        return c.times * self.layout.vpp if c.kind == "send" else c.times

    def slowest(self, ran: Sequence[Ran]) -> tuple[tuple[Ran, Size], ...]:
        """The slowest rank, with the number 1; for arrays of sizes, each rank that is slowest for some size,
        with 1 at these sizes and 0 at others.
        """
        return largest(ran, [r.passes(self.micro).both for r in ran])

    def times(self, ran: Sequence[Ran]) -> Times:
        """The seconds of a step."""
        passes = [r.passes(self.micro) for r in ran]
        every = [p for p, r in zip(passes, ran, strict=True) for _ in r.rank.stages]
        slow, idle = self.slowest(ran), bubble(self.layout, every)
        optimizer = reduce(maximum, (r.times.optimizer for r in ran))
        waits = shared((r.waits, share) for r, share in slow)
        t = _shared(slow)._replace(optimizer=optimizer, communication=waits, bubble=idle)
        total = t.forward + t.backward + t.optimizer + t.communication + t.bubble + t.overhead
        return t._replace(step=total)

    def rows(self, ran: Sequence[Ran]) -> list[dict[str, Any]]:
        """Each stage: its layers, micro-batches in flight, bytes, and seconds of a step."""
        by_stage = {stage: r for r in ran for stage in r.rank.stages}
        rows = []
        for stage, held in self.memories().items():
            r = by_stage[stage]
            rows.append(
                {
                    "name": f"stage {stage}",
                    "layers": r.rank.layers,
                    "in_flight": in_flight(self.layout, stage, self.micro),
                    **{f"{kind}_bytes": getattr(held, kind) for kind in HELD},
                    "forward_s": r.times.forward,
                    "backward_s": r.times.backward,
                    "communication_s": r.waits,
                }
            )
        return rows

    def communication_rows(self, ran: Sequence[Ran]) -> list[dict[str, Any]]:
        """The communications of the slowest stage in a step; 0 times for sizes where another stage is it."""
        rows = []
        for timed, share in ((c, share) for r, share in self.slowest(ran) for c in r.communications):
            c, times = timed.what, self.often(timed.what)
            row = {"axis": c.axis, "kind": c.kind, "phase": c.phase, "tensor": c.tensor, "bytes": c.bytes}
            took = {"seconds": timed.seconds / times, "exposed_s": timed.exposed * share}
            rows.append({**row, "times": times * share, **took, "op": c.op})
        return rows


def _shared(slow: Sequence[tuple[Ran, Size]]) -> Times:
    """The times of the slowest stage, for each size; kernels of other stages count nothing there."""
    if len(slow) == 1:
        return slow[0][0].times
    parts = {name: shared((getattr(r.times, name), share) for r, share in slow) for name in PARTS}
    kernels = (
        k._replace(
            work=k.work._replace(times=k.work.times * share),
            seconds=k.seconds * share,
            bound="",
            starting=k.starting * share,
        )
        for r, share in slow
        for k in r.times.kernels
    )
    return Times(**parts, kernels=tuple(kernels), alternate=slow[0][0].times.alternate)


def _adds_up(c: Communication) -> bool:
    """Whether a communication adds up the gradients of devices with different data."""
    return c.kind in ("reduce_scatter", "all_reduce") and axis_of(c) == "dp"


def _of_weights(program: Model) -> Size:
    """The fraction of a program's backward FLOPs that makes gradients of weights, which can be delayed.
    Tensors that are made of weights alone (by a cast, a gather) count as weights.
    """
    trained: set[str] = set()
    for o, _ in walk(program.nodes):
        if o.phase == "forward":
            trained.update(t.name for t in o.weights)
            if o.ins and all(t.name in trained for t in o.ins):
                trained.update(t.name for t in o.outs)
    both: Size = 0
    of_weights: Size = 0
    for o, times in walk(program.nodes):
        if o.phase == "backward":
            flops = contraction_flops(o) * times
            both = both + flops
            of_weights = of_weights + flops if o.outs and o.out.of in trained else of_weights
    return of_weights / maximum(both, 1)
