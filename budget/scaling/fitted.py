"""A scaling law from one's own runs, as an answer that prints and that `budget.scale` takes."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..answer.face import Shown
from ..config import size
from ..errors import InputError, wrong
from ..law import Law, _fit, from_table
from ..law._fit import Fit, Runs
from ..named import Any, NamedTuple

MOST = 100_000  # bootstrap samples


class _Fitted(NamedTuple):
    source: str  # the file, or "your runs"
    runs: Runs
    fit: Fit
    dropped: tuple[int, ...] = ()


class FittedLaw(Shown, _Fitted):
    """The answer of `budget fit-law`: loss = E + A / params^alpha + B / tokens^beta."""

    report = "_law"

    @property
    def constants(self) -> dict[str, float]:
        """E, A, B, alpha and beta."""
        return self.fit.constants

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """90 % of the bootstrap samples, by constant."""
        return self.fit.intervals()

    @property
    def law(self) -> Law:
        """What answers of a loss and of an optimum: `.law.loss(7e9, 2e12)`, `.law.optimum(1e24)`."""
        return from_table(self.source, _fit.about(self.runs, self.fit, self.source))

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of `budget fit-law`."""
        data: dict[str, Any] = self._as("dict")
        return data

    def __repr__(self) -> str:
        return f"FittedLaw({self.source}, {len(self.runs.rows)} runs)"


def fit_law(runs: Any, *, drop: Sequence[int] = (), bootstrap: int = 1000) -> FittedLaw:
    """A scaling law from at least six finished runs, with intervals and outliers.

    found = budget.fit_law("runs.csv"); budget.scale(compute=1e23, law=found)

    runs: a CSV file, or a table (a dict of lists, a DataFrame), with columns params, tokens and loss (nats a
    token). drop: rows to leave out, as outliers are called: those of the file, whose header is row 1.
    bootstrap: samples that the intervals are of. Raises InputError.
    """
    if isinstance(runs, str | os.PathLike):
        source, table = os.fspath(runs), _fit.read(os.fspath(runs))
    else:
        source, table = "your runs", _fit.runs(_columns(runs))
    if (samples := size("bootstrap", bootstrap)) > MOST:
        raise InputError("bootstrap", f"got {samples:,}; allowed: whole numbers from 1 to {MOST:,}")
    for row in drop:
        if row not in table.rows:
            raise wrong("drop", row, f"rows from 2 to {table.rows[-1]}")
    table = _fit.enough(table.without(tuple(drop)))
    return FittedLaw(source, table, _fit.fit(table, samples), tuple(drop))


def _columns(runs: Any) -> dict[str, list[float]]:
    """The columns of a table, checked. Raises InputError."""
    try:
        columns = {name: [float(x) for x in runs[name]] for name in _fit.COLUMNS}
    except (KeyError, TypeError, ValueError, IndexError):
        allowed = f"a CSV file, or a table with numbers in {', '.join(_fit.COLUMNS)}"
        raise InputError("runs", f"got {type(runs).__name__}; allowed: {allowed}") from None
    if len(set(map(len, columns.values()))) > 1:
        raise InputError("runs", f"columns of {[*map(len, columns.values())]} rows; allowed: of as many each")
    for name, values in columns.items():
        for row, x in enumerate(values, 2):
            if not 0 < x < float("inf"):
                raise InputError("runs", f"row {row}, {name}: got {x:g}; allowed: a number above 0")
    return columns
