"""Plain text, as wide as the terminal, or of 80 columns."""

from __future__ import annotations

from ._answer import Answer, Table
from ._summary import fold
from ._terminal import width


def render(answer: Answer) -> str:
    """The answer's text, tables and last paragraph. Raises InputError for an estimate of arrays."""
    text, foot = ("\n".join(fold(part.splitlines())) for part in (answer.text(), answer.foot))
    parts = [text, *map(plain, answer.tables()), foot]
    return "\n\n".join(filter(None, parts))


def plain(table: Table) -> str:
    """A table in plain text. Where it is too wide, columns come closer, and then long names lose their
    beginning: their ends differ.
    """
    from tabulate import DataRow, TableFormat, tabulate

    if table.lines:
        return "\n".join(table.lines())
    cells = [[c.heading for c in table.columns], *table.cells()]
    others = list(zip(*(row[1:] for row in cells), strict=True))
    left = width() - 1 - sum(max(map(len, column)) for column in others)
    gap = 2 if max(len(row[0]) for row in cells) <= left - 2 * len(others) else 1
    room = max(8, left - gap * len(others))
    cells = [[name if len(name) <= room else f"..{name[2 - room :]}", *row] for name, *row in cells]
    align = ("left", *["right"] * len(others))
    # The headings are passed as a row, since tabulate pads headings.
    row = DataRow("", " " * gap, "")
    look = TableFormat(None, None, None, None, row, row, 0, None)
    return str(tabulate(cells, tablefmt=look, disable_numparse=True, colalign=align))
