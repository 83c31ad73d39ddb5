"""Stacks fitted to published runs, and judged: `python -m budget.bench.published.scoreboard TABLE.csv ...`.

Judged on what was left out: a fifth of each pair's rows, whole pairs of a stack and a generation of devices,
whole sources. --write puts what was fitted into budget/data, with the intervals that these errors give.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from statistics import median

import numpy as np

from budget import stack as stacks
from budget.device.profile import FOLDER, save
from budget.files import replace
from budget.measured.calibration import interval
from budget.named import Any, NamedTuple
from budget.stack import SEVERAL
from budget.table import DATA

from ._terms import WITHOUT
from .fit import Numbers, base, batches, fit, fitted, left_out, predictions, start
from .measured import Case, cases

COVERAGE = 0.9
DRAWN = 3  # as many of the mean error are mixed with a group's own: of few, one would rule
FEWEST = 2  # rows of a pair with an interval of its own
FOLDS = 5
NOTES = (
    "What all stacks share, fitted to published runs by bench/published/scoreboard.py; stacks have the rest.",
)


def _fold(c: Case) -> int:
    """One of FOLDS parts of the rows, the same each time."""
    return sum(i * ord(letter) for i, letter in enumerate(c.id, 1)) % FOLDS


# What is left out together.
LEFT_OUT: Mapping[str, Callable[[Case], Any]] = {
    "a fifth of each pair": _fold,
    "each pair of stack and device": lambda c: (c.stack, c.generation),
    "each source": lambda c: c.source,
}


def main(argv: list[str]) -> int:
    """Fit, print the scoreboard, and write the data if asked to."""
    parser = argparse.ArgumentParser(prog="python -m budget.bench.published.scoreboard", description=__doc__)
    parser.add_argument("tables", nargs="+", metavar="TABLE.csv")
    parser.add_argument("--write", action="store_true", help="put what was fitted into budget/data")
    parser.add_argument("--rows", action="store_true", help="show each row, predicted over measured")
    parser.add_argument("--quick", action="store_true", help="leave nothing out")
    parser.add_argument("--terms", action="store_true", help="what each term of the model buys")
    options = parser.parse_args(argv)
    found = list(cases(options.tables))
    begin = start()
    numbers = fit(found, begin)
    errors = {"fitted": _errors(found, numbers)}
    print("\n".join(_lines(found, numbers, errors["fitted"], options.rows)))
    for name, key in LEFT_OUT.items() if not options.quick else ():
        errors[name] = left_out(found, key, begin, numbers)
    for name, of in errors.items():
        print(_score(name, list(of.values())))
    terms = list(_terms(options.tables, begin)) if options.terms else []
    for name, of in terms:
        print(_score(name, list(of.values())))
    judges = list(cases(options.tables, several=True))
    judged = _errors(judges, numbers)
    print(_score("one batch on several devices", list(judged.values())))
    if options.write:
        serving = [c for c in found if c.quantity == "tpot_s" and c.parts[0].waits > 0]
        rows = {**errors[next(iter(LEFT_OUT))], **judged}
        several = widths([*judges, *serving], rows, ELSEWHERE)
        write(found, numbers, *(errors[name] for name in LEFT_OUT), several)
        page(found, errors, terms)
    return 0


def _errors(found: Sequence[Case], numbers: Numbers) -> dict[str, float]:
    """Logarithms of predicted over measured, by row."""
    wrong = predictions(batches(found), numbers) - np.array([c.measured for c in found])
    return dict(zip(map(_key, found), map(float, wrong), strict=True))


def _terms(tables: Sequence[str], begin: Numbers) -> Iterator[tuple[str, dict[str, float]]]:
    """The errors of pairs left out without one of the model's terms, fitted anew."""
    key = LEFT_OUT["each pair of stack and device"]
    for name, without in WITHOUT.items():
        with ExitStack() as undone:
            for patched in without():
                undone.enter_context(patched)
            found = list(cases(tables))
            yield f"without {name}", left_out(found, key, begin, fit(found, begin))


def _key(c: Case) -> str:
    return f"{c.id} {c.quantity}"


