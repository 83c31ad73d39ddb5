"""Fit a profile to records: a few numbers for each class of kernels, by relative least squares.

Each class is fitted to its own suite, then the host's overhead to small networks. Only records of the
split `fit` are used. Intervals come from errors under cross-validation: a fifth of the records at a time is
left out, and then predicted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from ..device import Device
from ..device.kernel_class import BACKWARD, Dispatch, KernelClass, Profile, complete
from ..device.profile import key
from ..errors import InputError
from ..fold.pages import mapped
from ..ir import RULES
from ..named import Any, NamedTuple
from .collectives import links
from .least_squares import Prior, least_squares
from .record import Record
from .workload import Program, seconds, work

Numbers = Mapping[str, float]

# Where a fit starts; numbers that are not fitted keep these values. Fits of any device converge from here.
START = {
    "memory": 4.0,
    "cache.size": 5e6,  # of the nearer caches, and the part of their bandwidth that is left beyond them
    "cache.drop": 0.25,
    "last.size": 1e8,  # the same of the last one
    "last.drop": 0.8,
    "launch_s": 3e-6,
    "dispatch.forward": 5e-6,
    "dispatch.backward": 8e-6,
    "dispatch.optimizer": 8e-6,
    "dispatch.step": 5e-5,
    **{f"forms.{name}.vector": 0.3 for name in ("pointwise", "reduction", "optimizer")},
    **{f"forms.{name}.share": 0.4 for name in ("matmul", "conv", "conv_backward", "recurrent")},
    **{f"forms.{name}.edge.{axis}": 3.0 for name in ("matmul", "conv", "conv_backward") for axis in range(3)},
    **{f"forms.{name}.overlap": 0.0 for name in ("matmul", "conv", "conv_backward")},
    **{
        f"forms.attention{phase}.{field}": 0.2 for phase in ("", "_backward") for field in ("share", "vector")
    },
    "forms.matmul.traffic": 1.5,
    "forms.recurrent.traffic": 1.1,
    "forms.recurrent.vector": 0.1,
    "forms.optimizer.traffic": 0.8,
}
# Where any other number starts. A rate that is too low bounds the time, and so is fitted; one that is too
# high would vanish beside the time for the bytes, and nothing would move it.
UNNAMED = {"fresh": 5.0, "traffic": 2.0, "start_s": 1e-6, "host_s": 1e-5, "vector": 0.01}
FOLDS = 5
COVERAGE = 0.9
LEAST = 20  # records
# Kinds of operators with numbers of their own, where they have records of their own.
OWN = {kind for kind, rule in RULES.items() if rule.measured}
TILE = (128, 256)  # of a product on a GPU: what the fastest kernels on Hopper use (docs/kernels.md)
MOST: Numbers = {"cache.drop": 1.0, "last.drop": 1.0}  # bandwidth does not rise where a cache ends
TINY = math.log(1e-9)  # the least of any number: one that no record determines must not run away
RECORD = 0.1  # of a logarithm: a larger error counts linearly, so that one bad record does not rule
# A number off its prior by this factor costs as much as a record that is off by RECORD.
SPREAD = math.log(8.0)
STEP = 1e-4  # of a logarithm: the step of numerical derivatives


class Case(NamedTuple):
    """A record with its kernels."""

    record: Record
    program: Program
    measured: float  # logarithm of seconds
    fold: str  # cases of one fold are left out together: a network's forward pass and its training step


class Stage(NamedTuple):
    """Parameters that are fitted together to some cases."""

    names: tuple[str, ...]
    cases: tuple[Case, ...]


Maker = Callable[[Numbers], Profile]
Predict = Callable[[Case, Profile], float]


def fit(records: Iterable[Record], device: Device, versions: Mapping[str, str]) -> Profile:
    """A measured profile from the records of the split `fit`. Raises InputError where there are too few."""
    records = list(records)
    asked = [r for r in records if r.split == "fit" and r.predicted]
    known = [r for r in asked if not r.disturbed]
    if len(known) < LEAST:
        dropped = f", {len(asked) - len(known)} disturbed ones apart" if len(known) < len(asked) else ""
        raise InputError(
            "results",
            f"{len(known)} records to calibrate from{dropped}; allowed: {LEAST} or more (pytest bench/)",
        )
    dtypes = tuple(sorted({r.dtype for r in known}))
    stages = [s for s in _stages([_case(r) for r in known]) if s.cases]

    def make(numbers: Numbers) -> Profile:
        return build(numbers, device, dtypes, versions)

    def predict(case: Case, profile: Profile) -> float:
        return seconds(case.program, device, profile)

    numbers: Numbers = START
    for stage in stages:
        numbers = _fitted(numbers, stage.names, stage.cases, make, predict)
    errors = [
        (c.record.is_network, e)
        for stage in _last(stages)
        for c, e in _left_out(numbers, stage, make, predict)
    ]
    kernels, networks = (
        interval([e for is_network, e in errors if is_network == wanted]) for wanted in (False, True)
    )
    widest = networks if any(is_network for is_network, _ in errors) else kernels
    return make(numbers)._replace(
        low=1 / widest, high=widest, kernels=(1 / kernels, kernels), links=links(records)
    )


def _case(record: Record) -> Case:
    fold = record.case.rpartition("-")[0] if record.is_network else record.case
    return Case(record, work(record.workload), math.log(record.seconds), fold)


def _stages(cases: Sequence[Case]) -> Iterable[Stage]:
    """The stages of the fit, in order."""

    def cases_of(*suites: str, mode: str = "") -> tuple[Case, ...]:
        modes = (mode,) if mode else ("forward", "train")
        return tuple(c for c in cases if c.record.suite in suites and c.record.workload["mode"] in modes)

    def names(form: str, *fields: str) -> tuple[str, ...]:
        return tuple(f"forms.{form}.{field}" for field in fields)

    edges = ("share", "edge.0", "edge.1", "edge.2", "start_s")
    suites = ("memory_bandwidth", "softmax", "cross_entropy", "rms_norm", "rope")
    mapping = tuple(c for c in cases_of("memory_bandwidth") if _maps(c))
    moving = tuple(c for c in cases_of(*suites) if c.record.suite != "memory_bandwidth" or not _maps(c))
    own = [w for c in moving for w in c.program.kernels if w.own in OWN]
    kinds = sorted({w.own + BACKWARD * (w.phase == "backward") for w in own})
    yield Stage(
        (
            "memory",
            "cache.size",
            "cache.drop",
            "last.size",
            "last.drop",
            "launch_s",
            *(n for k in kinds for n in names(k, "vector", "start_s")),
        ),
        moving,
    )
    yield Stage(("fresh",), mapping)
    for kind in ("gather", "embedding_bag"):
        gathers = tuple(c for c in cases_of("gather") if c.record.workload["ops"][0][2] == kind)
        yield Stage(names(kind, "traffic", "start_s"), gathers)
    yield Stage(names("matmul", *edges, "traffic"), cases_of("matmul"))
    for form, mode in (("conv", "forward"), ("conv_backward", "train")):
        yield Stage(names(form, *edges, "traffic"), cases_of("convolution", mode=mode))
    yield Stage(
        names("attention", "share", "vector", "start_s"),
        cases_of("attention", "attention_cached", mode="forward"),
    )
    yield Stage(
        names("attention_backward", "share", "vector", "start_s"), cases_of("attention", mode="train")
    )
    networks = cases_of("models")
    recurrent = tuple(c for c in networks if any(w.form == "recurrent" for w in c.program.kernels))
    yield Stage(names("recurrent", "share", "traffic", "vector", "start_s"), recurrent)
    host = (
        "dispatch.forward",
        *names("attention", "host_s"),
        *names("layer_norm", "host_s"),
        *names("batch_norm", "host_s"),
    )
    yield Stage(host, cases_of("models", mode="forward"))
    yield Stage(
        (*host, "dispatch.backward", "dispatch.optimizer", "dispatch.step", *names("optimizer", "traffic")),
        networks,
    )


def _maps(c: Case) -> bool:
    return any(mapped(size) for w in c.program.kernels for size in w.made)


def _last(stages: Sequence[Stage]) -> list[Stage]:
    """The last stage of each case."""
    last = {c.record.name: i for i, stage in enumerate(stages) for c in stage.cases}
    return [
        s._replace(cases=kept)
        for i, s in enumerate(stages)
        if (kept := tuple(c for c in s.cases if last[c.record.name] == i))
    ]


def _left_out(numbers: Numbers, stage: Stage, make: Maker, predict: Predict) -> Iterable[tuple[Case, float]]:
    """Each case with its error under cross-validation."""
    keys = sorted({c.fold for c in stage.cases})
    for i in range(FOLDS):
        out = set(keys[i::FOLDS])
        seen = [c for c in stage.cases if c.fold not in out]
        if len(seen) > len(stage.names):
            profile = make(_fitted(numbers, stage.names, seen, make, predict))
            yield from ((c, math.log(predict(c, profile)) - c.measured) for c in stage.cases if c.fold in out)


def interval(errors: Sequence[float], coverage: float = COVERAGE) -> float:
    """The factor within which a new measurement lies with the given probability, from errors of predictions
    of records that were left out. Source: split-conformal.
    """
    ordered = sorted(map(abs, errors))
    if not ordered:
        return 10.0
    rank = math.ceil(coverage * (len(ordered) + 1))
    return math.exp(ordered[min(rank, len(ordered)) - 1])


def build(numbers: Numbers, device: Device, dtypes: tuple[str, ...], versions: Mapping[str, str]) -> Profile:
    """A profile from its numbers by name: `forms.matmul.edge.0`, `dispatch.forward`, ..."""
    tables: dict[str, dict[str, Any]] = {}
    for name, value in numbers.items():
        if name.startswith("forms."):
            _, form, field, *axis = name.split(".")
            table = tables.setdefault(form, {})
            if axis:
                table.setdefault(field, [0.0] * 3)[int(axis[0])] = value
            else:
                table[field] = value
    serial = device.id == "cpu"
    beyond = numbers["memory"] * numbers["cache.drop"]
    forms = {k: _form(t) for k, t in tables.items()}
    if not serial:  # an accelerator moves while it computes, and its products run in waves of tiles
        forms |= {k: f._replace(overlap=1.0, traffic=1.0) for k, f in forms.items() if f.share < 1}
        forms["matmul"] = forms["matmul"]._replace(tile=TILE)
    return Profile(
        name=device.name,
        provenance="measured",
        device=key(device),
        forms=complete(forms),
        memory=numbers["memory"],
        steps=((numbers["cache.size"], beyond), (numbers["last.size"], beyond * numbers["last.drop"])),
        launch_s=numbers["launch_s"],
        fresh=numbers.get("fresh", 0.0),
        dispatch=Dispatch(*(numbers[f"dispatch.{phase}"] for phase in Dispatch._fields)),
        serial=serial,
        low=1.0,
        high=1.0,
        dtypes=dtypes,
        versions=dict(versions),
    )


def _form(fields: Mapping[str, Any]) -> KernelClass:
    values: dict[str, Any] = {n: tuple(v) if n == "edge" else v for n, v in fields.items()}
    return KernelClass(**values)


def _fitted(
    start: Numbers, names: Sequence[str], cases: Sequence[Case], make: Maker, predict: Predict
) -> Numbers:
    """The numbers with those in `names` fitted to the cases; each one's prior is its start."""
    import numpy as np

    usual = {**{n: UNNAMED.get(n.rpartition(".")[2], 0.1) for n in names}, **START}
    begin = {**usual, **start}
    measured = np.array([c.measured for c in cases])

    def at(x: Any) -> Numbers:
        return {**begin, **dict(zip(names, map(float, np.exp(x)), strict=True))}

    def errors(x: Any) -> Any:
        profile = make(at(x))
        return (np.log([predict(c, profile) for c in cases]) - measured) / RECORD

    def slopes(x: Any, e: Any) -> Any:
        return np.stack([(errors(x + STEP * axis) - e) / STEP for axis in np.eye(len(x))], 1)

    x, usually = (np.log([numbers[n] for n in names]) for numbers in (begin, usual))
    how = {"least": TINY, "most": np.log([MOST.get(n, math.inf) for n in names])}
    prior = Prior(usually, SPREAD)
    return at(least_squares(errors, slopes, x, prior, far=1.0, steps=40, enough=1e-3, **how))
