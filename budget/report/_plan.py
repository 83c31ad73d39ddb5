"""Layouts of so many devices, the best first, as an Answer."""

from __future__ import annotations

from collections.abc import Sequence

from ..named import Any
from ..search.best import Found, Tried
from ._answer import Answer, Column, Table
from ._bars import side_by_side
from ._comparison import devices
from ._summary import degrees, workload
from ._units import memory, seconds

SCHEMA = "budget.plan/1"
ROWS = 10  # of a table, and of a picture


def answer(layouts: Found) -> Answer:
    """The layouts as an answer."""
    one = layouts.best.estimate
    foot = "memory is of the device that holds most; budget estimate --layout shows one in full"
    if one is None or not one.fits:
        foot = f"none fits: the first one comes nearest and lacks {memory(layouts.best.lacks)} a device"
    return Answer(
        data=lambda: {
            "schema": SCHEMA,
            "evaluated": len(layouts.tried),
            "seconds": layouts.seconds,
            "layouts": [_record(t) for t in layouts.tried],
        },
        records=lambda: Table(COLUMNS, [_row(t) for t in layouts.tried]),
        text=lambda: f"{len(layouts.tried)} layout{'s' * (len(layouts.tried) != 1)}, the best first",
        tables=lambda: (Table(COLUMNS, [_row(t) for t in layouts.tried[:ROWS]]),),
        foot=foot,
        pictures=lambda: _pictures(layouts),
    )


def _pictures(layouts: Found) -> Sequence[str]:
    """The best layouts as bars: memory of one device, time of a sample, as steps differ in size."""
    shown = [(e, _label(t)) for t in layouts.tried[:ROWS] if (e := t.estimate) is not None]
    if not shown:
        return ()
    one = shown[0][0]
    heading = f"{one.model.name}, {devices(one)}: the best of {len(layouts.tried)} layouts, {workload(one)}"
    return (side_by_side([e for e, _ in shown], heading, [name for _, name in shown], each=True),)


def _label(t: Tried) -> str:
    return f"{degrees(t.layout)}; micro-batch {t.batch}, recompute {t.recompute}"


def _record(t: Tried) -> dict[str, Any]:
    e = t.estimate
    return {
        "layout": vars(t.layout),
        "micro_batch": t.batch,
        "recompute": t.recompute,
        "step_s": e and e.times.step,
        "samples_per_s": t.rate,
        "mfu": e and e.throughput.mfu,
        "memory_bytes_peak": e and e.memory.peak,
        "fits": t.fits,
    }


def _row(t: Tried) -> tuple[Any, ...]:
    e = t.estimate
    assert e is not None  # what has no estimate is not among the layouts
    return (
        degrees(t.layout).replace(", ", ","),
        t.batch,
        t.recompute,
        e.times.step,
        e.throughput.mfu,
        e.memory.peak,
        "yes" if t.fits else "no",
    )


COLUMNS = (
    Column("layout", "layout", lambda layout: layout or "one device"),
    Column("micro_batch", "micro"),
    Column("recompute", "recompute"),
    Column("step_s", "step", seconds),
    Column("mfu", "MFU", lambda part: f"{part:.1%}"),
    Column("memory_bytes_peak", "memory", memory),
    Column("fits", "fits"),
)
