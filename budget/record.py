"""Records of measurements: pytest-benchmark's JSON, whose `extra_info` says what was measured.

A record's `workload` is what budget predicts it from: a network's name or config with its settings, or
operators written as in op.py. So what is predicted is what was measured, by construction.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence

from .config import Workload
from .device import Device
from .dtype import full_name
from .errors import InputError, shown
from .estimate import estimate
from .fold.count import flops, training
from .fold.kernels import Work, works
from .fold.time import total
from .form import Dispatch, Profile
from .model import Model, model
from .named import Any, NamedTuple
from .op import op
from .plan.backward import backward
from .plan.fuse import fuse
from .plan.recompute import recompute
from .profile import key, user_folder

SCHEMA = "budget.record/1"
ASIDE = "budget.speed/1"  # of entries beside the records
LARGEST = 500_000_000  # bytes of a results file; a full suite has one or two million
TEXTS = ("suite", "case", "implementation", "split", "dtype")
NEEDED = (*TEXTS, "schema", "device", "workload", "statistic")
device_key = key


class Record(NamedTuple):
    """One measurement: its name, what it is predicted from, seconds."""

    name: str
    suite: str
    case: str
    implementation: str
    split: str  # fit | held
    dtype: str
    workload: Mapping[str, Any]
    seconds: float
    info: Mapping[str, Any]

    @property
    def is_network(self) -> bool:
        """Whether a whole network was measured, not a kernel or a collective."""
        return "model" in self.workload

    @property
    def collective(self) -> str:
        """Of a collective its name in a profile's links; empty for anything else."""
        w = self.workload
        return f"{w['collective']}-{w['nodes']}" if "collective" in w else ""

    @property
    def predicted(self) -> bool:
        """Whether the time model describes this implementation: torch's own, not compiled kernels."""
        return self.implementation == "torch"


class Program(NamedTuple):
    """What runs: kernels, and how many weights an optimizer steps one after the other."""

    kernels: tuple[Work, ...]
    weights: float
    flops: float
    dtype: str
    bare: bool  # operators called one by one: a network's code does not stand between them

    @property
    def bytes(self) -> float:
        """All that its kernels move."""
        return float(sum(w.bytes * w.times for w in self.kernels))


def work(workload: Mapping[str, Any]) -> Program:
    """The kernels of a record's workload. Raises InputError for one that cannot be read."""
    try:
        return _network(workload) if "model" in workload else _operators(workload)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError("workload", f"{shown(dict(workload))}: {error}") from None


def _network(workload: Mapping[str, Any]) -> Program:
    settings = {k: v for k, v in workload.items() if k != "model"}
    e = estimate(workload["model"], device="h200", **settings)
    kernels = works(e.program.nodes, e.task.dtype, e.task.execution == "compiled")
    total = e.hardware.forward + e.hardware.backward
    return _program(e.program, tuple(kernels), total, e.task.dtype, bare=False)


def _operators(workload: Mapping[str, Any]) -> Program:
    """Operators as op.py writes them; those of one `group` are one fused kernel."""
    dtype = full_name(workload["dtype"])
    nodes = (op(name, line, kind) for name, line, kind in workload["ops"])
    group = workload.get("group", "")
    built = model(
        "ops", {}, Workload(), (o._replace(group=group) for o in nodes), workload["sizes"], samples=1
    )
    built = fuse(built, {group}) if group else built
    if workload["mode"] == "train":
        built = recompute(backward(built), "none")
    counted = flops(built)
    return _program(
        built, tuple(works(built.nodes, dtype)), counted.forward + counted.backward, dtype, bare=True
    )


def _program(program: Model, kernels: tuple[Work, ...], total: float, dtype: str, *, bare: bool) -> Program:
    stepped = any(w.phase == "optimizer" for w in kernels)
    return Program(kernels, sum(n for _, _, n in training(program)) if stepped else 0, total, dtype, bare)


def seconds(program: Program, device: Device, profile: Profile) -> float:
    """The predicted time of a program; of bare operators without a network's own code around them."""
    if program.bare:
        forms = {name: form._replace(host_s=0.0) for name, form in profile.forms.items()}
        profile = profile._replace(dispatch=Dispatch(0, 0, 0), forms=forms)
    return float(total(program.kernels, program.weights, device, profile, program.dtype))


