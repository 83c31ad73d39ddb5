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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from statistics import median

import numpy as np

from budget import stack as stacks
from budget.device.profile import FOLDER, save
from budget.files import replace
from budget.stack import SEVERAL
from budget.table import DATA

from . import measured
from ._terms import WITHOUT
from .fit import Numbers, base, fit, fitted, predictions, start
from .intervals import ELSEWHERE, Errors, Widths, as_others, held, intervals, widths
from .kernels import batches
from .left_out import left_out
from .measured import Case
from .picture import picture
from .targets import LEFT_OUT, share, spread, targets

NOTES = (
    "What all stacks share, fitted to published runs by bench/published/scoreboard.py; stacks have the rest.",
)


def main(argv: list[str]) -> int:
    """Fit, print the scoreboard, and write the data if asked to."""
    parser = argparse.ArgumentParser(prog="python -m budget.bench.published.scoreboard", description=__doc__)
    parser.add_argument("tables", nargs="+", metavar="TABLE.csv")
    parser.add_argument("--write", action="store_true", help="put what was fitted into budget/data")
    parser.add_argument("--rows", action="store_true", help="show each row, predicted over measured")
    parser.add_argument("--quick", action="store_true", help="leave nothing out")
    parser.add_argument("--terms", action="store_true", help="what each term of the model buys")
    options = parser.parse_args(argv)
    cases = list(measured.cases(options.tables))
    begin = start()
    numbers = fit(cases, begin)
    errors = {"fitted": _errors(cases, numbers)}
    print("\n".join(_lines(cases, numbers, errors["fitted"], options.rows)))
    for name, together in LEFT_OUT.items() if not options.quick else ():
        errors[name] = left_out(cases, together, begin, numbers)
    for name, of_rows in errors.items():
        print(_score(name, list(of_rows.values())))
    table = [] if options.quick else [*targets(cases, errors)]
    if table:
        print("\n".join(table))
    terms = list(_terms(options.tables, begin)) if options.terms else []
    for name, of_rows in terms:
        print(_score(name, list(of_rows.values())))
    judges = list(measured.cases(options.tables, several=True))
    judged = _errors(judges, numbers)
    print(_score("one batch on several devices", list(judged.values())))
    if options.write:
        serving = [c for c in cases if c.quantity == "tpot_s" and c.parts[0].waits > 0]
        within = intervals(cases, *(errors[name] for name in LEFT_OUT))
        rows = as_others([*judges, *serving], {**errors[next(iter(LEFT_OUT))], **judged}, within.powers)
        several = widths([*judges, *serving], rows, ELSEWHERE)
        write(cases, numbers, within, several)
        page(cases, errors, table, terms)
    return 0


def _errors(cases: Sequence[Case], numbers: Numbers) -> dict[str, float]:
    """Logarithms of predicted over measured, by row."""
    wrong = predictions(batches(cases), numbers) - np.array([c.measured for c in cases])
    return {c.key: float(w) for c, w in zip(cases, wrong, strict=True)}


def _terms(tables: Sequence[str], begin: Numbers) -> Iterator[tuple[str, dict[str, float]]]:
    """The errors of pairs left out without one of the model's terms, fitted anew."""
    pair = LEFT_OUT["each pair of stack and device"]
    for name, without in WITHOUT.items():
        with ExitStack() as undone:
            for patched in without():
                undone.enter_context(patched)
            cases = list(measured.cases(tables))
            yield f"without {name}", left_out(cases, pair, begin, fit(cases, begin))


def _lines(cases: Sequence[Case], numbers: Numbers, errors: Errors, rows: bool) -> Iterator[str]:
    """What was fitted, by pair, with its errors."""
    yield "  ".join(f"{n[0]} {v:.3g}" for n, v in numbers.items() if len(n) == 1)
    for stack, generation in sorted({(c.stack, c.generation) for c in cases}):
        own = [c for c in cases if (c.stack, c.generation) == (stack, generation)]
        reached = fitted(stack, numbers, [generation]).reached[generation]
        factors = "  ".join(f"{name} {value:.2f}" for name, value in reached.items())
        yield _score(f"{stack} {generation}", [errors[c.key] for c in own]) + f"   {factors}"
        for c in sorted(own, key=lambda c: errors[c.key]) if rows else ():
            ratio = math.exp(errors[c.key])
            yield f"    {c.id:18}{c.quantity:14}{math.exp(c.measured):10.4g} s   x {ratio:.2f}"


