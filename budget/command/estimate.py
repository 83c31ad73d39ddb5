"""`budget estimate`: what one network costs."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping

from ..answer import Estimate
from ..estimate import estimate as compute
from ..named import TYPE_CHECKING, Any
from ..report._estimate import answer, text
from ._heeded import heeded
from ._model import source_flags, workload_flags
from ._output import output_flags, write
from ._parser import Parser
from ._priced import priced, priced_flags
from ._requested import requested

if TYPE_CHECKING:
    from ..fitting.ways import Change

HELP = "what one network costs: parameters, FLOPs, memory, time, money"
EXAMPLES = """examples:
  budget estimate --arch transformer
  budget estimate llama-3-8b --batch 4 --seq 8192 --device h100 --recompute full
  budget estimate --arch mlp --sizes 10,20,10,2 --batch 100 --optimizer sgd
  budget estimate --config config.json --mode decode --batch 32 --seq 4096
  budget estimate --run train.yaml --device h100
  budget estimate gpt2-xl --by part
  budget estimate llama-3-8b --device h100 --tokens 15T --price 2.5
  budget estimate --module path/file.py:factory --batch 8
  budget estimate llama-3-70b --device h100 --fits || echo "too large"

Flags of an architecture (--layers, --sizes, ...): budget list architectures mlp
"""


def flags(parser: Parser) -> None:
    """Add the command's flags."""
    source_flags(parser)
    workload_flags(parser)
    parser.add_argument(
        "--by",
        metavar="B",
        default="",
        help="a breakdown: operator, part, layer, moment (memory over time), or rank (of a layout)",
    )
    priced_flags(parser)
    output_flags(parser)
    parser.add_argument("--fits", action="store_true", help="exit 1 if it does not fit")


def run(args: Namespace, rest: list[str]) -> int:
    """Print the estimate."""
    model, settings = requested(args, rest)
    if any(isinstance(value, list) for value in settings.values()):
        from ..comparison import cases

        if len(each := cases(settings)) > 1:
            from ..report._comparison import answer as comparison

            several = priced([compute(model, **one) for one in each], args)
            heeded(args, *several)
            write(comparison(several), args)
            return 0
    (e,) = priced([compute(model, **settings)], args)
    heeded(args, e)
    shown = answer(e, args.by)
    if not e.fits:
        shown = shown._replace(text=lambda: f"{text(e)}\n{_way_out(model, e, settings)}")
    write(shown, args)
    return 1 if args.fits and not e.fits else 0


def _way_out(model: object, now: Estimate, settings: Mapping[str, Any]) -> str:
    """The fastest change that makes the model fit, as one line."""
    changes: tuple[Change, ...] = ()
    if not now.beyond_one:
        from ..fitting.ways import advise

        advice = advise(model, first=True, **settings)
        changes = advice.changes
        if not changes and not advice.complete:
            return "to fit      nothing found at once: budget fit tries for longer"
    if not changes and now.spread is not None:
        return "to fit      no change of settings is enough: more devices, in tp, pp or zero"
    if not changes:
        devices = int(-(-now.needed // now.device.usable_bytes))
        return f"to fit      on {devices:,} devices together, not on one"
    from ..report._fit import describe

    return f"to fit      {describe(changes[0], now).lstrip()}"
