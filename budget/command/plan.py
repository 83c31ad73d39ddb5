"""`budget plan`: the layouts of so many devices, the best first."""

from __future__ import annotations

from argparse import Namespace

from ..device import several
from ..errors import InputError
from ..estimate import plan
from ..named import TYPE_CHECKING, Any
from ..report._answer import Answer, Column, Table
from ..report._summary import degrees
from ..report._units import memory, seconds
from ._model import output_flags, requested, source_flags, workload_flags, write
from ._parser import Parser

if TYPE_CHECKING:
    from ..search import Found, Tried

HELP = "layouts over many devices, the best first"
EXAMPLES = """examples:
  budget plan llama-3-70b --devices 64 --global-batch 128 --device h100
  budget plan mixtral-8x7b --devices 256 --global-batch 1024 --format json
  budget plan llama-3-8b --devices 8 --global-batch 64 --cluster aws-p4d \\
      --device a100-40gb
"""
SCHEMA = "budget.plan/1"
ROWS = 10  # of a table


def flags(parser: Parser) -> None:
    """Add the command's flags."""
    source_flags(parser)
    workload_flags(parser)
    output_flags(parser)


def run(args: Namespace, rest: list[str]) -> int:
    """Print the layouts."""
    model, settings = requested(args, rest)
    settings["device"], devices = several(settings["device"], settings.pop("devices"))
    if devices is None or settings.pop("layout") is not None:
        raise InputError("--devices", "missing; allowed: how many devices, and no --layout")
    write(answer(plan(model, devices, **settings)), args)
    return 0


def answer(found: Found) -> Answer:
    """The layouts as an answer."""
    one = found.best.estimate
    foot = "memory is of the device that holds most; budget estimate --layout shows one in full"
    if one is None or not one.fits:
        foot = f"none fits: the first one comes nearest and lacks {memory(found.best.lacks)} a device"
    return Answer(
        data=lambda: {
            "schema": SCHEMA,
            "evaluated": len(found.tried),
            "seconds": found.seconds,
            "layouts": [_record(t) for t in found.tried],
        },
        records=lambda: Table(COLUMNS, [_row(t) for t in found.tried]),
        text=lambda: f"{len(found.tried)} layouts, the best first",
        tables=lambda: (Table(COLUMNS, [_row(t) for t in found.tried[:ROWS]]),),
        foot=foot,
    )


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
    Column("layout", "layout"),
    Column("micro_batch", "micro"),
    Column("recompute", "recompute"),
    Column("step_s", "step", seconds),
    Column("mfu", "MFU", lambda part: f"{part:.1%}"),
    Column("memory_bytes_peak", "memory", memory),
    Column("fits", "fits"),
)
