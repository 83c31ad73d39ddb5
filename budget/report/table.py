"""Plain text, as wide as the terminal, or of 80 columns."""

from __future__ import annotations

from ._answer import Answer, Table
from ._summary import fold
from ._terminal import width


def render(answer: Answer) -> str:
    """The answer's text, tables and last paragraph. Raises InputError for an estimate of arrays."""
    parts = [_folded(answer.text()), *map(plain, answer.tables()), _folded(answer.foot)]
    return "\n\n".join(filter(None, parts))


def _folded(text: str) -> str:
    return "\n".join(line for long in text.splitlines() for line in fold(long))


def plain(table: Table) -> str:
    """A table in plain text. Long names lose their beginning: their ends differ."""
    from tabulate import tabulate

    if table.lines:
        return "\n".join(table.lines())
    cells = [[c.heading for c in table.columns], *table.cells()]
    others = list(zip(*(row[1:] for row in cells), strict=True))
    room = max(8, width() - 1 - sum(2 + max(map(len, column)) for column in others))
    cells = [[name if len(name) <= room else f"..{name[2 - room :]}", *row] for name, *row in cells]
    align = ("left", *["right"] * len(others))
    # The headings are passed as a row, since tabulate pads headings.
    return str(tabulate(cells, tablefmt="plain", disable_numparse=True, colalign=align))