def _lines(found: Sequence[Case], numbers: Numbers, errors: Mapping[str, float], rows: bool) -> Iterator[str]:
    """What was fitted, by pair, with its errors."""
    yield "  ".join(f"{n[0]} {v:.3g}" for n, v in numbers.items() if len(n) == 1)
    for stack, generation in sorted({(c.stack, c.generation) for c in found}):
        own = [c for c in found if (c.stack, c.generation) == (stack, generation)]
        reached = fitted(stack, numbers, [generation]).reached[generation]
        factors = "  ".join(f"{name} {value:.2f}" for name, value in reached.items())
        yield _score(f"{stack} {generation}", [errors[_key(c)] for c in own]) + f"   {factors}"
        for c in sorted(own, key=lambda c: errors[_key(c)]) if rows else ():
            ratio = math.exp(errors[_key(c)])
            yield f"    {c.id:18}{c.quantity:14}{math.exp(c.measured):10.4g} s   x {ratio:.2f}"


def _score(name: str, errors: Sequence[float]) -> str:
    """Rows, median and 90th percentile of the errors, and the median of predicted over measured."""
    sizes = sorted(abs(math.exp(e) - 1) for e in errors)
    far = sizes[min(int(0.9 * len(sizes)), len(sizes) - 1)]
    return f"{name:<32}{len(sizes):5}{median(sizes):9.1%}{far:9.1%}{math.exp(median(errors)):8.2f}"


def write(
    found: Sequence[Case],
    numbers: Numbers,
    rows: Mapping[str, float],
    pairs: Mapping[str, float],
    sources: Mapping[str, float],
    several: Mapping[str, float],
) -> None:
    """Write what was fitted, and the intervals that the errors of what was left out give, into the data.

    several: by stack, the factor of an interval on several devices.
    """
    anywhere = interval(list(sources.values()), COVERAGE)
    here, elsewhere = widths(found, rows, KNOWN), widths(found, pairs, ELSEWHERE)
    profile = base(numbers)._replace(low=1 / anywhere, high=anywhere, kernels=(1 / anywhere, anywhere))
    save(profile, FOLDER, NOTES)
    for name in stacks.names():
        path = os.path.join(DATA, "stacks", f"{name}.json")
        with open(path, encoding="utf-8") as file:
            about = json.load(file)
        about = {k: v for k, v in about.items() if k not in ("reached", "intervals")}
        own = [c for c in found if c.stack == name]
        if own:
            generations = sorted({c.generation for c in own})
            reached = fitted(name, numbers, generations).reached
            about["reached"] = {g: _factors(of, reached[""] if g else {}) for g, of in reached.items()}
            about["intervals"] = {"": _interval(elsewhere[name])}
            if name in several:
                about["intervals"][SEVERAL] = _interval(several[name])
            for generation in generations:
                if sum(c.generation == generation for c in own) >= FEWEST:
                    about["intervals"][generation] = _interval(here[name, generation])
        replace(path, json.dumps(about, indent=2) + "\n")


def _factors(of: Mapping[str, float], usual: Mapping[str, float]) -> dict[str, float]:
    """Factors as a file has them: those that are as usual are left out."""
    return {c: _short(v) for c, v in of.items() if abs(v / usual.get(c, 1.0) - 1) > 0.005}


class Group(NamedTuple):
    """Rows whose errors are alike, and which of them are off together."""

    of: Callable[[Case], Any]
    together: Callable[[Case], Any]


KNOWN = Group(lambda c: (c.stack, c.generation), lambda c: (c.id, c.quantity))
ELSEWHERE = Group(lambda c: c.stack, lambda c: c.generation)


def widths(found: Sequence[Case], errors: Mapping[str, float], group: Group) -> dict[Any, float]:
    """By group, the factor within which nine of ten measured times lie: a group's mean error, drawn to the
    mean of all, times what holds nine of ten errors of all groups in that unit. Source: split-conformal.
    """
    sizes: dict[Any, list[float]] = {}
    apart: dict[Any, set[Any]] = {}
    for c in found:
        sizes.setdefault(group.of(c), []).append(abs(errors[_key(c)]))
        apart.setdefault(group.of(c), set()).add(group.together(c))
    mean = sum(map(sum, sizes.values())) / len(found)
    units = {
        g: (len(apart[g]) * sum(of) / len(of) + DRAWN * mean) / (len(apart[g]) + DRAWN)
        for g, of in sizes.items()
    }
    most = math.log(interval([e / units[g] for g, of in sizes.items() for e in of], COVERAGE))
    return {g: math.exp(most * unit) for g, unit in units.items()}


