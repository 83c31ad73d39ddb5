"""Markdown: the summary as a code block, then tables."""

from __future__ import annotations

from ._answer import Answer, Table


def render(answer: Answer) -> str:
    """The answer's text, tables and last paragraph. Raises InputError for an estimate of arrays."""
    parts = [_fenced(answer.text()), *map(_table, answer.tables()), answer.foot]
    return "\n\n".join(filter(None, parts))


def _table(table: Table) -> str:
    from tabulate import tabulate

    if table.lines:
        return _fenced("\n".join(table.lines()))
    headings = [c.heading for c in table.columns]
    align = ("left", *["right"] * (len(headings) - 1))
    return str(tabulate(table.cells(), headings, "github", disable_numparse=True, colalign=align))


def _fenced(text: str) -> str:
    return f"```text\n{text}\n```" if text else ""
