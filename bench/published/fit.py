"""What stacks reach, fitted to published runs: `python -m budget.bench.published.fit [--write] TABLE.csv ...`

A few factors for each stack (budget/stack.py, CLASSES) and for each pair of a stack and a generation of devices,
shrunk towards the stack's own, and those towards one: with few rows, or none, a pair is like its neighbours. No row
has a constant of its own. Judged on what was left out: parts of a pair's rows, whole pairs, whole sources.
Source: published-training.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import median

import numpy as np

from budget import device as devices
from budget import stack as stacks
from budget.errors import InputError
from budget.device import software
from budget.device.kernel_class import Dispatch, Profile
from budget.device.profile import FOLDER, load, save
from budget.files import replace
from budget.measured.calibration import interval
from budget.fold.kernels import Work, works
from budget.fold.time import kernel_time, rates
from budget.ir import Gemm
from budget.named import Any, NamedTuple
from budget.stack import CLASSES, Stack
from budget.table import DATA

from .predict import run
from .rows import NotCoveredError, Part
from .table import read

# Of a logarithm: how far a stack's factor lies from one, and a pair's from its stack's; what is measured, from the
# model. Assumed: with several times as much the fitted rows are nearer and those left out are not.
STACK, PAIR, ROW = 0.25, 0.15, 0.08
FAR = 0.25  # a larger error counts linearly: one bad row must not rule
BASE = ("conv", "edge", "pointwise", "launch_s", "dispatch_s")
COVERAGE = 0.9
FEWEST = 6  # rows of a pair with an interval of its own
FOLDS = 5
TIMES = ("step_s", "ttft_s", "tpot_s", "tokens_per_s", "samples_per_s")


class Kernels(NamedTuple):
    """A part's kernels, those alike together as arrays."""

    works: tuple[Work, ...]
    times: float
    phase: str


class Case(NamedTuple):
    """A measured row."""

    id: str
    stack: str
    generation: str
    source: str
    quantity: str
    device: devices.Device
    dtype: str
    parts: tuple[Kernels, ...]
    measured: float  # logarithm of seconds


Numbers = Mapping[tuple[str, ...], float]


def cases(paths: Iterable[str]) -> Iterator[Case]:
    """The rows of tables that have a measured time and a prediction."""
    for path in paths:
        kind, rows = read(path)
        for row in rows:
            try:
                for a in kind.asked(row):
                    if a.quantity in TIMES and a.measured and a.of is None:
                        taken = a.work / a.measured if a.work else a.measured
                        yield _case(row, a.quantity, a.parts, taken)
            except (NotCoveredError, InputError):
                continue


def _case(row: Mapping[str, str], quantity: str, parts: Sequence[Part], taken: float) -> Case:
    found = [run(part) for part in parts]
    e = found[0]
    kernels = tuple(
        Kernels(
            tuple(_alike(works(e.program.nodes, e.task.dtype, e.task.execution), p.phase)), p.times, p.phase
        )
        for p, e in zip(parts, found, strict=True)
    )
    source = row["source"].split(" ")[0].split("@")[0]
    return Case(
        row["id"],
        e.stack.name,
        e.device.generation,
        source,
        quantity,
        e.device,
        e.task.dtype,
        kernels,
        math.log(taken),
    )


def _alike(found: Iterable[Work], phase: str) -> Iterator[Work]:
    """Kernels of one class as one, whose sizes are arrays."""
    groups: dict[Any, list[Work]] = {}
    for w in found:
        if not phase or w.phase == phase:
            groups.setdefault((w.phase, w.form, w.own, w.narrow, w.gemm is None), []).append(w)
    for of in groups.values():
        sizes = {f: np.array([float(getattr(w, f)) for w in of]) for f in SIZES}
        gemm = (
            None
            if of[0].gemm is None
            else Gemm(*(np.array([float(g) for g in c]) for c in zip(*(w.gemm for w in of), strict=True)))
        )
        yield of[0]._replace(**sizes, gemm=gemm)


SIZES = ("contraction", "pointwise", "bytes", "launches", "times", "host")


def seconds(case: Case, profile: Profile) -> float:
    """The predicted seconds of a case: of each part the device's or the host's, whichever is longer."""
    r = rates(case.device, profile, case.dtype)
    total = 0.0
    for part in case.parts:
        device = host = 0.0
        for w in part.works:
            device += float((kernel_time(w, r)[0] * w.times).sum())
            host += float(((_dispatch(w, r.dispatch) + r.launch * w.launches) * w.times).sum())
        total += part.times * max(device, host)
    return total


def _dispatch(w: Work, d: Dispatch) -> Any:
    return (
        d.forward
        if w.phase == "forward"
        else d.backward
        if w.phase == "backward"
        else d.optimizer * w.launches
    )


