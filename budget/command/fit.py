"""`budget fit`: the largest size that fits a device, or changes that would make a model fit."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator

from ..answer import Estimate
from ..comparison import cases
from ..errors import InputError
from ..estimate import estimate
from ..fit import MOST, SOLVE, Advice, Change, advise, largest
from ..named import Any
from ..report._answer import Answer, Column, Table
from ..report._units import memory
from ..ways import SAME
from ._model import output_flags, requested, source_flags, workload_flags, write
from ._parser import Parser

HELP = "the largest batch, length or depth that fits, or what would help"
EXAMPLES = """examples:
  budget fit llama-3-8b --device h100 --solve batch --seq 4096 --recompute full
  budget fit gpt2-xl --device a100-80gb --solve seq --batch 4
  budget fit llama-3-8b --device h100      does it fit, or what would help?
  budget fit --module path/file.py:factory --device h100 --solve batch

Exit status: 0 it fits, 1 it does not.
"""
SCHEMA = "budget.fit/1"
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
SHOWN = 8


def flags(parser: Parser) -> None:
    """Add the command's flags."""
    source_flags(parser)
    workload_flags(parser)
    parser.add_argument("--solve", metavar="S", help=f"{', '.join(SOLVE)}: how large may it be")
    output_flags(parser)


def run(args: Namespace, rest: list[str]) -> int:
    """Print the answer; exit status 1 if the model does not fit."""
    model, settings = requested(args, rest)
    if len(cases(settings)) > 1:
        raise InputError("fit", "got lists; allowed: one case at a time")
    answer, fits = _largest(model, args.solve, settings) if args.solve else _advice(model, settings)
    write(answer, args)
    return 0 if fits else 1


def _largest(model: object, solve: str, settings: dict[str, Any]) -> tuple[Answer, bool]:
    """The largest size that fits; if not even the smallest does, changes that would help."""
    best, found = largest(model, solve, **settings)
    if found is None:
        return _advice(model, settings)
    peak, size = found.memory.peak, found.device.usable_bytes
    text = (
        f"{found.model.name} fits {found.device.name} up to {solve} {best:,}"
        f"{' and more' if best == MOST else ''}: {_used(found)}"
    )
    answer = Answer(
        data=lambda: {"schema": SCHEMA, "solve": solve, "largest": best, "estimate": found.to_dict()},
        records=lambda: Table(LARGEST, [(solve, best, peak, size)]),
        text=lambda: text,
        estimates=(found,),
    )
    return answer, True


def _used(e: Estimate) -> str:
    """The peak and the process beside the device's memory."""
    process = "" if e.process == e.memory.peak else f", process {memory(e.process)}"
    return f"peak {memory(e.memory.peak)}{process} of {memory(e.device.usable_bytes)}"


def describe(change: Change, now: Estimate) -> str:
    """One change in one line: the new process, the relative time for the same work, the flags."""
    process, slower = _gain(change, now)
    kind = "" if change.kind == SAME else f"  ({change.kind})"
    return f"{memory(process):>10}  {slower:.2f} x the time  {_flags(change)}{kind}"


def _flags(change: Change) -> str:
    return " ".join(f"--{k.replace('_', '-')} {v}" for k, v in change.settings.items())


def _gain(change: Change, now: Estimate) -> tuple[Any, Any]:
    """The process's bytes, and the time for the same work relative to the present one."""
    base, then = (e.times.step / e.model.samples for e in (now, change.estimate))
    return change.estimate.process, then / base


def _advice(model: object, settings: dict[str, Any]) -> tuple[Answer, bool]:
    """Whether a model fits, and up to eight changes that would make it fit."""
    now = estimate(model, **settings)
    fits = bool(now.fits)
    advice = Advice((), (), 0, 0.0, True) if fits else advise(model, **settings)
    found = advice.changes[:SHOWN]
    rows = [(*_gain(c, now), c.kind, _flags(c)) for c in found]
    answer = Answer(
        data=lambda: {
            "schema": SCHEMA,
            "fits": fits,
            "estimate": now.to_dict(),
            "changes": [
                {"settings": c.settings, "kind": c.kind, "estimate": c.estimate.to_dict()} for c in found
            ],
            "tried": list(advice.tried),
            "evaluated": advice.evaluated,
            "complete": advice.complete,
        },
        records=lambda: Table(CHANGES, rows),
        text=lambda: "\n".join(_lines(now, advice)),
        estimates=(now,),
    )
    return answer, fits


def _lines(now: Estimate, advice: Advice) -> Iterator[str]:
    verdict = "fits" if now.fits else "does not fit"
    yield f"{now.model.name} {verdict} {now.device.name}: {_used(now)}"
    yield from (f"  {describe(c, now)}" for c in advice.changes[:SHOWN])
    if now.fits:
        return
    if not advice.changes:
        devices = int(-(-now.process // now.device.usable_bytes))
        yield f"  no change is enough on one device; the process is that of {devices:,} together"
    more = "" if advice.complete else f"; not all: {advice.seconds:.1f} s were over"
    tries = "combination" if advice.evaluated == 1 else "combinations"
    yield f"tried {advice.evaluated} {tries} of {', '.join(advice.tried) or 'nothing'}{more}"
