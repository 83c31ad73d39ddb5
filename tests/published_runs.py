"""Whole training runs as they were reported, and what budget says of the same set-up.

    python tests/published_runs.py --write     make its section of docs/accuracy.md, and utilisation.json

tests/data/published_runs.csv has the set-ups and the reports. Three kinds of figures: arithmetic (hours x
power x PUE x grid, hours x price), which must agree to the digits that are printed; compute, as 6 N D; and
device-hours predicted from parameters, tokens and device alone, by what `budget scale` knows of one device.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import budget
from budget import device
from budget.runs import cost
from budget.scaling.utilisation import one_device

DATA = Path(__file__).parent / "data/published_runs.csv"
PAGE = Path(__file__).parents[1] / "docs/accuracy.md"
BEGIN, END = "<!-- runs: tests/published_runs.py --write writes this -->", "<!-- runs end -->"
HEAD = """## Whole runs against what was reported

`python tests/published_runs.py --write` writes this, tests/test_published_runs.py holds it; addresses are in
tests/data/published_runs.csv. Gopher's own count is a quarter above 6 N D. MosaicML's table of what GPT-3's
quality costs was not at hand, its sum was: ours is `budget scale` with its size, tokens and price, and the
run is no row of the ratios below. `rent` is what Cottier et al. say the run cost to rent at the time; ours is
today's median price times the reported hours.
"""


LOST = """The predicted hours know one device: no communication, no pipeline, no restarts. The reported ones
are {low:g} to {high:g} times as many (median {median:g}), {inside} of {all} within the interval.
`budget scale` divides by that where a plan needs many devices, and says so; the same runs made the number,
so they are no test of it."""


class Check(NamedTuple):
    """A reported figure and ours. low, high: of a prediction; equal to `ours` for arithmetic."""

    run: str
    quantity: str
    reported: float
    ours: float
    low: float
    high: float


def rows() -> list[dict[str, Any]]:
    """The table, numbers as numbers; what is not reported is absent."""
    with DATA.open(encoding="utf-8", newline="") as file:
        return [{k: _value(k, v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def _value(name: str, text: str) -> Any:
    return text if name in ("run", "device", "dtype", "source", "confidence", "reported_mfu") else float(text)


def checks(row: dict[str, Any]) -> Iterator[Check]:
    """Everything that one run's row allows to check."""
    run = row["run"]
    if "hours" in row and ("power_w" in row or "usd_per_hour" in row):
        named = {"price": "usd_per_hour", "power": "power_w", "pue": "pue", "grid": "g_per_kwh"}
        given = {k: row[v] for k, v in named.items() if v in row}
        bill = cost.bill(cost.terms(device.load(row["device"]), **given), row["hours"])
        ours = {"mwh": (bill.kwh or 0) / 1000, "tco2": (bill.co2_kg or 0) / 1000, "usd": bill.usd}
        for name, value in ours.items():
            if name in row:
                yield Check(run, name, row[name], value, value, value)
    if "params" in row and "flops" in row:
        flops = 6 * row["params"] * row["tokens"]
        yield Check(run, "flops", row["flops"], flops, flops, flops)
    if "rent_usd" in row:
        price = cost.terms(device.load(row["device"])).price
        ours = (row["hours"] * dollars for dollars in (price.value, price.low, price.high))
        yield Check(run, "rent", row["rent_usd"], *ours)
    if "params" in row and "hours" in row and "its own" not in run:
        yield Check(run, "hours", row["hours"], *predicted_hours(row))
    if "usd" in row and "hours" not in row:
        paid = budget.scale(**_setup(row), price=row["usd_per_hour"]).bill
        yield Check(run, "usd", row["usd"], paid.usd or 0, paid.usd_low or 0, paid.usd_high or 0)


def predicted_hours(row: dict[str, Any]) -> tuple[float, float, float]:
    """Device-hours by what is known of one device: the expected, the fewest, the most."""
    plan = budget.scale(**_setup(row))
    one = one_device(plan.network)
    hours = [plan.compute / plan.rate(mfu) / 3600 for mfu in (one.value, one.high, one.low)]
    return hours[0], hours[1], hours[2]


def _setup(row: dict[str, Any]) -> dict[str, Any]:
    return {k: row[k] for k in ("params", "tokens", "device", "dtype") if k in row}


def average_mfu(row: dict[str, Any]) -> float:
    """What the reported hours come to, of 6 N D: stops, restarts and other phases included."""
    peak = device.load(row["device"]).rate(row.get("dtype", "bf16"))
    return 6 * row["params"] * row["tokens"] / (row["hours"] * 3600 * peak)


def utilisation(found: list[Check]) -> dict[str, Any]:
    """How many times longer whole runs took: budget/data/utilisation.json's numbers."""
    ratios = sorted(c.reported / c.ours for c in found if c.quantity == "hours")
    names = {"median": ratios[len(ratios) // 2], "low": ratios[0], "high": ratios[-1]}
    return {**{k: round(v, 2) for k, v in names.items()}, "runs": len(ratios)}


def write() -> None:
    """Put the numbers into budget's data."""
    path = Path(budget.__file__).parent / "data/utilisation.json"
    now = json.loads(path.read_text("utf-8"))
    now.update(utilisation([c for row in rows() for c in checks(row)]))
    path.write_text(json.dumps(now, indent=2) + "\n", "utf-8")
    text = PAGE.read_text("utf-8")
    before, rest = text.split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{section()}\n\n{END}{rest.split(END)[1]}", "utf-8")


def section() -> str:
    """The text of docs/accuracy.md."""
    table = rows()
    found = [c for row in table for c in checks(row)]
    lines = [HEAD, "| run | figure | reported | ours | off |", "|---|---|---|---|---|"]
    lines += [
        f"| {c.run} | {c.quantity} | {c.reported:,.6g} | {c.ours:,.4g} | {c.ours / c.reported - 1:+.1%} |"
        for c in found
        if c.quantity != "hours"
    ]
    lines += ["", "| run | device-hours reported | predicted | average MFU of 6 N D |", "|---|---|---|---|"]
    by = {row["run"]: row for row in table}
    hours = [c for c in found if c.quantity == "hours"]
    lines += [
        f"| {c.run} | {c.reported:,.0f} | {c.ours:,.0f} ({c.low:,.0f} to {c.high:,.0f}) | "
        f"{average_mfu(by[c.run]):.0%} |"
        for c in hours
    ]
    lost = utilisation(found)
    inside = sum(c.low <= c.reported <= c.high for c in hours)
    return "\n".join([*lines, "", LOST.format(**lost, inside=inside, all=len(hours))])


if __name__ == "__main__":
    if "--write" in sys.argv:
        write()
    else:
        print(section())