def held(found: Sequence[Case], errors: Mapping[str, float], group: Group) -> dict[str, bool]:
    """By row, whether its error lies within intervals that were made from four fifths of the others."""
    within: dict[str, bool] = {}
    for i in range(FOLDS):
        seen = widths([c for j, c in enumerate(found) if j % FOLDS != i], errors, group)
        widest = max(seen.values())
        for c in found[i::FOLDS]:
            within[_key(c)] = abs(errors[_key(c)]) <= math.log(seen.get(group.of(c), widest))
    return within


def _share(held: Iterable[bool]) -> str:
    one = list(held)
    return f"{sum(one) / len(one):.0%}"


PAGE = os.path.join(os.path.dirname(os.path.dirname(DATA)), "docs", "accuracy.md")
BEGIN, END = "<!-- published: bench/published/scoreboard.py writes this -->", "<!-- published ends -->"


def page(
    found: Sequence[Case],
    errors: Mapping[str, Mapping[str, float]],
    terms: Sequence[tuple[str, Mapping[str, float]]],
) -> None:
    """Write the section of docs/accuracy.md."""
    with open(PAGE, encoding="utf-8") as file:
        before, _, rest = file.read().partition(BEGIN)
    lines = "\n".join(_page(found, errors, terms))
    replace(PAGE, f"{before}{BEGIN}\n\n{lines}\n\n{END}{rest.partition(END)[2]}")


def _page(
    found: Sequence[Case],
    errors: Mapping[str, Mapping[str, float]],
    terms: Sequence[tuple[str, Mapping[str, float]]],
) -> Iterator[str]:
    yield "| | rows | median error | 90th percentile | predicted / measured |"
    yield "|---|---:|---:|---:|---:|"
    for name, of in errors.items():
        yield _row(name if name == "fitted" else f"{name} left out", list(of.values()))
    yield from (_row(name, list(of.values())) for name, of in terms)
    yield ""
    known, left = (
        held(found, errors[name], group) for name, group in zip(LEFT_OUT, (KNOWN, ELSEWHERE), strict=False)
    )
    yield (
        f"Within intervals made from four fifths of these errors lie {_share(known.values())} of the "
        f"others of pairs that are known (by pair: the last column), and {_share(left.values())} of pairs "
        "left out."
    )
    yield ""
    kinds = list(errors)
    yield f"| stack, generation | rows | {' | '.join(kinds)} | inside |"
    yield "|---|---:|" + "---:|" * (len(kinds) + 1)
    for stack, generation in sorted({(c.stack, c.generation) for c in found}):
        keys = [_key(c) for c in found if (c.stack, c.generation) == (stack, generation)]
        cells = " | ".join(_two([errors[kind][k] for k in keys]) for kind in kinds)
        yield f"| {stack}, {generation} | {len(keys)} | {cells} | {_share(known[k] for k in keys)} |"


def _row(name: str, errors: Sequence[float]) -> str:
    sizes = sorted(abs(math.exp(e) - 1) for e in errors)
    far = sizes[min(int(0.9 * len(sizes)), len(sizes) - 1)]
    return f"| {name} | {len(sizes)} | {median(sizes):.1%} | {far:.1%} | {math.exp(median(errors)):.2f} |"


def _two(errors: Sequence[float]) -> str:
    """Median and 90th percentile."""
    sizes = sorted(abs(math.exp(e) - 1) for e in errors)
    return f"{median(sizes):.1%}, {sizes[min(int(0.9 * len(sizes)), len(sizes) - 1)]:.0%}"


def _interval(width: float) -> list[float]:
    return [_short(1 / width), _short(width)]


def _short(value: float) -> float:
    return float(f"{value:.3g}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
