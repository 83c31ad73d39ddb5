"""What fits, as an Answer: the largest size, or the changes that make a model fit."""

from __future__ import annotations

from collections.abc import Iterator

from ..answer import Estimate
from ..fitting.largest import DEVICES, MOST, SHOWN, Fit
from ..fitting.proposals import SAME
from ..fitting.ways import Change
from ..named import Any
from ._answer import Answer, Column, Table
from ._summary import degrees
from ._units import memory

LARGEST = (
    Column("solve", "solve"),
    Column("largest", "largest", "{:,}".format),
    Column("peak_bytes", "peak", memory),
    Column("memory_bytes", "memory", memory),
)
CHANGES = (
    Column("process_bytes", "process", memory),
    Column("times", "x the time", "{:.2f}".format),
    Column("kind", "training"),
    Column("flags", "flags"),
)


def answer(fit: Fit) -> Answer:
    """Whether it fits, and up to eight changes that would make it fit; or the largest that does."""
    return Answer(
        data=fit.to_dict,
        records=lambda: _records(fit),
        text=lambda: "\n".join(_lines(fit)),
        estimates=(fit.estimate, *(c.estimate for c in _shown(fit))),
        labels=("as it is", *map(_flags, _shown(fit))),
    )


def _shown(fit: Fit) -> tuple[Change, ...]:
    return fit.advice.changes[:SHOWN]


def _records(fit: Fit) -> Table:
    e = fit.estimate
    if fit.largest:
        return Table(LARGEST, [(fit.solve, fit.largest, e.memory.peak, e.device.usable_bytes)])
    return Table(CHANGES, [(*_gain(c, e), c.kind, _flags(c)) for c in _shown(fit)])


def _used(e: Estimate) -> str:
    """The peak and the process beside the device's memory."""
    process = "" if e.process == e.memory.peak else f", process {memory(e.process)}"
    return f"peak {memory(e.memory.peak)}{process} of {memory(e.device.usable_bytes)}"


def describe(change: Change, now: Estimate) -> str:
    """One change in one line: the new process, the relative time for the same work, the flags, and the layout
    where it is another one.
    """
    process, slower = _gain(change, now)
    kind = "" if change.kind == SAME else f"  ({change.kind})"
    laid_out = _laid_out(change.estimate)
    on = f"  on {laid_out}" if laid_out != _laid_out(now) else ""
    return f"{memory(process):>10}  {slower:.2f} x the time  {_flags(change)}{kind}{on}"


def _flags(change: Change) -> str:
    return " ".join(f"--{k.replace('_', '-')} {v}" for k, v in change.settings.items())


def _gain(change: Change, now: Estimate) -> tuple[Any, Any]:
    """The process's bytes, and the time for the same work relative to the present one."""
    base, then = (e.times.step / e.model.samples for e in (now, change.estimate))
    return change.estimate.process, then / base


def _laid_out(e: Estimate) -> str:
    """How a network is laid out over several devices."""
    if e.spread is None:
        return ""
    trains = e.task.workload.mode == "train"
    again = f", recompute {e.task.recompute}" * trains
    return f"{degrees(e.spread.layout, trains=trains)}{again}"


def _devices(e: Estimate) -> str:
    """The device, of several how many and how the network is laid out over them."""
    return f"{e.devices:,} x {e.device.name} ({_laid_out(e)})" if e.spread else e.device.name


def _lines(fit: Fit) -> Iterator[str]:
    now, advice = fit.estimate, fit.advice
    name, device = now.model.name, _devices(now)
    if fit.largest:
        more = " and more" if fit.largest == MOST else ""
        size = "" if fit.solve == DEVICES else f" up to {fit.solve} {fit.largest:,}{more}"
        yield f"{name} fits {device}{size}: {_used(now)}"
        return
    verdict = "fits" if now.fits else "does not fit"
    any_size = f", whatever the {fit.solve}" if fit.solve not in ("", DEVICES) else ""
    yield f"{name} {verdict} {device}{any_size}: {_used(now)}"
    yield from (f"  {describe(c, now)}" for c in _shown(fit))
    if now.searched and advice.changes:
        yield "  on layouts near this one; an estimate with these flags searches for a faster one"
    how = {name: how for c in _shown(fit) for name, how in c.how.items()}
    yield from (f"  {name}: {set_}" for name, set_ in how.items())
    if now.fits:
        return
    if not advice.changes:
        devices = int(-(-now.process // now.device.usable_bytes))
        alone = f"on one device; the process is that of {devices:,} together"
        yield f"  no change is enough {alone if now.spread is None else 'on so many devices'}"
    more = "" if advice.complete else f"; not all: {advice.seconds:.1f} s were over"
    tries = "combination" if advice.evaluated == 1 else "combinations"
    if fit.solve == DEVICES:
        yield "  no layout of more devices that a small search tries holds it either"
    elif now.spread is None:
        yield f"  --solve {DEVICES} says how many hold it"
    yield f"tried {advice.evaluated} {tries} of {', '.join(advice.tried) or 'nothing'}{more}"
