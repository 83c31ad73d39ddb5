"""A trace of one step for chrome://tracing and ui.perfetto.dev, in the format of Chrome's trace events.

For a pipeline it has every rank with a stream of compute and one of communication. Communication ends with
its pass, so that the part beyond the compute is waiting time. For one device it has the kernels in the order
of the program, each for all layers together. Source: chrome-trace-events.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from ..answer import Estimate
from ..errors import InputError
from ..fold.step import Ran as Device
from ..fold.timeline import FORWARD, Ran
from ..named import Any
from ..size import is_number
from ._answer import Answer
from ._pipeline import has_pipeline, passes

STREAMS = ("compute", "communication", "once a step")
COMPUTE, COMMUNICATION, ONCE = range(3)
Event = dict[str, Any]


def render(answer: Answer) -> str:
    """The trace. Raises InputError for arrays, or several estimates, or none."""
    if len(answer.estimates) != 1 or not is_number(answer.estimates[0].times.step):
        raise InputError("format", "trace shows the step of one estimate; allowed: json, csv")
    e = answer.estimates[0]
    events = [*(_pipeline(e) if has_pipeline(e) else _device(e))]
    about = {"network": e.model.name, "device": e.device.name, "step_s": e.times.step}
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms", "otherData": about})


def _event(name: str, rank: int, stream: int, start: float, seconds: float, **args: Any) -> Event:
    """Something that takes time, in microseconds."""
    times = {"ts": start * 1e6, "dur": seconds * 1e6}
    return {"name": name, "ph": "X", "pid": rank, "tid": stream, **times, "args": args}


def _named(rank: int, name: str, streams: tuple[str, ...]) -> Iterator[Event]:
    yield {"name": "process_name", "ph": "M", "pid": rank, "args": {"name": name}}
    for i, stream in enumerate(streams):
        yield {"name": "thread_name", "ph": "M", "pid": rank, "tid": i, "args": {"name": stream}}


def _device(e: Estimate) -> Iterator[Event]:
    """The kernels of one device, and its communication in each phase."""
    yield from _named(0, e.device.name, STREAMS[: 2 if e.spread else 1])
    at = 0.0
    for phase in ("forward", "backward", "optimizer"):
        begin = at
        for k in (k for k in e.times.kernels if k.work.phase == phase and k.seconds):
            yield _event(k.work.op, 0, COMPUTE, at, k.seconds, phase=phase, runs=k.work.times, bound=k.bound)
            at += k.seconds
        by_axis = _communication(e.ran[0], phase) if e.ran else {}
        at += sum(exposed for _, exposed in by_axis.values())
        yield from _ending(by_axis, 0, begin, at)
    if e.times.overhead:
        yield _event("host", 0, COMPUTE, at, e.times.overhead)


def _communication(device: Device, phase: str, once: bool | None = None) -> dict[str, tuple[float, float]]:
    """Seconds of a step, and those of them that are waited for, by axis."""
    seconds: dict[str, tuple[float, float]] = {}
    for s in device.communications:
        if s.what.phase == phase and once in (None, s.what.once):
            whole, exposed = seconds.get(s.what.axis, (0.0, 0.0))
            seconds[s.what.axis] = whole + s.seconds, exposed + s.exposed
    return seconds


def _ending(
    by_axis: dict[str, tuple[float, float]],
    rank: int,
    begin: float,
    end: float,
    parts: float = 1.0,
    stream: int = COMMUNICATION,
) -> Iterator[Event]:
    """A part of the communication, one axis after the other, so that it ends with its pass."""
    whole = sum(seconds for seconds, _ in by_axis.values()) / parts
    at = max(begin, end - whole)
    squeeze = min(1.0, (end - begin) / whole) if whole else 1.0
    for axis, (seconds, exposed) in by_axis.items():
        taken = seconds / parts * squeeze
        args = {"s": seconds / parts, "waited_for_s": exposed / parts}
        yield _event(axis, rank, stream, at, taken, **args)
        at += taken


def _pipeline(e: Estimate) -> Iterator[Event]:
    """All ranks of a pipeline: their passes, the communication in each, and what comes once a step."""
    assert e.spread is not None  # has_pipeline says so
    micro, chunks = float(e.spread.micro), float(e.spread.layout.vpp)
    ran = passes(e)
    device = {stage: r for r in e.ran for stage in r.rank.stages}
    ends: dict[int, float] = {}
    for rank in device:
        yield from _named(rank, f"rank {rank}", STREAMS)
    for r in ran:
        phase = "forward" if r.run.what == FORWARD else "backward"
        by_axis = (
            _communication(device[r.rank], phase, once=False) if r.run.what != "backward of weights" else {}
        )
        parts = micro * chunks
        waits = sum(exposed for _, exposed in by_axis.values()) / parts
        yield from _pass(r, waits)
        yield from _ending(by_axis, r.rank, r.start, r.end, parts)
        ends[r.rank] = max(ends.get(r.rank, 0.0), r.end)
    last = max(ends.values())
    for rank, d in device.items():
        at = last
        for phase in ("forward", "backward"):
            by_axis = _communication(d, phase, once=True)
            whole, at = sum(s for s, _ in by_axis.values()), at + sum(x for _, x in by_axis.values())
            yield from _ending(by_axis, rank, max(0.0, at - whole), at, stream=ONCE)
        steps = float(d.times.optimizer)
        if steps:
            yield _event("optimizer", rank, COMPUTE, at, steps)
        by_axis = _communication(d, "optimizer")
        exposed = sum(x for _, x in by_axis.values())
        at += steps + exposed
        yield from _ending(by_axis, rank, at - exposed, at, stream=ONCE)
        if e.times.overhead:
            yield _event("host", rank, COMPUTE, at, float(e.times.overhead))


def _pass(r: Ran, waits: float) -> Iterator[Event]:
    """The compute of one pass, without the time that it waits."""
    name = f"{r.run.what} {r.run.micro}"
    yield _event(
        name,
        r.rank,
        COMPUTE,
        r.start,
        max(r.end - r.start - waits, 0.0),
        micro_batch=r.run.micro,
        stage=r.run.stage,
    )