def _score(name: str, errors: Sequence[float]) -> str:
    """Rows, median and 90th percentile of the errors, and the median of predicted over measured."""
    return f"{name:<32}{len(errors):5}  {spread(errors, '  ')}{math.exp(median(errors)):8.2f}"


def write(cases: Sequence[Case], numbers: Numbers, within: Widths, several: Mapping[str, float]) -> None:
    """Write what was fitted, and the intervals that the errors of what was left out give, into the data.

    several: by stack, the factor of an interval on several devices.
    """
    least, most = 1 / within.anywhere, within.anywhere
    powers = {name: _short(power) for name, power in within.powers._asdict().items()}
    profile = base(numbers)._replace(low=least, high=most, kernels=(least, most), **powers)
    save(profile, FOLDER, NOTES)
    for name in stacks.names():
        path = os.path.join(DATA, "stacks", f"{name}.json")
        with open(path, encoding="utf-8") as file:
            about = json.load(file)
        about = {k: v for k, v in about.items() if k not in ("reached", "intervals")}
        own = [c for c in cases if c.stack == name]
        if own:
            generations = sorted({c.generation for c in own})
            reached = fitted(name, numbers, generations).reached
            about["reached"] = {g: _factors(here, reached[""] if g else {}) for g, here in reached.items()}
            ends = within.on(name)
            if name in several:
                ends[SEVERAL] = (1 / several[name], several[name])
            about["intervals"] = {g: [*map(_short, ends[g])] for g in sorted(ends)}
        replace(path, json.dumps(about, indent=2) + "\n")


def _factors(reached: Mapping[str, float], usual: Mapping[str, float]) -> dict[str, float]:
    """Factors as a file has them: those that are as usual are left out."""
    return {c: _short(v) for c, v in reached.items() if abs(v / usual.get(c, 1.0) - 1) > 0.005}


DOCS = os.path.join(os.path.dirname(os.path.dirname(DATA)), "docs")
PAGE, PICTURE = os.path.join(DOCS, "accuracy.md"), os.path.join(DOCS, "published.svg")
BEGIN, END = "<!-- published: bench/published/scoreboard.py writes this -->", "<!-- published ends -->"


def page(
    cases: Sequence[Case],
    errors: Mapping[str, Errors],
    table: Sequence[str],
    terms: Sequence[tuple[str, Errors]],
) -> None:
    """Write the section of docs/accuracy.md, and its picture. table: the lines of `targets`."""
    with open(PAGE, encoding="utf-8") as file:
        before, _, rest = file.read().partition(BEGIN)
    lines = "\n".join(_page(cases, errors, table, terms))
    replace(PAGE, f"{before}{BEGIN}\n\n{lines}\n\n{END}{rest.partition(END)[2]}")
    replace(PICTURE, picture(cases, errors) + "\n")


def _page(
    cases: Sequence[Case],
    errors: Mapping[str, Errors],
    table: Sequence[str],
    terms: Sequence[tuple[str, Errors]],
) -> Iterator[str]:
    yield "| | rows | median error | 90th percentile | predicted / measured |"
    yield "|---|---:|---:|---:|---:|"
    for name, of_rows in errors.items():
        yield _row(name if name == "fitted" else f"{name} left out", list(of_rows.values()))
    yield from (_row(name, list(of_rows.values())) for name, of_rows in terms)
    yield ""
    yield from table
    yield ""
    first, together = next(iter(LEFT_OUT.items()))
    inside = held(cases, errors[first], together, tuple(errors[name] for name in LEFT_OUT))
    kinds = list(errors)
    yield f"| stack, generation | rows | {' | '.join(kinds)} | inside |"
    yield "|---|---:|" + "---:|" * (len(kinds) + 1)
    for stack, generation in sorted({(c.stack, c.generation) for c in cases}):
        keys = [c.key for c in cases if (c.stack, c.generation) == (stack, generation)]
        cells = " | ".join(spread([errors[kind][k] for k in keys], ", ", 0) for kind in kinds)
        yield f"| {stack}, {generation} | {len(keys)} | {cells} | {share(inside[k] for k in keys)} |"


def _row(name: str, errors: Sequence[float]) -> str:
    return f"| {name} | {len(errors)} | {spread(errors)} | {math.exp(median(errors)):.2f} |"


def _short(value: float) -> float:
    return float(f"{value:.3g}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
