"""A fitted law as an Answer: its constants with intervals, its outliers, what to think of it."""

from __future__ import annotations

from collections.abc import Iterator

from ..law import USUAL, _fit, load
from ..law._fit import Fit, Runs
from ..named import Any
from ..scaling.fitted import FittedLaw
from ._answer import Answer, Column, Table


def answer(fitted: FittedLaw) -> Answer:
    """The fit of some runs."""
    path, runs, fit, dropped = fitted
    table = constants(fit)
    return Answer(
        data=lambda: data(path, runs, fit, dropped),
        records=lambda: table,
        text=lambda: "\n".join(_text(path, runs, fit, dropped)),
        tables=lambda: (table, *(_outliers(fit) if fit.outliers else ())),
        foot="\n".join(_foot(runs, fit)),
    )


def data(path: str, runs: Runs, fit: Fit, dropped: tuple[int, ...]) -> dict[str, Any]:
    """The JSON, which `budget scale --law FILE` reads."""
    return {
        **_fit.about(runs, fit, path),
        "intervals": {k: list(ends) for k, ends in fit.intervals().items()},
        "errors": fit.errors(),
        "least_absolute": fit.absolute,
        "spread": fit.spread,
        "outliers": [o._asdict() for o in fit.outliers],
        "dropped": list(dropped),
        "warnings": list(_warnings(runs, fit)),
    }


def constants(fit: Fit) -> Table:
    """One row a constant: fitted, its 90 % interval, its standard error, by least absolute deviations."""
    intervals, errors = fit.intervals(), fit.errors()
    rows = [
        (k, v, *intervals.get(k, (None, None)), errors.get(k), fit.absolute[k])
        for k, v in fit.constants.items()
    ]
    columns = (
        Column("constant", "constant"),
        Column("value", "value", number),
        Column("low", "low", number),
        Column("high", "high", number),
        Column("error", "std error", number),
        Column("least_absolute", "least absolute", number),
    )
    return Table(columns, rows, "Constants")


def number(value: float | None) -> str:
    """Six digits, or nothing."""
    return "" if value is None else f"{value:,.6g}"


def _outliers(fit: Fit) -> tuple[Table]:
    columns = (
        Column("row", "row"),
        Column("off", "loss off by", "{:+.1%}".format),
        Column("sigmas", "sigmas", "{:.1f}".format),
    )
    rows = [tuple(o) for o in fit.outliers]
    return (Table(columns, [(str(row), *rest) for row, *rest in rows], "Outliers"),)


def _text(path: str, runs: Runs, fit: Fit, dropped: tuple[int, ...]) -> Iterator[str]:
    yield "loss = E + A / params^alpha + B / tokens^beta"
    rows = f", without rows {', '.join(map(str, dropped))}" if dropped else ""
    yield f"{len(runs.rows)} runs of {path}{rows}; they lie {fit.spread:.2%} around the curve (rms)"


def _foot(runs: Runs, fit: Fit) -> Iterator[str]:
    if fit.draws:
        samples = len(fit.draws["E"])
        yield f"low to high: 90 % of {samples:,} bootstrap samples; constants depend on each other"
    yield "Huber's loss (delta 1e-3) on ln(loss); least absolute: the same with delta -> 0"
    usual = load(USUAL)
    yield f"beside it: {usual.about['name']}: " + ", ".join(f"{k} {v:g}" for k, v in usual.constants.items())
    yield from (f"warning: {text}" for text in _warnings(runs, fit))


def _warnings(runs: Runs, fit: Fit) -> Iterator[str]:
    if len(runs.rows) < _fit.FEW:
        yield f"{len(runs.rows)} runs are few: below {_fit.FEW} the exponents are hardly known"
    for k in ("alpha", "beta"):
        if not 0 < fit.constants[k] < 2:
            yield f"{k} {fit.constants[k]:.3g} is no power law's: the runs do not show how the loss falls"
    if fit.outliers:
        rows = ", ".join(str(o.row) for o in fit.outliers)
        yield f"rows {rows} lie {_fit.SIGMAS:g} sigmas or more off; where a run went wrong: --drop"
