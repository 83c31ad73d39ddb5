"""`budget compare`: several networks side by side."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence

from ..answer import Estimate
from ..errors import InputError
from ..estimate import estimate
from ..named import Any
from ..report._answer import Answer, Column, Table
from ..report._units import count, decimal, memory, seconds
from ._model import from_file, module_flag, output_flags, settings_from, words, workload_flags, write
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
    output_flags(parser)


def run(args: Namespace, rest: list[str]) -> int:
    """Print the comparison."""
    models, rest = words(rest)
    if not models and not args.module:
        raise InputError("usage", "name the models to compare")
    if rest and not models:
        raise InputError("--module", "a file's module has no flags of its own")
    named = [(name, settings_from(name, args, rest)) for name in models]
    named += [from_file(spec, args) for spec in args.module]
    estimates = [estimate(model, **settings) for model, settings in named]
    write(
        Answer(
            data=lambda: data(estimates),
            records=lambda: table(estimates),
            tables=lambda: (table(estimates),),
            estimates=estimates,
        ),
        args,
    )
    return 0


def data(estimates: Sequence[Estimate]) -> list[dict[str, Any]]:
    """The JSON of all estimates."""
    return [e.to_dict() for e in estimates]


def table(estimates: Sequence[Estimate]) -> Table:
    """One row per estimate: parameters, FLOPs of the forward pass and of a step, peak bytes, seconds, MFU."""
    rows = [
        (
            e.model.name,
            e.params.total,
            e.flops.forward,
            e.flops.forward + e.flops.backward,
            e.memory.peak,
            e.fits,
            e.times.step,
            e.throughput.mfu,
        )
        for e in estimates
    ]
    return Table(COLUMNS, rows)


COLUMNS = (
    Column("model", "model"),
    Column("params", "params", count),
    Column("forward", "forward", decimal),
    Column("step", "step", decimal),
    Column("peak", "peak", memory),
    Column("fits", "fits", lambda fits: "yes" if fits else "no"),
    Column("time", "time", seconds),
    Column("MFU", "MFU", "{:.0%}".format),
)
