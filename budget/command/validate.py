"""`budget validate`: predicted against measured times, on records that calibration did not use."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from .. import device
from ..device import profile
from ..errors import InputError, unknown
from ..measured import record
from ..measured.validation import rows, summaries
from ..report._validation import answer
from ._model import output_flags, write

HELP = "predicted against measured times, on shapes and networks held out"
EXAMPLES = """examples:
  budget validate                           this machine's newest records
  budget validate --all                     all measurements, not networks alone
  budget validate --max-median 5%           exit 1 if the median error is larger
  budget validate FOLDER --device h200      another machine's records
  budget validate --format html --output accuracy.html

Exit status: 0, or 1 where kernels or networks exceed --max-median.
"""


def flags(parser: ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("results", nargs="*", help="results files, or folders of them (bench/results/DEVICE)")
    parser.add_argument("--device", default="auto", metavar="D", help="whose records (this machine)")
    parser.add_argument("--profile", metavar="FILE", help="predict with this one")
    parser.add_argument("--max-median", metavar="E", help="the largest median error that passes: 5%% or 0.05")
    parser.add_argument("--all", action="store_true", help="show every measurement")
    output_flags(parser)


def run(args: Namespace, rest: list[str]) -> int:
    """Print the errors."""
    if rest:
        raise unknown(
            "flag", rest[0], ("--device", "--profile", "--max-median", "--all", "--format", "--output")
        )
    limit = None if args.max_median is None else fraction(args.max_median)
    chosen = device.load(args.device)
    records = record.read(args.results, profile.key(chosen))
    if not records:
        raise InputError("results", f"no records of {chosen.name}; measure with: pytest bench/ --quick")
    dtypes = sorted({r.dtype for r in records})
    used = profile.load(args.profile) if args.profile else profile.profile_for(chosen, dtypes[0])
    found = rows(records, chosen, used)
    medians = [s.median for s in summaries(found) if s.name.startswith("all ")]
    if limit is not None and not medians:
        raise InputError("--max-median", "got records of collectives only; allowed: with kernels or networks")
    write(answer(found, chosen, used, every=args.all), args)
    return 1 if limit is not None and max(medians) > limit else 0


def fraction(text: str) -> float:
    """`5%` or `0.05` as 0.05. Raises InputError."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value < 100:
        raise InputError("--max-median", f"got {text[:40]!r}; allowed: a fraction as 5% or 0.05")
    return value
