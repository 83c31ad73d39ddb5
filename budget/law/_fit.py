"""A law's constants from runs: E + A / N^alpha + B / D^beta by robust least squares of ln(loss).

As in Hoffmann et al., with a log-sum-exp of three terms and Huber's loss. They use L-BFGS from a grid of
starts; here it is a trust-region Gauss-Newton from the best ten of the grid. Sources: hoffmann-2022,
besiroglu-2024.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product

from .. import quantity
from ..errors import InputError, as_path
from ..named import Any, NamedTuple
from . import HIGH, LOW
from .additive import CONSTANTS

COLUMNS = ("params", "tokens", "loss")
LEAST, FEW, MOST = 6, 20, 10_000  # points: below the first no fit, below the second a warning
HUBER = 1e-3  # of a residual of ln(loss): Hoffmann et al.'s. Source: hoffmann-2022
SIGMAS = 5.0  # robust standard deviations from which a point is called an outlier; a convention
# Starts: the terms' shares of the lowest loss, and exponents, in all combinations; units do not matter.
SHARES = ((0.05, 0.3, 0.6, 0.9), (0.05, 0.2, 0.6), (0.05, 0.2, 0.6))
EXPONENTS = (0.1, 0.3, 0.5, 0.8, 1.2)
STARTS = 10


class Runs(NamedTuple):
    """Finished trainings: arrays of parameters, tokens and loss, and the row of the file of each."""

    params: Any
    tokens: Any
    loss: Any
    rows: tuple[int, ...]

    def without(self, rows: Sequence[int]) -> Runs:
        """The runs without some of them, by index."""
        kept = [i for i, row in enumerate(self.rows) if row not in rows]
        return Runs(self.params[kept], self.tokens[kept], self.loss[kept], tuple(self.rows[i] for i in kept))


class Outlier(NamedTuple):
    """A run far from the curve. off: its loss over the curve's, less 1; sigmas: that in robust deviations."""

    row: int
    off: float
    sigmas: float


class Fit(NamedTuple):
    """Constants, the same for least absolute deviations, and for each bootstrap sample."""

    constants: dict[str, float]
    absolute: dict[str, float]
    draws: dict[str, list[float]]
    outliers: tuple[Outlier, ...]
    spread: float  # the root mean square of ln(loss) around the curve

    def intervals(self) -> dict[str, tuple[float, float]]:
        """90 % of the bootstrap samples, by constant."""
        return {k: _ends(sorted(values)) for k, values in self.draws.items()}

    def errors(self) -> dict[str, float]:
        """The bootstrap samples' standard deviation, by constant."""
        import numpy as np

        return {k: float(np.std(values, ddof=1)) for k, values in self.draws.items()}


def _ends(values: Sequence[float]) -> tuple[float, float]:
    return values[round(LOW * (len(values) - 1))], values[round(HIGH * (len(values) - 1))]