def base(numbers: Numbers) -> Profile:
    """The profile that all stacks share."""
    found = load(os.path.join(FOLDER, "datasheet.json"))
    edge = (numbers["edge",],) * 3
    forms = {
        **found.forms,
        "conv": found.forms["conv"]._replace(share=numbers["conv",], edge=edge),
        "conv_backward": found.forms["conv"]._replace(share=numbers["conv",], edge=edge),
        "pointwise": found.forms["pointwise"]._replace(traffic=numbers["pointwise",]),
    }
    return found._replace(
        forms=forms, launch_s=numbers["launch_s",], dispatch=Dispatch(*[numbers["dispatch_s",]] * 3)
    )


def fitted(name: str, numbers: Numbers, generations: Iterable[str]) -> Stack:
    """A stack with its factors."""
    known = stacks.load(name)
    stack = {c: numbers.get((name, c), 1.0) for c in CLASSES}
    pairs = {g: {c: stack[c] * numbers.get((name, g, c), 1.0) for c in CLASSES} for g in generations}
    return known._replace(reached={"": stack, **pairs})


def predictions(found: Sequence[Case], numbers: Numbers) -> Any:
    """Logarithms of the predicted seconds of all cases."""
    profiles: dict[Any, Profile] = {}
    common = base(numbers)
    known: dict[str, Stack] = {}
    out = []
    for c in found:
        key = c.stack, c.device.id, c.device.bandwidth, c.dtype
        if key not in profiles:
            stack = known.setdefault(
                c.stack, fitted(c.stack, numbers, {d.generation for d in found_devices(found, c.stack)})
            )
            profiles[key] = software.profile(common, c.device, stack, c.dtype)
        out.append(math.log(seconds(c, profiles[key])))
    return np.array(out)


def found_devices(found: Sequence[Case], stack: str) -> Iterator[devices.Device]:
    """The devices on which a stack was measured."""
    return (c.device for c in found if c.stack == stack)


def start() -> dict[tuple[str, ...], float]:
    """Where a fit starts: what the profile of all stacks has now."""
    p = load(os.path.join(FOLDER, "datasheet.json"))
    conv = p.forms["conv"]
    return {
        ("conv",): conv.share, ("edge",): conv.edge[0] or 8.0, ("pointwise",): p.forms["pointwise"].traffic,
        ("launch_s",): p.launch_s, ("dispatch_s",): p.dispatch.forward,
    }  # fmt: skip


def fit(found: Sequence[Case], begin: Numbers) -> dict[tuple[str, ...], float]:
    """The numbers that predict the cases best, each drawn to where it comes from.

    Source: levenberg-marquardt.
    """
    names = [*begin, *_names(found)]
    x = np.array([math.log(begin.get(n, 1.0)) for n in names])
    origin, width = x.copy(), np.array([_width(n) for n in names])
    measured = np.array([c.measured for c in found])

    def at(x: Any) -> dict[tuple[str, ...], float]:
        return {n: math.exp(v) for n, v in zip(names, x, strict=True)}

    def errors(x: Any) -> Any:
        return (predictions(found, at(x)) - measured) / ROW

    def cost(e: Any, x: Any) -> float:
        a, b = np.abs(e) * ROW, FAR
        return float(
            np.where(a <= b, e * e, (2 * a * b - b * b) / ROW**2).sum() + (((x - origin) / width) ** 2).sum()
        )

    e, damping = errors(x), 1e-2
    for _ in range(12):
        slopes = _slopes(found, names, x, e, at, measured)
        w = np.minimum(1, FAR / np.maximum(np.abs(e) * ROW, 1e-9))
        normal = slopes.T @ (slopes * w[:, None]) + np.diag(1 / width**2)
        gradient = slopes.T @ (w * e) + (x - origin) / width**2
        before = cost(e, x)
        while damping < 1e6:
            moved = x - np.linalg.solve(normal + damping * np.diag(np.diag(normal)), gradient)
            tried = errors(moved)
            if cost(tried, moved) < before:
                break
            damping *= 5
        if damping >= 1e6:
            break
        gain = before - cost(tried, moved)
        x, e, damping = moved, tried, damping / 5
        if gain < 1e-3 * before:
            break
    return at(x)


def _slopes(
    found: Sequence[Case],
    names: Sequence[tuple[str, ...]],
    x: Any,
    e: Any,
    at: Callable[[Any], Any],
    measured: Any,
) -> Any:
    """The errors' derivatives; a stack's numbers move its own rows alone."""
    slopes, step = np.zeros((len(found), len(names))), 1e-4
    for i, name in enumerate(names):
        own = [
            j
            for j, c in enumerate(found)
            if len(name) == 1 or (c.stack == name[0] and (len(name) == 2 or c.generation == name[1]))
        ]
        moved = x.copy()
        moved[i] += step
        some = [found[j] for j in own]
        slopes[own, i] = ((predictions(some, at(moved)) - measured[own]) / ROW - e[own]) / step
    return slopes


def _names(found: Sequence[Case]) -> Iterator[tuple[str, ...]]:
    for stack in sorted({c.stack for c in found}):
        yield from ((stack, c) for c in CLASSES)
        pairs = sorted({c.generation for c in found if c.stack == stack})
        yield from ((stack, g, c) for g in pairs for c in CLASSES)


