"""HTML: a self-contained page with plots, tables and all records."""

from __future__ import annotations

from html import escape

from ._answer import Answer, Table
from .svg import drawn


def render(answer: Answer) -> str:
    """The page. Raises InputError for an estimate of arrays."""
    title = answer.text().partition("\n")[0] or "compute-budget"
    return PAGE.format(title=escape(title), body=body(answer))


def body(answer: Answer) -> str:
    """What stands on the page: the text, pictures and tables; all of what a notebook shows."""
    text, records = answer.text(), answer.records()
    pictures = [*drawn(answer), *answer.pictures()]
    tables = [t for t in answer.tables() if t.columns != records.columns]
    parts = [
        f"<pre>{escape(text)}</pre>" if text else "",
        f"<p>{escape(answer.foot)}</p>" if answer.foot else "",
        *(f'<div class="wide">{one}</div>' for one in (*pictures, *map(_table, tables), _table(records))),
    ]
    return "\n".join(filter(None, parts))


def _table(table: Table) -> str:
    top = "".join(f"<th>{escape(c.heading)}</th>" for c in table.columns)
    rows = "\n".join(
        "<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in table.cells()
    )
    title = f"<h2>{escape(table.title)}</h2>\n" if table.title else ""
    return f"{title}<table><thead><tr>{top}</tr></thead><tbody>{rows}</tbody></table>"


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width">
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff; }}
table {{ border-collapse: collapse; }} td, th {{ padding: .15rem .7rem; text-align: right; }}
td:first-child, th:first-child {{ text-align: left; }} tbody tr:nth-child(odd) {{ background: #f4f4f4; }}
svg {{ width: 100%; min-width: 40rem; height: auto; }} .wide {{ overflow-x: auto; }}
@media (prefers-color-scheme: dark) {{ body {{ color: #e6edf3; background: #0d1117; }}
  tbody tr:nth-child(odd) {{ background: #161b22; }} }}
</style></head><body>
{body}
</body></html>"""
