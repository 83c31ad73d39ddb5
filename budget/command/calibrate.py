"""`budget calibrate`: fit a profile of this machine, which later estimates use."""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from importlib.util import find_spec

from .. import device
from ..device import machine, profile
from ..device.kernel_class import Profile
from ..errors import InputError
from ..measured import calibration, record
from ..measured.alone import BUSY_ANYWAY, alone, idle
from ..measured.validation import rows, summaries
from ..report import render
from ..report._validation import answer
from ..stack import HERE

HELP = "measure this machine, so that times are measured ones"
EXAMPLES = """examples:
  budget calibrate                 from what was measured here, now if nothing
  budget calibrate FOLDER          from records of `pytest bench/` there
  budget calibrate --measure       measure anew: six minutes on two cores
  budget calibrate FOLDER --device h200 --profiles FOLDER     another machine's

The profile goes to $XDG_DATA_HOME/compute-budget/profiles, if it predicts no
worse than the one there.
"""
# How often a processor's suite runs: others on a shared host slow it for minutes, with all measurements in
# them. What two runs do not agree on (record.confirmed) is measured up to so many times.
PASSES, MOST_PASSES = 2, 5
NONE_LEFT = 5  # pytest's status where no test is left to run
WORSE = 1.05  # times the old profile's errors: less is within what another run of the suite gives


def flags(parser: ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("results", nargs="*", help="results files, or folders of them (bench/results/DEVICE)")
    parser.add_argument("--device", default="auto", metavar="D", help="whose records (this machine)")
    parser.add_argument("--measure", action="store_true", help="run the quick suite first, records or not")
    parser.add_argument("--profiles", metavar="FOLDER", help="write there instead")


def run(args: Namespace) -> int:
    """Benchmark if there are no records, fit and save a profile, and print its errors on held-out records."""
    if find_spec("numpy") is None:
        raise InputError("calibrate", "needs NumPy: pip install 'compute-budget[bench]'")
    chosen = device.load(args.device)
    name = profile.key(chosen)
    records = [] if args.measure else record.read(args.results, name) if args.results else _own(chosen, name)
    if not records:
        if args.results and not args.measure:
            raise InputError("results", f"no records in {', '.join(args.results)}")
        measure(chosen)
        records = _own(chosen, name)
    fitted = calibration.fit(records, chosen, records[-1].info.get("versions", {}))
    folder = args.profiles or profile.user_folder()
    _no_worse(records, chosen, fitted, os.path.join(folder, f"{name}.json"))
    notes = [f"Made by `budget calibrate` from {len([r for r in records if r.split == 'fit'])} records."]
    if again := [r.again for r in records if math.isfinite(r.again)]:
        apart, sure = statistics.median(again), sum(r.confirmed for r in records)
        notes.append(
            f"The two fastest runs of a case, minutes apart: {apart:.0%} in the median; "
            f"{sure} of {len(again)} within {record.CONFIRMED:.0%}."
        )
    path = profile.save(fitted, folder, notes)
    print(render(answer(rows(records, chosen, fitted), chosen, fitted), "table"))
    print("\n".join(["", *notes[1:], f"profile written to {path}"]))
    return 0


def _own(chosen: device.Device, name: str) -> list[record.Record]:
    """The records of a device. For a processor only those that calibration measured here: many machines have
    processors of the same name, and a checkout comes with records of some.
    """
    if chosen.vendor != HERE:
        return record.read([], name)
    folder = os.path.join(record.own_folder(), name)
    return record.read([folder], name) if os.path.isdir(folder) else []


def _no_worse(records: list[record.Record], chosen: device.Device, fitted: Profile, path: str) -> None:
    """Raise an InputError where the profile that would be replaced predicts the held-out records better."""
    if not os.path.isfile(path):
        return
    try:
        old = profile.load(path)
    except InputError:  # it is broken: anything is better
        return
    before, after = (
        statistics.mean(s.median for s in summaries(rows(records, chosen, p)) if s.name.startswith("all "))
        for p in (old, fitted)
    )
    if after > WORSE * before:
        raise InputError(
            "calibrate",
            f"the new profile is off by {after:.1%} on held-out records, {path}, which is kept, "
            f"by {before:.1%}; "
            "allowed: --measure on an idle machine, --profiles FOLDER",
        )


def measure(chosen: device.Device) -> None:
    """Run the quick benchmarks on this machine, a processor's in several passes, of which the least of each
    case counts (record.newest), the last ones of what the others do not agree on. Raises InputError if that
    is not possible.
    """
    gpu = machine.gpu() is not None
    here = device.load("auto" if gpu and chosen.id != "cpu" else "cpu")
    if here.id != chosen.id:
        raise InputError("--device", f"there are no records of {chosen.name}, and it is not in this machine")
    if missing := [
        name for name in ("torch", "pytest", "pytest_benchmark", "transformers") if find_spec(name) is None
    ]:
        raise InputError(
            "calibrate", f"needs {', '.join(missing)} to measure: pip install 'compute-budget[bench]'"
        )
    with alone():  # the suite itself holds it from here on
        if not os.environ.get(BUSY_ANYWAY):
            idle()
    passes, most = (PASSES, MOST_PASSES) if here.id == "cpu" else (1, 1)
    times = f", {passes} times, and up to {most} where they differ" if most > 1 else ""
    print(
        f"measuring {chosen.name} (pytest bench/ --quick{times}); an interrupted run goes on where it was",
        file=sys.stderr,
    )
    on = "cpu" if here.id == "cpu" else "cuda"
    ask = [
        sys.executable,
        "-m",
        "pytest",
        suites(),
        "--quick",
        "-q",
        "--on",
        on,
        "--results",
        record.own_folder(),
    ]
    ask += ["--benchmark-quiet", "-o", "python_files=bench_*.py", "-p", "no:cacheprovider"]
    top = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
    paths = os.pathsep.join(filter(None, (top, os.environ.get("PYTHONPATH", ""))))
    for i in range(most):
        status = subprocess.run(  # noqa: S603 # this project's own suites
            ask + ["--unsure"] * (i >= passes),
            check=False,
            stdout=sys.stderr,
            env={**os.environ, "PYTHONPATH": paths},
        ).returncode
        if i >= passes and status == NONE_LEFT:
            return
        if status:
            raise InputError(
                "calibrate", f"the suite ended with status {status}; what it measured is kept, run it again"
            )


def suites() -> str:
    """The folder of the benchmarks: bench/ in a checkout, budget/bench/ in a wheel."""
    package = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    top = os.path.join(os.path.dirname(package), "bench")
    return top if os.path.isfile(os.path.join(top, "conftest.py")) else os.path.join(package, "bench")
