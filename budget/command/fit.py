"""`budget fit`: the largest size that fits a device, or changes that would make a model fit."""

from __future__ import annotations

from argparse import Namespace

from ..comparison import cases
from ..errors import InputError
from ..fitting.largest import DEVICES, SOLVE, fit
from ..report._fit import answer
from ._heeded import heeded
from ._model import source_flags, workload_flags
from ._output import output_flags, write
from ._parser import Parser
from ._requested import requested

HELP = "the largest batch, length or depth that fits, or what would help"
EXAMPLES = """examples:
  budget fit llama-3-8b --device h100 --solve batch --seq 4096 --recompute full
  budget fit gpt2-xl --device a100-80gb --solve seq --batch 4
  budget fit llama-3-8b --device h100      does it fit, or what would help?
  budget fit llama-3-70b --device h200 --solve devices
  budget fit --module path/file.py:factory --device h100 --solve batch

Exit status: 0 it fits, 1 it does not.
"""


def flags(parser: Parser) -> None:
    """Add the command's flags."""
    source_flags(parser)
    workload_flags(parser)
    parser.add_argument("--solve", metavar="S", help=f"{', '.join(SOLVE)}: how large; {DEVICES}: how many")
    output_flags(parser)


def run(args: Namespace, rest: list[str]) -> int:
    """Print the answer; exit status 1 if the model does not fit."""
    model, settings = requested(args, rest)
    if len(cases(settings)) > 1:
        raise InputError("fit", "got lists; allowed: one case at a time")
    fitted = fit(model, args.solve or "", **settings)
    heeded(args, fitted.estimate)
    write(answer(fitted), args)
    return 0 if fitted.fits else 1
