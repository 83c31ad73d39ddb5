"""Predictions of every row of a published table: `python -m budget.bench.published TABLE.csv`."""

# bench/README.md says which file does what on a row's way to its prediction.
from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator

from budget.errors import InputError
from budget.named import Any

from .predict import Predicted, predict, summary
from .table import read

SCHEMA = "budget.published/1"


def main(argv: list[str]) -> int:
    """The exit status: 2 for a table that cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m budget.bench.published", description=__doc__)
    parser.add_argument("table", metavar="TABLE.csv")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    options = parser.parse_args(argv)
    try:
        kind, rows = read(options.table)
    except InputError as error:
        print(f"published: {error}", file=sys.stderr)
        return 2
    predicted = [p for row in rows for p in predict(kind, row)]
    if options.format == "json":
        answer = {"schema": SCHEMA, "rows": list(map(_record, predicted)), "summary": summary(predicted)}
        print(json.dumps(answer, indent=1))
    else:
        print("\n".join(_lines(predicted)))
    return 0


def _record(p: Predicted) -> dict[str, Any]:
    if p.asked is None:
        return {"id": p.row["id"], "why_not": p.why_not}
    a = p.asked
    known = {"id": p.row["id"], "quantity": a.quantity, "unit": a.unit, "measured": a.measured}
    return {**known, "predicted": p.predicted, "low": p.low, "high": p.high, "stack": p.stack}


def _lines(predicted: list[Predicted]) -> Iterator[str]:
    for p in predicted:
        if p.asked is None:
            yield f"{p.row['id'][:18]:<19}{p.why_not[:60]}"
            continue
        a = p.asked
        measured = f"{a.measured:11.4g}" if a.measured is not None else " " * 11
        error = f"{p.error:+7.1%}" if p.error is not None else ""
        yield f"{p.row['id'][:18]:<19}{a.quantity:<14}{measured}{p.predicted:11.4g} {error}  {p.stack}"
    covered = sum(p.asked is not None for p in predicted)
    yield f"\n{covered} predictions; {len(predicted) - covered} rows are not covered\n"
    yield f"{'stack':<20}{'quantity':<15}{'rows':>5}{'median':>9}{'p90':>9}{'ratio':>8}{'inside':>8}"
    for s in summary(predicted):
        shares = f"{s['median_error']:9.1%}{s['p90_error']:9.1%}{s['median_ratio']:8.2f}"
        shares += f"{s['inside']:8.0%}" if s["inside"] is not None else ""
        yield f"{s['stack']:<20}{s['quantity']:<15}{s['rows']:5}{shares}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
