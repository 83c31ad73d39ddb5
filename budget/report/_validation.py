"""A comparison of predicted with measured times as an Answer: errors by group, all records, two plots."""

from __future__ import annotations

from collections.abc import Sequence

from ..device import Device
from ..device.kernel_class import Profile
from ..measured.validation import Row, summaries
from ..named import Any
from ._answer import Answer, Column, Table
from ._figures import measured_against_predicted, roofline
from ._units import seconds

SCHEMA = "budget.validate/1"
ERRORS = (
    Column("name", ""),
    Column("number", "n"),
    Column("median", "median", "{:.1%}".format),
    Column("p90", "90 %", "{:.1%}".format),
    Column("bias", "bias", "{:+.1%}".format),
    Column("coverage", "inside", "{:.0%}".format),
)
LINE = (
    Column("case", ""),
    Column("measured_s", "measured", seconds),
    Column("predicted_s", "predicted", seconds),
    Column("error", "error", "{:+.1%}".format),
    Column("interval_s", "90 % interval", lambda span: f"{seconds(span[0])} to {seconds(span[1])}"),
    Column("inside", "", lambda inside: "" if inside else "outside"),
)
RECORD = (
    Column("suite", "suite"),
    Column("case", "case"),
    Column("implementation", "by"),
    Column("measured_s", "measured", seconds),
    Column("predicted_s", "predicted", seconds),
    Column("low_s", "low", seconds),
    Column("high_s", "high", seconds),
    Column("error", "error", "{:+.1%}".format),
    Column("inside", "inside", lambda inside: "yes" if inside else "no"),
)


def answer(rows: Sequence[Row], device: Device, profile: Profile, *, every: bool = False) -> Answer:
    """The prediction errors on a device. every: the table lists all records, not only the networks."""
    method = sorted({str(r.record.info.get("method", "unknown")) for r in rows})
    return Answer(
        data=lambda: data(rows, device, profile),
        records=lambda: Table(RECORD, [_record(r) for r in rows], "Every measurement"),
        text=lambda: f"{device.name}: {len(rows)} measurements that calibration has not seen",
        tables=lambda: _tables(rows, every=every),
        foot=f"times {profile.summary}; measured by {', '.join(method)}",
        pictures=lambda: (measured_against_predicted(rows), roofline(rows, device)),
    )


def together(answers: Sequence[Answer]) -> Answer:
    """The answers of several devices as one, whose JSON is a list; a single answer stays as it is."""
    if len(answers) == 1:
        return answers[0]
    return Answer(
        data=lambda: [a.data() for a in answers],
        records=lambda: _stacked([a.records() for a in answers]),
        text=lambda: "\n".join(a.text() for a in answers),
        tables=lambda: [
            t._replace(columns=(t.columns[0]._replace(heading=a.text().partition(":")[0]), *t.columns[1:]))
            for a in answers
            for t in a.tables()
        ],
        foot="; ".join(dict.fromkeys(a.foot for a in answers)),
        pictures=lambda: [p for a in answers for p in a.pictures()],
    )


def _stacked(tables: Sequence[Table]) -> Table:
    return tables[0]._replace(rows=[row for t in tables for row in t.rows])


def _tables(rows: Sequence[Row], *, every: bool) -> list[Table]:
    shown = [r for r in rows if every or r.record.is_network]
    lines = [
        (r.record.case, r.record.seconds, r.predicted, r.error, (r.low, r.high), r.inside) for r in shown
    ]
    errors = Table(ERRORS, summaries(rows), "Errors")
    return [errors, Table(LINE, lines, "Measured and predicted")] if shown else [errors]


def _record(r: Row) -> tuple[Any, ...]:
    m = r.record
    return (
        m.suite, m.case, m.implementation, m.seconds, r.predicted, r.low, r.high, r.error, r.inside
    )  # fmt: skip


def data(rows: Sequence[Row], device: Device, profile: Profile) -> dict[str, Any]:
    """The JSON of `budget validate`."""
    keys = [c.key for c in RECORD]
    return {
        "schema": SCHEMA,
        "device": device.name,
        "profile": profile.provenance,
        "summary": [s.to_dict() for s in summaries(rows)],
        "records": [dict(zip(keys, _record(r), strict=True)) for r in rows],
    }
