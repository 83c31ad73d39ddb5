"""Predictions of published rows: each a sum over estimates, with an interval."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from types import ModuleType

from budget import estimate
from budget.answer import Estimate
from budget.answer.held import kind
from budget.errors import InputError
from budget.measured.validation import p90
from budget.named import Any, NamedTuple

from .rows import Asked, NotCoveredError, Part
from .table import Row


class Predicted(NamedTuple):
    """A row's quantity, measured and predicted, or why there is none."""

    row: Row
    asked: Asked | None
    predicted: float = 0.0
    low: float = 0.0
    high: float = 0.0
    why_not: str = ""
    stack: str = ""
    mode: str = ""  # of answer/held.py's: whether it trains, or serves

    @property
    def error(self) -> float | None:
        """Predicted over measured, less one."""
        known = self.asked is not None and self.asked.measured
        return self.predicted / known - 1 if known else None


def run(part: Part) -> Estimate:
    """The estimate of a part."""
    return estimate(part.model, **part.settings)


def seconds(part: Part, e: Estimate) -> float:
    """The seconds of a part, all of its times."""
    if part.kind:
        return sum(float(k.seconds) for k in e.times.kernels if k.work.kind == part.kind) * part.times
    return (float(getattr(e.times, part.phase or "step")) + part.waits) * part.times


def predict(table: ModuleType, row: Row) -> Iterator[Predicted]:
    """The predictions of a row: one for each quantity that it has."""
    try:
        for a in table.asked(row):
            yield _predict(row, a)
    except NotCoveredError as why:
        yield Predicted(row, None, why_not=str(why))
    except InputError as why:
        yield Predicted(row, None, why_not=f"budget: {why}")


def _predict(row: Row, a: Asked) -> Predicted:
    estimates = [run(part) for part in a.parts]
    stack = estimates[0].stack.name
    if a.of is not None:
        value = float(a.of(estimates))
        low, high = _ends(a, estimates[0])
        mode = kind(estimates[0].task.workload.mode)
        return Predicted(row, a, value, value * low, value * high, stack=stack, mode=mode)
    taken = [seconds(p, e) for p, e in zip(a.parts, estimates, strict=True)]
    time, longest = sum(taken), estimates[taken.index(max(taken))]
    low, high = longest.interval
    if a.work:
        return Predicted(row, a, a.work / time, a.work / (time * high), a.work / (time * low), stack=stack)
    return Predicted(row, a, time, time * low, time * high, stack=stack)


def _ends(a: Asked, e: Estimate) -> tuple[float, float]:
    """The ends of a size's interval, over the size."""
    if not a.size:
        return 1.0, 1.0
    sizes = e.sizes()
    low, high = (sizes[f"{a.size}_{end}"] / sizes[a.size] for end in ("low", "high"))
    return low, high


def summary(predicted: list[Predicted]) -> list[dict[str, Any]]:
    """By software and quantity: rows, median and 90th percentile of the errors, and the share inside."""
    groups: dict[tuple[str, str], list[Predicted]] = {}
    for p in predicted:
        if p.error is not None and p.asked is not None:
            for name in (p.stack, "all"):
                groups.setdefault((name, p.asked.quantity), []).append(p)
    return [_group(name, quantity, rows) for (name, quantity), rows in sorted(groups.items())]


def _group(name: str, quantity: str, rows: list[Predicted]) -> dict[str, Any]:
    errors = [abs(p.error or 0) for p in rows]
    ratios = [1 + (p.error or 0) for p in rows]
    timed = [p for p in rows if p.low < p.high and p.asked]
    inside = sum(p.low <= (p.asked.measured or 0) <= p.high for p in timed if p.asked)
    return {
        "stack": name,
        "quantity": quantity,
        "rows": len(rows),
        "median_error": median(errors),
        "p90_error": p90(errors),
        "median_ratio": median(ratios),
        "inside": inside / len(timed) if timed else None,  # of what has an interval
    }
