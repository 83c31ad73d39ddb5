"""`budget plan`: the layouts of so many devices, the best first."""

from __future__ import annotations

from argparse import Namespace

from ..device import several
from ..errors import InputError
from ..estimate import plan
from ..layout import layout
from ..report._plan import answer
from ._heeded import heeded
from ._model import source_flags, workload_flags
from ._output import output_flags, write
from ._parser import Parser
from ._requested import requested

HELP = "layouts over many devices, the best first"
EXAMPLES = """examples:
  budget plan llama-3-70b --devices 64 --global-batch 128 --device h100
  budget plan mixtral-8x7b --devices 256 --global-batch 1024 --format json
  budget plan llama-3-8b --devices 8 --global-batch 64 --cluster aws-p4d \\
      --device a100-40gb
  budget plan llama-3-70b --devices 64 --global-batch 128 --output plan.svg
"""


def flags(parser: Parser) -> None:
    """Add the command's flags."""
    source_flags(parser)
    workload_flags(parser)
    output_flags(parser)


def run(args: Namespace, rest: list[str]) -> int:
    """Print the layouts."""
    model, settings = requested(args, rest)
    settings["device"], devices = several(settings["device"], settings.pop("devices"))
    laid = settings.pop("layout")
    if args.run is not None and args.layout is None and laid:  # a file's is one of those that are sought
        laid, devices = None, devices or layout(laid).devices
    if laid is not None:
        raise InputError(
            "--layout", "is what is searched; allowed: --devices N; of one layout: budget estimate"
        )
    if devices is None:
        raise InputError("--devices", "missing; allowed: how many devices, and no --layout")
    layouts = plan(model, devices, **settings)
    heeded(args, *(tried.estimate for tried in layouts.tried[:1] if tried.estimate))
    write(answer(layouts), args)
    return 0
