"""`budget estimate`: what one network costs."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping

from ..answer import Estimate
from ..estimate import estimate as compute
from ..named import Any
from ..report._estimate import answer, text
from ._model import asked, output_flags, source_flags, workload_flags, write
from ._parser import Parser

HELP = "what one network costs: parameters, FLOPs, memory, time, money"
EXAMPLES = """examples:
  budget estimate --arch transformer
  budget estimate llama-3-8b --batch 4 --seq 8192 --device h100 --recompute full
  budget estimate --arch mlp --sizes 10,20,10,2 --batch 100 --optimizer sgd
  budget estimate --config config.json --mode decode --batch 32 --seq 4096
  budget estimate gpt2-xl --by part
  budget estimate --module path/file.py:factory --batch 8
  budget estimate llama-3-70b --device h100 --fits || echo "too large"

Flags of an architecture (--layers, --d-model, ...): budget list architectures
"""


def flags(parser: Parser) -> None:
    """Add the command's flags."""
    source_flags(parser)
    workload_flags(parser)
    parser.add_argument(
        "--by",
        metavar="B",
        default="",
        help="a breakdown: operator, part, layer, or moment (memory over time)",
    )
    output_flags(parser)
    parser.add_argument("--fits", action="store_true", help="exit 1 if it does not fit")


def run(args: Namespace, rest: list[str]) -> int:
    """Print the estimate."""
    model, settings = asked(args, rest)
    found = compute(model, **settings)
    shown = answer(found, args.by)
    if not found.fits:
        shown = shown._replace(text=lambda: f"{text(found)}\n{_way_out(model, found, settings)}")
    write(shown, args)
    return 1 if args.fits and not found.fits else 0


def _way_out(model: object, now: Estimate, settings: Mapping[str, Any]) -> str:
    """The cheapest change that makes it fit."""
    from ..fit import changes
    from .fit import describe

    found = changes(model, **settings)
    if not found:
        devices = -(-now.memory.peak // now.device.usable_bytes)
        return f"to fit      on {devices:,} devices together, not on one"
    return f"to fit      {describe(found[0], now).lstrip()}"
