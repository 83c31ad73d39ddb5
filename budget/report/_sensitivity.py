"""Which input moves a plan most, as an Answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..named import Any
from ..scaling.chain import Plan
from ..scaling.levers import OUTCOMES, Moved, Sensitivity
from ._answer import Answer, Column, Table
from ._units import count, times

SCHEMA = "budget.sensitivity/1"
STILL = 1e-9  # a change below it is rounding


def answer(sensitivity: Sensitivity) -> Answer:
    """The sensitivity for every format."""
    table = _table(sensitivity)
    return Answer(
        data=lambda: data(sensitivity),
        records=lambda: _records(sensitivity),
        text=lambda: "\n".join(_text(sensitivity)),
        tables=lambda: (table,),
        foot="one input at a time, from end to end of what is known of it; factors of the plan's own values",
    )


def data(sensitivity: Sensitivity) -> dict[str, Any]:
    """The JSON object: factors at the low and the high end of each input."""
    return {
        "schema": SCHEMA,
        "plan": sensitivity.base.to_dict(),
        "inputs": [
            {
                "input": m.input,
                "low": m.low,
                "high": m.high,
                "what": m.what,
                **{name: m.factors(name, sensitivity.base) for name in OUTCOMES},
                "loss": [p.loss for p in m.plans],
            }
            for m in sensitivity.moved
        ],
    }


def _text(sensitivity: Sensitivity) -> Iterator[str]:
    plan = sensitivity.base
    yield f"{count(plan.params)} parameters on {count(plan.tokens)} tokens, {plan.ask.device.name}"
    if sensitivity.moved:
        first = sensitivity.moved[0]
        yield f"moved most by {first.input} ({times(first.low)} to {times(first.high)}); here {first.what}"
    ends = plan.loss_ends
    if plan.loss is not None and ends:
        yield f"loss {plan.loss:.3f} ({ends[0]:.3f} to {ends[1]:.3f} for the law's constants and the MFU)"


def _records(sensitivity: Sensitivity) -> Table:
    """What the table has, a number a cell."""
    outcomes = [*OUTCOMES, "loss"]
    columns = [Column(f"{name}_{end}", name) for name in outcomes for end in ("low", "high")]
    rows = [
        (
            *(m.input, m.low, m.high),
            *(factor for name in OUTCOMES for factor in m.factors(name, sensitivity.base) or (None, None)),
            *(p.loss for p in m.plans),
        )
        for m in sensitivity.moved
    ]
    return Table([Column("input", "input"), Column("low", "from"), Column("high", "to"), *columns], rows)


def _table(sensitivity: Sensitivity) -> Table:
    moving = [name for name in OUTCOMES if any(_moves(m, name, sensitivity.base) for m in sensitivity.moved)]
    rows = [
        (
            m.input,
            m.low,
            m.high,
            *(m.factors(name, sensitivity.base) for name in moving),
            [p.loss for p in m.plans],
        )
        for m in sensitivity.moved
    ]
    columns = (
        Column("input", "input"),
        Column("low", "from", times),
        Column("high", "to", times),
        *(Column(name, name, _factors) for name in moving),
        Column("loss", "loss", _losses),
    )
    return Table(columns, rows)


def _moves(m: Moved, name: str, base: Plan) -> bool:
    return any(abs(f - 1) > STILL for f in m.factors(name, base) or ())


def _factors(ends: tuple[float, float] | None) -> str:
    if ends is None or all(abs(f - 1) <= STILL for f in ends):
        return ""
    return f"{ends[0]:.2g} to {ends[1]:.2g}"


def _losses(ends: Sequence[float | None]) -> str:
    low, high = ends
    return "" if low is None or high is None or low == high else f"{low:.3f} to {high:.3f}"