def _width(name: tuple[str, ...]) -> float:
    return (1.0, STACK, PAIR)[len(name) - 1]


def left_out(
    found: Sequence[Case], key: Callable[[Case], Any], begin: Numbers, least: int = 1
) -> dict[str, float]:
    """Errors as logarithms, by row and quantity, each predicted from the rows with other keys."""
    errors: dict[str, float] = {}
    for k in sorted({key(c) for c in found}, key=str):
        out = [c for c in found if key(c) == k]
        if len(out) >= least:
            numbers = fit([c for c in found if key(c) != k], begin)
            wrong = predictions(out, numbers) - np.array([c.measured for c in out])
            errors |= {f"{c.id} {c.quantity}": float(w) for c, w in zip(out, wrong, strict=True)}
    return errors


def _score(name: str, errors: Sequence[float]) -> str:
    sizes = sorted(abs(math.exp(e) - 1) for e in errors)
    if not sizes:
        return f"{name:<34}    0"
    return f"{name:<34}{len(sizes):5}{median(sizes):9.1%}{sizes[min(int(0.9 * len(sizes)), len(sizes) - 1)]:9.1%}{math.exp(median(errors)):8.2f}"


def main(argv: list[str]) -> int:
    """Fit, print the scoreboard, and write the stacks' files if asked to."""
    parser = argparse.ArgumentParser(prog="python -m budget.bench.published.fit", description=__doc__)
    parser.add_argument("tables", nargs="+")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--rows", action="store_true")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(argv)
    found = list(cases(options.tables))
    begin = start()
    numbers = fit(found, begin)
    wrong = predictions(found, numbers) - np.array([c.measured for c in found])
    if options.rows:
        for c, w in sorted(zip(found, wrong, strict=True), key=lambda r: (r[0].stack, r[0].generation, r[1])):
            print(
                f"{c.id:18}{c.stack:20}{c.generation:7}{c.quantity:14}{math.exp(c.measured):10.4g} s  x {math.exp(w):.2f}"
            )
    for n, v in numbers.items():
        if len(n) == 1:
            print(n[0], f"{v:.3g}")
    for stack in sorted({c.stack for c in found}):
        for g in ("", *sorted({c.generation for c in found if c.stack == stack})):
            print(
                f"{stack + ' ' + g:30}",
                "  ".join(
                    f"{c} {v:.2f}" for c, v in fitted(stack, numbers, [g] if g else []).reached[g].items()
                ),
            )
            if g:
                print(
                    _score(
                        f"  {stack} {g}",
                        [
                            w
                            for c, w in zip(found, wrong, strict=True)
                            if c.stack == stack and c.generation == g
                        ],
                    )
                )
    print(_score("all", list(wrong)))
    if options.quick:
        return 0
    folds = {}
    for name, key in (
        ("a fifth of each pair left out", lambda c: hash_of(c.id) % FOLDS),
        ("device left out", lambda c: (c.stack, c.generation)),
        ("source left out", lambda c: c.source),
    ):
        folds[name] = left_out(found, key, begin)
        print(_score(name, list(folds[name].values())))
    if options.write:
        write(found, numbers, folds)
    return 0


def write(found: Sequence[Case], numbers: Numbers, folds: Mapping[str, Mapping[str, float]]) -> None:
    """Write what was fitted, and the intervals that the errors of rows left out give, into the data."""
    rows, pairs, sources = ({k: v for k, v in errors.items()} for errors in folds.values())
    anywhere, elsewhere = (interval(list(e.values()), COVERAGE) for e in (sources, pairs))
    profile = base(numbers)._replace(low=1 / anywhere, high=anywhere, kernels=(1 / anywhere, anywhere))
    save(profile, FOLDER, NOTES)
    for name in stacks.names():
        path = os.path.join(DATA, "stacks", f"{name}.json")
        with open(path, encoding="utf-8") as file:
            about = json.load(file)
        own = [c for c in found if c.stack == name]
        for field in ("reached", "intervals"):
            about.pop(field, None)
        if own:
            generations = sorted({c.generation for c in own})
            reached = fitted(name, numbers, generations).reached
            about["reached"] = {
                g: {c: _short(v) for c, v in of.items() if abs(v - 1) > 0.005} for g, of in reached.items()
            }
            about["intervals"] = {"": [_short(1 / elsewhere), _short(elsewhere)]}
            for g in generations:
                errors = [rows[f"{c.id} {c.quantity}"] for c in own if c.generation == g]
                if len(errors) >= FEWEST:
                    wide = interval(errors, COVERAGE)
                    about["intervals"][g] = [_short(1 / wide), _short(wide)]
        replace(path, json.dumps(about, indent=2) + "\n")


def _short(value: float) -> float:
    return float(f"{value:.3g}")


NOTES = ("What all stacks share, fitted to published runs by bench/published/fit.py; stacks have the rest.",)


def hash_of(text: str) -> int:
    """A number for a row that stays the same."""
    return sum(i * ord(c) for i, c in enumerate(text, 1))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