def read(path: str) -> Runs:
    """Runs of a CSV file: columns params, tokens, loss. Raises InputError that names row and column."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file)
            rows, names = list(table), table.fieldnames or ()
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            "runs", f"cannot read {as_path(path)}: {getattr(error, 'strerror', error)}"
        ) from None
    missing = [c for c in COLUMNS if c not in names]
    if missing:
        raise InputError("runs", f"no column {', '.join(missing)}; allowed: columns {', '.join(COLUMNS)}")
    if not LEAST <= len(rows) <= MOST:
        raise InputError("runs", f"got {len(rows)} runs; allowed: from {LEAST} to {MOST:,}")
    return runs({c: [_value(row[c], i, c) for i, row in enumerate(rows, 2)] for c in COLUMNS})


def _value(text: object, row: int, column: str) -> float:
    """A number, or a count as people write it (70B). Raises InputError."""
    try:
        return quantity.read(column, text, quantity.PLAIN if column == "loss" else quantity.COUNT)
    except InputError as error:
        raise InputError("runs", f"row {row}, {error}") from None


def runs(columns: Mapping[str, Sequence[float]]) -> Runs:
    """Runs from columns. Raises InputError where they are too few, or all of one size."""
    numpy = _installed()
    arrays = [numpy.asarray(columns[c], "float64") for c in COLUMNS]
    params, tokens, loss = arrays
    return enough(Runs(params, tokens, loss, tuple(range(2, len(params) + 2))))


def enough(some: Runs) -> Runs:
    """The runs, if a curve can be fitted to them. Raises InputError."""
    if len(some.rows) < LEAST:
        raise InputError("runs", f"got {len(some.rows)} runs; allowed: {LEAST} or more")
    for name in COLUMNS:
        if len(set(getattr(some, name).tolist())) < 3:
            raise InputError("runs", f"{name}: fewer than 3 different values say nothing about a curve")
    return some


def _installed() -> Any:
    try:
        import numpy
        import scipy.optimize  # noqa: F401 # so that what is missing is said before any work
    except ImportError:
        raise InputError("fit-law", "SciPy is not installed: pip install 'compute-budget[laws]'") from None
    return numpy


def fit(table: Runs, bootstraps: int = 1000, seed: int = 0) -> Fit:
    """The law of the runs, its outliers, and so many bootstrap samples."""
    import numpy as np

    n, d, loss = (np.log(x) for x in (table.params, table.tokens, table.loss))
    n0, d0 = float(np.median(n)), float(np.median(d))  # centred, the terms hardly depend on each other
    data = (n - n0, d - d0, loss)
    best = min((_solve(data, start, HUBER) for start in _starts(data)), key=lambda x: x.cost).x
    absolute = _least_absolute(data, best)
    off = loss - _curve(absolute, *data[:2])[0]
    # The curve of least absolute errors goes through as many runs as it has constants; with few runs their
    # errors of 0 would make the deviation too small. Derived.
    on = len(CONSTANTS) if len(table.rows) < FEW else 0
    sigma = max(1.4826 * float(np.median(np.sort(abs(off))[on:])), 1e-12)  # of normal errors. Derived.
    far = [i for i in np.argsort(-abs(off)) if abs(off[i]) > SIGMAS * sigma]
    outliers = tuple(Outlier(table.rows[i], float(np.expm1(off[i])), float(abs(off[i]) / sigma)) for i in far)
    random = np.random.default_rng(seed)
    picks = [random.integers(0, len(n), len(n)) for _ in range(bootstraps)]
    drawn = [_solve(tuple(x[p] for x in data), best, HUBER, most=60).x for p in picks]
    back = partial(_uncentred, n0=n0, d0=d0)
    columns = zip(*(back(x).values() for x in drawn), strict=True)
    draws = {k: list(v) for k, v in zip(CONSTANTS, columns, strict=True)} if drawn else {}
    spread = float(np.sqrt(np.mean((loss - _curve(best, *data[:2])[0]) ** 2)))
    return Fit(back(best), back(absolute), draws, outliers, spread)


def _curve(x: Any, n: Any, d: Any) -> tuple[Any, Any]:
    """ln of the three terms' sum at the points, and the terms' shares of it."""
    import numpy as np

    e, a, b, alpha, beta = x
    terms = np.stack([np.full_like(n, e), a - alpha * n, b - beta * d])
    highest = terms.max(axis=0)
    powers = np.exp(terms - highest)
    total = powers.sum(axis=0)
    return highest + np.log(total), powers / total


def _solve(data: tuple[Any, ...], start: Any, delta: float, most: int = 400) -> Any:
    """The nearest minimum of Huber's loss."""
    from scipy.optimize import least_squares

    how = {"loss": "huber", "f_scale": delta, "x_scale": "jac", "max_nfev": most}
    ends = {"xtol": 1e-12, "ftol": 1e-12, "gtol": 1e-12}
    return least_squares(_off, start, _slope, args=data, **how, **ends)


def _off(x: Any, n: Any, d: Any, loss: Any) -> Any:
    return _curve(x, n, d)[0] - loss


def _slope(x: Any, n: Any, d: Any, _: Any) -> Any:
    import numpy as np

    share = _curve(x, n, d)[1]
    return np.stack([share[0], share[1], share[2], -share[1] * n, -share[2] * d], axis=1)


def _least_absolute(data: tuple[Any, ...], x: Any) -> Any:
    """Huber's loss for delta -> 0, by linear programs in a box that shrinks where they do not help."""
    import numpy as np
    from scipy.optimize import linprog
    from scipy.sparse import bmat, identity

    box, eye = 0.05, identity(len(data[0]))
    weights = np.concatenate([np.zeros(len(x)), np.ones(len(data[0]))])
    while box > 1e-8:
        off, slope = _off(x, *data), _slope(x, *data)
        above = bmat([[slope, -eye], [-slope, -eye]], format="csr")  # |off + slope step| <= the rest of a row
        bounds = [(-box, box)] * len(x) + [(0, None)] * len(off)
        step = linprog(weights, above, np.concatenate([-off, off]), bounds=bounds).x[: len(x)]
        gain = np.abs(off).sum() - np.abs(_off(x + step, *data)).sum()
        x = x + step if gain > 0 else x
        box = box if gain > 1e-9 else box / 4
    return x


def _starts(data: tuple[Any, ...]) -> list[Any]:
    """The ten points of the grid with the least cost."""
    import numpy as np

    n, d, loss = data
    grid = [
        [*(np.log(shares) + loss.min()), alpha, beta]
        for shares in product(*SHARES)
        for alpha, beta in product(EXPONENTS, EXPONENTS)
    ]
    return sorted(grid, key=lambda x: float(np.abs(_curve(x, n, d)[0] - loss).sum()))[:STARTS]


def _uncentred(x: Any, n0: float, d0: float) -> dict[str, float]:
    import numpy as np

    e, a, b, alpha, beta = x
    values = (np.exp(e), np.exp(a + alpha * n0), np.exp(b + beta * d0), alpha, beta)
    return {k: float(v) for k, v in zip(CONSTANTS, values, strict=True)}


def about(table: Runs, result: Fit, path: str) -> dict[str, Any]:
    """The fit as a law's file: what `budget scale --law` reads."""
    compute = 6 * table.params * table.tokens
    sizes = {"params": table.params, "tokens": table.tokens, "compute": compute}
    return {
        "schema": "budget.law/1",
        "name": f"fitted to {path}",
        "form": "additive",
        "points": len(table.rows),
        "constants": result.constants,
        "range": {k: [float(v.min()), float(v.max())] for k, v in sizes.items()},
        "draws": result.draws,
    }
