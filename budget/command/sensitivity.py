"""`budget sensitivity`: which input moves a plan most."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ..report._sensitivity import answer
from ..scaling.levers import sensitivity
from . import scale
from ._output import output_flags, write

HELP = "which input moves a plan of `budget scale` most"
EXAMPLES = """examples:
  budget sensitivity --usd 1e6 --device h100
  budget sensitivity --params 8B --tokens 15T --mfu 40%
  budget sensitivity --compute 1e24 --price 2.5 --format json
"""


def flags(parser: ArgumentParser) -> None:
    """Add the command's flags: those of `budget scale`."""
    scale.plan_flags(parser)
    output_flags(parser)


def run(args: Namespace) -> int:
    """Print what moves the plan."""
    write(answer(sensitivity(scale.planned(args))), args)
    return 0
