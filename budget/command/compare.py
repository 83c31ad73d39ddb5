"""`budget compare`: several networks side by side."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ..errors import InputError
from ..estimate import estimate
from ..report._units import count, decimal, memory, seconds
from ..report.json import rate
from ._model import from_file, module_flag, settings_from, words, workload_flags, write

HELP = "several networks side by side"
EXAMPLES = """examples:
  budget compare resnet50 vit-b-16 convnext-tiny --batch 64
  budget compare llama-3-8b mixtral-8x7b --mode decode --batch 16 --seq 4096
  budget compare gpt2 gpt2-medium gpt2-large gpt2-xl --format json
  budget compare gpt2 --module path/file.py:factory --module path/file.py:other
"""


def flags(parser: ArgumentParser) -> None:
    """Add the command's flags."""
    parser.usage = f"{parser.prog} [MODEL ...] [--module FILE:FACTORY ...] [flags]"
    module_flag(parser, action="append", default=[])
    workload_flags(parser)
    parser.add_argument("--format", default="table", metavar="F", help="table, markdown, csv or json (table)")
    parser.add_argument("--output", metavar="FILE", help="write there instead")


def run(args: Namespace, rest: list[str]) -> int:
    """Print the comparison."""
    from tabulate import tabulate

    models, rest = words(rest)
    if not models and not args.module:
        raise InputError("usage", "name the models to compare")
    if rest and not models:
        raise InputError("--module", "a file's module has no flags of its own")
    named = [(name, settings_from(name, args, rest)) for name in models]
    named += [from_file(spec, args) for spec in args.module]
    estimates = [estimate(model, **settings) for model, settings in named]
    if args.format == "json":
        from json import dumps

        write(dumps([e.to_dict() for e in estimates], indent=1), args.output)
        return 0
    styles = {"table": "plain", "markdown": "github", "csv": "csv"}
    if args.format not in styles:
        raise InputError("--format", f"got {args.format!r}; allowed: table, markdown, csv, json")
    rows = [
        [
            e.model.name,
            count(e.params.total),
            decimal(e.flops.forward),
            decimal(e.flops.forward + e.flops.backward),
            memory(e.memory.peak),
            "yes" if e.fits else "no",
            seconds(e.times.step),
            f"{rate(e)['mfu']:.0%}",
        ]
        for e in estimates
    ]
    header = ["model", "params", "forward", "step", "peak", "fits", "time", "MFU"]
    if args.format == "csv":
        from csv import writer
        from io import StringIO

        out = StringIO()
        writer(out, lineterminator="\n").writerows([header, *rows])
        write(out.getvalue().rstrip("\n"), args.output)
    else:
        align = ("left", *["right"] * 7)
        write(tabulate(rows, header, styles[args.format], disable_numparse=True, colalign=align), args.output)
    return 0
