"""Everything that minutes on a GPU are worth: `python -m budget.bench.campaign run --out DIR`.

    prepare  compile what the plan needs, without a GPU, so that none of the time goes into it
    run      check and measure on the GPU at hand, until --seconds are over
    import   make what a run has left into records, settings, a profile and pages, without a GPU

docs/benchmarks.md says when to use which.
"""

from __future__ import annotations

import argparse
import os
import sys

from . import importing, prepare
from .refused import RefusedError
from .run import run as run_stages

PREPARED = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "prepared")


def main(argv: list[str]) -> int:
    """The exit status: 2 for what the caller got wrong."""
    options = _parser().parse_args(argv)
    try:
        return int(options.does(options))
    except RefusedError as error:
        print(f"campaign: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m budget.bench.campaign", description=__doc__.split("\n")[0]
    )
    commands = parser.add_subparsers(required=True)

    run = commands.add_parser("run", help="check and measure until the time is over")
    run.add_argument("--seconds", type=float, default=500, help="in all (500)")
    run.add_argument("--out", required=True, metavar="DIR", help="a folder for the results; made if need be")
    run.add_argument("--stages", default="", metavar="A,B", help="these alone, in this order (all)")
    run.add_argument("--follow-up", action="store_true", help="what a run has left, then tests and tools")
    run.add_argument("--after", default="", metavar="DIR", help="that run's folder, for --follow-up")
    run.add_argument("--on", default="cuda", choices=("cuda", "cpu"))
    run.add_argument("--prepared", default=PREPARED, metavar="DIR", help="what `prepare` made")
    run.set_defaults(does=run_stages)

    ahead = commands.add_parser("prepare", help="compile what the plan needs, without a GPU")
    ahead.add_argument("--prepared", default=PREPARED, metavar="DIR", help="where to (bench/prepared)")
    ahead.add_argument("--nvcc-wheel", default="", metavar="FILE", help=f"{prepare.WHEEL}")
    ahead.add_argument(
        "--triton", default="", metavar="VERSION", help="that of the machine to come, or its wheel (this one)"
    )
    ahead.add_argument("--jobs", type=int, default=0, help="processes (one a core)")
    ahead.set_defaults(does=prepare.main)

    after = commands.add_parser("import", help="make records, settings, a profile and pages of a run")
    after.add_argument("folders", nargs="+", metavar="DIR", help="a run's folder; several are read in order")
    after.add_argument("--results", default="", metavar="DIR", help="where records go (bench/results)")
    after.add_argument("--records-only", action="store_true", help="no settings, no profile, no pages")
    after.add_argument("--any-source", action="store_true", help="also what was measured with other sources")
    after.set_defaults(does=importing.main)
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
