"""`budget compare`: several networks side by side."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterable
from functools import partial

from ..errors import InputError
from ..estimate import Estimate, estimate
from ..named import Any
from ..report._units import count, decimal, memory, seconds
from ..report.json import rate
from ._model import from_file, module_flag, settings_from, words, workload_flags, write
from ._parser import Parser

HELP = "several networks side by side"
EXAMPLES = """examples:
  budget compare resnet50 vit-b-16 convnext-tiny --batch 64
  budget compare llama-3-8b mixtral-8x7b --mode decode --batch 16 --seq 4096
  budget compare gpt2 gpt2-medium gpt2-large gpt2-xl --format json
  budget compare gpt2 --module path/file.py:factory --module path/file.py:other
"""


def flags(parser: Parser) -> None:
    """Add the command's flags."""
    parser.usage = f"{parser.prog} [MODEL ...] [--module FILE:FACTORY ...] [flags]"
    module_flag(parser, action="append", default=[])
    workload_flags(parser)
    parser.add_argument("--format", default="table", metavar="F", help="table, markdown, csv or json (table)")
    parser.add_argument("--output", metavar="FILE", help="write there instead")


def run(args: Namespace, rest: list[str]) -> int:
    """Print the comparison."""
    models, rest = words(rest)
    if not models and not args.module:
        raise InputError("usage", "name the models to compare")
    if rest and not models:
        raise InputError("--module", "a file's module has no flags of its own")
    if args.format not in FORMATS:
        raise InputError("--format", f"got {args.format!r}; allowed: {', '.join(FORMATS)}")
    named = [(name, settings_from(name, args, rest)) for name in models]
    named += [from_file(spec, args) for spec in args.module]
    estimates = [estimate(model, **settings) for model, settings in named]
    write(FORMATS[args.format](estimates), args.output)
    return 0


def _row(e: Estimate) -> list[Any]:
    """What COLUMNS name: counts, FLOPs, bytes, seconds, shares."""
    step = e.flops.forward + e.flops.backward
    counts = (e.params.total, e.flops.forward, step, e.memory.peak)
    return [e.model.name, *counts, e.fits, e.times.step, rate(e)["mfu"]]


def _table(estimates: Iterable[Estimate], style: str = "plain") -> str:
    from tabulate import tabulate

    rows = [[shown(x) for shown, x in zip(COLUMNS.values(), _row(e), strict=True)] for e in estimates]
    align = ("left", *["right"] * 7)
    return str(tabulate(rows, list(COLUMNS), style, disable_numparse=True, colalign=align))


def _csv(estimates: Iterable[Estimate]) -> str:
    """Raw numbers, as in an estimate's CSV."""
    from csv import writer
    from io import StringIO

    out = StringIO()
    writer(out, lineterminator="\n").writerows([COLUMNS, *map(_row, estimates)])
    return out.getvalue().rstrip("\n")


def _json(estimates: Iterable[Estimate]) -> str:
    from json import dumps

    return dumps([e.to_dict() for e in estimates], indent=1)


# Each column's name, and how people read its values.
COLUMNS: dict[str, Callable[[Any], str]] = {
    "model": str,
    "params": count,
    "forward": decimal,
    "step": decimal,
    "peak": memory,
    "fits": lambda fits: "yes" if fits else "no",
    "time": seconds,
    "MFU": "{:.0%}".format,
}
FORMATS: dict[str, Callable[[Iterable[Estimate]], str]] = {
    "table": _table,
    "markdown": partial(_table, style="github"),
    "csv": _csv,
    "json": _json,
}
