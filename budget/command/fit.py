"""`budget fit`: the largest that fits, or what would make it fit."""

from __future__ import annotations

from argparse import Namespace

from ..errors import InputError
from ..estimate import Estimate, estimate
from ..fit import MOST, SOLVE, Change, changes, largest
from ..named import Any
from ..report._units import memory
from ._model import asked, source_flags, workload_flags, write
from ._parser import Parser

HELP = "the largest batch, length or depth that fits, or what would help"
EXAMPLES = """examples:
  budget fit llama-3-8b --device h100 --solve batch --seq 4096 --recompute full
  budget fit gpt2-xl --device a100-80gb --solve seq --batch 4
  budget fit llama-3-8b --device h100      does it fit, or what would help?
  budget fit --module path/file.py:factory --device h100 --solve batch

Exit status: 0 it fits, 1 it does not.
"""


def flags(parser: Parser) -> None:
    """Add the command's flags."""
    source_flags(parser)
    workload_flags(parser)
    parser.add_argument("--solve", metavar="S", help=f"{', '.join(SOLVE)}: how large may it be")
    parser.add_argument("--format", default="table", metavar="F", help="table or json (table)")
    parser.add_argument("--output", metavar="FILE", help="write there instead")


def run(args: Namespace, rest: list[str]) -> int:
    """Print the answer; status 1 if nothing fits."""
    if args.format not in ("table", "json"):
        raise InputError("--format", f"got {args.format!r}; allowed: table, json")
    model, settings = asked(args, rest)
    best, answer = (None, None) if args.solve is None else largest(model, args.solve, **settings)
    if answer is not None:
        peak, size = answer.memory.peak, answer.device.usable_bytes
        table = (
            f"{answer.model.name} fits {answer.device.name} up to {args.solve} {best:,}"
            f"{' and more' if best == MOST else ''}: "
            f"peak {memory(peak)} of {memory(size)}"
        )
        plain = {"solve": args.solve, "largest": best, "estimate": answer.to_dict()}
    else:
        table, plain = _advice(model, settings)
    if args.format == "json":
        from json import dumps

        table = dumps({"schema": "budget.fit/1", **plain}, indent=1)
    write(table, args.output)
    return 0 if answer is not None or plain["fits"] else 1


def describe(change: Change, now: Estimate) -> str:
    """A change that makes a model fit: its peak, its time for the same work, its flags."""
    base, then = (e.times.step / e.model.samples for e in (now, change.estimate))
    flags = " ".join(f"--{k} {v}" for k, v in change.settings.items())
    return f"{memory(change.estimate.memory.peak):>10}  {then / base:.2f} x the time  {flags}"


def _advice(model: object, settings: dict[str, Any]) -> tuple[str, dict[str, object]]:
    now = estimate(model, **settings)
    peak, size = memory(now.memory.peak), memory(now.device.usable_bytes)
    lines = [
        f"{now.model.name} {'fits' if now.fits else 'does not fit'} {now.device.name}: peak {peak} of {size}"
    ]
    found = [] if now.fits else changes(model, **settings)[:8]
    lines += [f"  {describe(c, now)}" for c in found]
    if not now.fits and not found:
        devices = -(-now.memory.peak // now.device.usable_bytes)
        lines.append(f"  no change is enough on one device; the peak is that of {devices:,} together")
    return "\n".join(lines), {
        "fits": now.fits,
        "estimate": now.to_dict(),
        "changes": [{"settings": c.settings, "estimate": c.estimate.to_dict()} for c in found],
    }