def predict(workload: Mapping[str, Any], device: Device, profile: Profile) -> float:
    """Seconds that a profile predicts for a record's workload. Raises InputError."""
    return seconds(work(workload), device, profile)


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
        found = shown(info.get("schema")) if isinstance(info, dict) else "none"
        raise InputError("results", f"{where}: schema {found}; allowed: {SCHEMA}")
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
    """Raise an InputError for a collective's record without what its time is predicted from."""
    workload = info["workload"]
    for name, table in (("nodes", workload), ("bytes", info)):
        value = table.get(name)
        if "collective" in workload and (not isinstance(value, int | float) or not value > 0):
            raise InputError("results", f"{where}: {name} is {shown(value)}; allowed: a positive number")


def results_folder() -> str:
    """Where `pytest bench/` keeps records, a folder for each device: in a checkout bench/results, else
    beside the user's profiles.
    """
    top = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if os.path.isfile(os.path.join(top, "bench", "fit_published.py")):
        return os.path.join(top, "bench", "results")
    return os.path.join(os.path.dirname(user_folder()), "results")


def read(paths: Sequence[str], device: str) -> list[Record]:
    """The newest records of a device in files or folders, or where the benchmarks keep them.

    Raises InputError for a place that is not there and for records of another device.
    """
    for path in paths:
        if not os.path.exists(path):
            raise InputError("results", f"there is no {path}")
    places = paths or [os.path.join(results_folder(), device)]
    return newest(
        [file for place in places for file in ([place] if os.path.isfile(place) else find(place))], device
    )


def _same(one: Record, other: Record) -> bool:
    """Whether two records are more rounds of one measurement, of which the least counts."""
    facts = [
        (r.info["statistic"], r.info.get("method"), r.info.get("versions"), r.workload) for r in (one, other)
    ]
    return facts[0] == facts[1] and one.info["statistic"] == "min"


def find(folder: str) -> list[str]:
    """The results files in a folder, oldest first: pytest-benchmark numbers them."""
    found = [os.path.join(place, name) for place, _, names in os.walk(folder) for name in names]
    return sorted((p for p in found if p.endswith(".json")), key=lambda p: (os.path.basename(p), p))


def newest(paths: Iterable[str], device: str) -> list[Record]:
    """Of each benchmark the newest record; where the least of all rounds counts, the least of all runs of
    the same case with the same versions. Raises InputError for records of another device.
    """
    latest: dict[str, Record] = {}
    for path in paths:
        for record in load(path):
            if record.info["device"] != device:
                raise InputError(
                    "results", f"{path} is of {shown(record.info['device'])}; asked for: {device}"
                )
            before = latest.get(record.name)
            if before is None or not (_same(before, record) and before.seconds < record.seconds):
                latest[record.name] = record
    return list(latest.values())


def links(records: Iterable[Record]) -> dict[str, tuple[float, float]]:
    """Of each collective, by name and machines, (seconds before the first byte, bytes/s): the relative
    least squares of a + bytes / b, two unknowns in closed form.
    """
    groups: dict[str, list[tuple[float, float]]] = {}
    for r in records:
        if r.collective and r.split == "fit":
            groups.setdefault(r.collective, []).append((1 / r.seconds, r.info["bytes"] / r.seconds))
    found = {}
    for name, rows in groups.items():
        aa, ab, bb = (sum(x * y for x, y in pairs) for pairs in _products(rows))
        a, b = sum(x for x, _ in rows), sum(y for _, y in rows)
        determinant = aa * bb - ab * ab
        if len(rows) > 1 and determinant > 0:
            start, per_byte = (a * bb - b * ab) / determinant, (b * aa - a * ab) / determinant
            if per_byte > 0:
                found[name] = (max(start, 0.0), 1 / per_byte)
    return found


def _products(rows: Sequence[tuple[float, float]]) -> Iterable[Iterable[tuple[float, float]]]:
    yield [(x, x) for x, _ in rows]
    yield rows
    yield [(y, y) for _, y in rows]
