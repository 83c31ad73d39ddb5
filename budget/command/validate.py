"""`budget validate`: predicted against measured times, on records that calibration did not use."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from .. import device
from ..device import profile
from ..device.kernel_class import Profile
from ..errors import InputError
from ..measured import record, replay
from ..measured.validation import Row, rows, summaries
from ..quantity import SHARE, read
from ..report._validation import answer, together
from ._output import output_flags, write

HELP = "predicted against measured times, on shapes and networks held out"
EXAMPLES = """examples:
  budget validate                 this machine's newest records, or all
  budget validate --all           all measurements, not networks alone
  budget validate --max-median 5% exit 1 if the median error is larger
  budget validate bench/results/h200    another machine's records
  budget validate bench/results --format html --output docs/accuracy.html

Exit status: 0, or 1 where kernels or networks exceed --max-median.
"""


def flags(parser: ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("results", nargs="*", help="results files, or folders of them (bench/results/DEVICE)")
    parser.add_argument("--device", metavar="D", help="whose records (those of the results)")
    parser.add_argument("--profile", metavar="FILE", help="predict with this one")
    parser.add_argument("--max-median", metavar="E", help="the largest median error that passes: 5%% or 0.05")
    parser.add_argument("--all", action="store_true", help="show every measurement")
    output_flags(parser)


def run(args: Namespace) -> int:
    """Print the errors."""
    given = args.max_median
    limit = None if given is None else read("--max-median", given, SHARE, zero=True)
    errors = [_rows(*case, args.profile) for case in _cases(args.results, args.device)]
    medians = [s.median for rows, _, _ in errors for s in summaries(rows) if s.name.startswith("all ")]
    if limit is not None and not medians:
        raise InputError("--max-median", "got records of collectives only; allowed: with kernels or networks")
    write(together([answer(*one, every=args.all) for one in errors]), args)
    return 1 if limit is not None and max(medians) > limit else 0


def _cases(paths: list[str], name: str | None) -> list[tuple[device.Device, list[record.Record]]]:
    """Devices with their records: of the paths; of the device that is named; this machine's; else all that
    come with a checkout, which say themselves what they were measured on.
    """
    if name is not None or not paths:
        chosen = device.load(name or "auto")
        if records := record.read(paths, profile.key(chosen)):
            return [(chosen, records)]
        files = {} if name is not None else replay.shipped()
        if not files:
            raise InputError("results", f"no records of {chosen.name}; measure with: pytest bench/ --quick")
    elif not (files := replay.owners(paths)):
        raise InputError("results", f"no records in {', '.join(paths)}")
    return [_replayed(key, paths_of) for key, paths_of in files.items()]


def _replayed(key: str, paths: list[str]) -> tuple[device.Device, list[record.Record]]:
    records = record.read(paths, key)
    return replay.recorded(records, key), records


def _rows(
    chosen: device.Device, records: list[record.Record], path: str | None
) -> tuple[list[Row], device.Device, Profile]:
    dtypes = sorted({r.dtype for r in records})
    used = profile.load(path) if path else profile.profile_for(chosen, dtypes[0])
    return rows(records, chosen, used), chosen, used
