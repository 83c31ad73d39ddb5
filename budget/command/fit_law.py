"""`budget fit-law`: a scaling law from your own runs."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ..errors import wrong
from ..report._law import answer
from ..scaling.fitted import fit_law
from ._output import output_flags, write

HELP = "a scaling law from your own runs, with intervals and outliers"
EXAMPLES = """examples:
  budget fit-law runs.csv                        columns params, tokens, loss
  budget fit-law runs.csv --drop 2,5             without those rows of the file
  budget fit-law runs.csv --format json --output mine.json
  budget scale --compute 1e21 --law mine.json    what follows from it
"""


def flags(parser: ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("runs", metavar="RUNS.csv", help="finished runs, one a row, at least 6")
    parser.add_argument("--drop", metavar="ROWS", default="", help="rows to leave out: 2,5 (the header is 1)")
    parser.add_argument("--bootstrap", metavar="N", default="1000", help="bootstrap samples (1000)")
    output_flags(parser)


def run(args: Namespace) -> int:
    """Fit and print the law."""
    samples = _whole("--bootstrap", args.bootstrap)
    dropped = tuple(_whole("--drop", x) for x in args.drop.split(",") if x)
    write(answer(fit_law(args.runs, drop=dropped, bootstrap=samples)), args)
    return 0


def _whole(field: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise wrong(field, text, "whole numbers")
    return int(text[:9])
