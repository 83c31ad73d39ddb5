"""Predicted against measured as text, JSON, or one HTML file with figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from json import dumps

from ..device import Device
from ..form import Profile
from ..validation import Row, Summary, summaries
from ._figures import measured_against_predicted, roofline
from ._units import seconds
from .table import fold

SCHEMA = "budget.validate/1"
HEAD = ("", "n", "median", "90 %", "bias", "inside")


def table(found: Sequence[Row], device: Device, profile: Profile, *, every: bool = False) -> str:
    """Plain text of at most 80 columns: errors by group, then the networks or every record."""
    from tabulate import tabulate

    def text(cells: Sequence[Sequence[str]], head: Sequence[str]) -> str:
        align = ("left", *["right"] * (len(head) - 1))
        return str(tabulate(cells, head, tablefmt="plain", disable_numparse=True, colalign=align))

    shown = [r for r in found if every or r.record.is_network]
    parts = ["\n".join(fold(_headline(found, device))), text([_cells(s) for s in summaries(found)], HEAD)]
    if shown:
        head = ("", "measured", "predicted", "error", "90 % interval", "")
        parts.append(text([_line(r) for r in shown], head))
    parts.append("\n".join(fold(_caveat(profile, found))))
    return "\n\n".join(parts)


def _headline(found: Sequence[Row], device: Device) -> str:
    return f"{device.name}: {len(found)} measurements that calibration has not seen"


def _caveat(profile: Profile, found: Sequence[Row]) -> str:
    method = sorted({str(r.record.info.get("method", "unknown")) for r in found})
    return f"times {profile.summary}; measured by {', '.join(method)}"


def _cells(s: Summary) -> list[str]:
    return [s.name, str(s.number), f"{s.median:.1%}", f"{s.p90:.1%}", f"{s.bias:+.1%}", f"{s.coverage:.0%}"]


def _line(r: Row) -> list[str]:
    span = f"{seconds(r.low)} to {seconds(r.high)}"
    inside = "" if r.inside else "outside"
    return [r.record.case, seconds(r.record.seconds), seconds(r.predicted), f"{r.error:+.1%}", span, inside]


def json(found: Sequence[Row], device: Device, profile: Profile) -> str:
    """Everything, raw numbers."""
    entries = [
        {
            "suite": r.record.suite, "case": r.record.case, "implementation": r.record.implementation,
            "measured_s": r.record.seconds, "predicted_s": r.predicted, "low_s": r.low, "high_s": r.high,
            "error": r.error, "inside": r.inside,
        }
        for r in found
    ]  # fmt: skip
    answer = {
        "schema": SCHEMA, "device": device.name, "profile": profile.provenance,
        "summary": [s.to_dict() for s in summaries(found)], "records": entries,
    }  # fmt: skip
    return dumps(answer, indent=1)


def html(found: Sequence[Row], device: Device, profile: Profile) -> str:
    """One file that needs no other: two figures and all rows."""
    title = f"Predicted and measured: {device.name}"
    sections = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(_headline(found, device))}; {escape(_caveat(profile, found))}.</p>",
        f"<h2>Predicted against measured</h2>{measured_against_predicted(found)}",
        f"<h2>Roofline</h2>{roofline(found, device)}",
        f"<h2>Errors</h2>{_html_table(HEAD, [_cells(s) for s in summaries(found)])}",
        "<h2>Every measurement</h2>",
        _html_table(("", "measured", "predicted", "error", "90 % interval", ""), [_line(r) for r in found]),
    ]
    return PAGE.format(title=escape(title), body="\n".join(sections))


def _html_table(head: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(h)}</th>" for h in head)
    body = "\n".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in cells)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width">
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff; }}
table {{ border-collapse: collapse; }} td, th {{ padding: .15rem .7rem; text-align: right; }}
td:first-child, th:first-child {{ text-align: left; }} tbody tr:nth-child(odd) {{ background: #f4f4f4; }}
svg {{ width: 100%; height: auto; }} svg text {{ font: 12px system-ui, sans-serif; fill: #222; }}
</style></head><body>
{body}
</body></html>"""

FORMATS: Mapping[str, Callable[[Sequence[Row], Device, Profile], str]] = {
    "table": table,
    "json": json,
    "html": html,
}
