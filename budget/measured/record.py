"""Records of measurements: pytest-benchmark's JSON, whose `extra_info` says what was measured.

budget predicts a record from its `workload` (workload.py), from which it was also measured: both are the same
by construction.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence

from ..device.profile import user_folder
from ..errors import InputError, shown
from ..named import Any, NamedTuple

SCHEMA = "budget.record/1"
ASIDE = "budget.speed/1"  # the schema of entries that are no records
LARGEST = 500_000_000  # bytes of a results file; a full suite has one or two million
WAITED = 0.05  # share of the best round spent waiting for a processor; a record with more is not fitted
SPREAD = 0.5  # distance of the rounds' quartiles over the time; a record with more is not fitted
CONFIRMED = 0.05  # a case whose two fastest runs are no further apart needs no other one
TEXTS = ("suite", "case", "implementation", "split", "dtype")
NEEDED = (*TEXTS, "schema", "device", "workload", "statistic")


class Record(NamedTuple):
    """One measurement: its name, its workload, its seconds."""

    name: str
    suite: str
    case: str
    implementation: str
    split: str  # fit | held
    dtype: str
    workload: Mapping[str, Any]
    seconds: float
    info: Mapping[str, Any]
    again: float = math.inf  # how much longer the case's second fastest run took, over the seconds

    @property
    def is_network(self) -> bool:
        """Whether a whole network was measured, not a kernel or a collective."""
        return "model" in self.workload

    @property
    def collective(self) -> str:
        """A collective's name in a profile's links; "" for anything else."""
        w = self.workload
        return f"{w['collective']}-{w['nodes']}" if "collective" in w else ""

    @property
    def predicted(self) -> bool:
        """Whether the time model describes this implementation: torch's own, not compiled kernels."""
        return self.implementation == "torch"

    @property
    def confirmed(self) -> bool:
        """Whether a second run of the case took as long: what others slow on a shared host seldom does."""
        return self.again <= CONFIRMED

    @property
    def disturbed(self) -> bool:
        """Whether other programs disturbed the measurement: its threads waited, or its rounds do not
        agree.
        """
        waited, spread = self.info.get("waited") or 0, self.info.get("interquartile_range_s") or 0
        return bool(waited > WAITED or spread > SPREAD * self.seconds)


def load(path: str) -> list[Record]:
    """All records of a results file. Raises InputError that names the file and what is wrong with it."""
    try:
        if os.path.getsize(path) > LARGEST:
            raise InputError("results", f"{path}: {os.path.getsize(path):,} bytes; allowed: {LARGEST:,}")
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except OSError as error:
        raise InputError("results", f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError("results", f"{path} is truncated or no JSON: {shown(str(error))}") from None
    entries = content.get("benchmarks") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise InputError("results", f"{path} is not of pytest-benchmark: it has no list `benchmarks`")
    numbered = ((entry, f"{path}, record {i}") for i, entry in enumerate(entries, 1))
    return [_record(entry, where) for entry, where in numbered if not _aside(entry)]


def _aside(entry: Any) -> bool:
    """Whether an entry measures budget itself (bench_estimate.py), not the device."""
    info = entry.get("extra_info") if isinstance(entry, dict) else None
    return isinstance(info, dict) and info.get("schema") == ASIDE


def _record(entry: Any, where: str) -> Record:
    info = entry.get("extra_info") if isinstance(entry, dict) else None
    if not isinstance(info, dict) or info.get("schema") != SCHEMA:
        schema = shown(info.get("schema")) if isinstance(info, dict) else "none"
        raise InputError("results", f"{where}: schema {schema}; allowed: {SCHEMA}")
    if missing := [name for name in NEEDED if name not in info]:
        raise InputError("results", f"{where}: {missing[0]} is missing")
    stats = entry.get("stats")
    taken = stats.get(info["statistic"]) if isinstance(stats, dict) else None
    if isinstance(taken, bool) or not isinstance(taken, int | float) or not 0 < taken < 1e6:
        raise InputError(
            "results", f"{where}: {info['statistic']} is {shown(taken)}; allowed: positive seconds"
        )
    if not isinstance(info["workload"], dict):
        raise InputError("results", f"{where}: workload is {shown(info['workload'])}; allowed: a table")
    _check_collective(info, where)
    suite, case, implementation, split, dtype = (str(info[k]) for k in TEXTS)
    name, workload = str(entry.get("fullname", where)), info["workload"]
    return Record(name, suite, case, implementation, split, dtype, workload, float(taken), info)


def _check_collective(info: Mapping[str, Any], where: str) -> None:
    """Raise an InputError for a collective's record that lacks something for its prediction."""
    workload = info["workload"]
    for name, table in (("nodes", workload), ("bytes", info)):
        value = table.get(name)
        if "collective" in workload and (not isinstance(value, int | float) or not value > 0):
            raise InputError("results", f"{where}: {name} is {shown(value)}; allowed: a positive number")


def results_folder() -> str:
    """Where `pytest bench/` keeps records, a folder for each device: in a checkout bench/results, else
    beside the user's profiles.
    """
    top = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
    if os.path.isfile(os.path.join(top, "bench", "bench_models.py")):
        return os.path.join(top, "bench", "results")
    return own_folder()


def own_folder() -> str:
    """The folder of `budget calibrate`'s records, next to the user's profiles, so that no checkout
    changes.
    """
    return os.path.join(os.path.dirname(user_folder()), "results")


def read(paths: Sequence[str], device: str) -> list[Record]:
    """The newest records of a device in files or folders, or where benchmarks and calibration keep them.

    Raises InputError for a place that is not there and for records of another device.
    """
    for path in paths:
        if not os.path.exists(path):
            raise InputError("results", f"there is no {path}")
    places = paths or [os.path.join(top, device) for top in dict.fromkeys((results_folder(), own_folder()))]
    return newest(
        [file for place in places for file in ([place] if os.path.isfile(place) else find(place))], device
    )


def _same(one: Record, other: Record) -> bool:
    """Whether two records are rounds of one measurement, of which the fastest counts."""
    facts = [
        (r.info["statistic"], r.info.get("method"), r.info.get("versions"), r.workload) for r in (one, other)
    ]
    return facts[0] == facts[1] and one.info["statistic"] == "min"


def find(folder: str) -> list[str]:
    """The results files in a folder, oldest first: pytest-benchmark numbers them."""
    paths = [os.path.join(place, name) for place, _, names in os.walk(folder) for name in names]
    return sorted((p for p in paths if p.endswith(".json")), key=lambda p: (os.path.basename(p), p))


def newest(paths: Iterable[str], device: str) -> list[Record]:
    """The newest record of each benchmark; where the fastest round counts, the fastest of all runs of a case
    with the same versions. Raises InputError for records of another device.
    """
    latest: dict[str, Record] = {}
    for path in paths:
        for record in load(path):
            if record.info["device"] != device:
                raise InputError(
                    "results", f"{path} is of {shown(record.info['device'])}; asked for: {device}"
                )
            before = latest.get(record.name)
            latest[record.name] = _least(before, record) if before and _same(before, record) else record
    return list(latest.values())


def _least(one: Record, other: Record) -> Record:
    """The faster of two runs of one case, with how much longer the next one took."""
    first, second, *_ = sorted(s for r in (one, other) for s in (r.seconds, r.seconds * (1 + r.again)))
    return min(one, other, key=lambda r: r.seconds)._replace(again=second / first - 1)
