"""The result of a command, as the parts that formats render."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..answer import Estimate
from ..named import Any, NamedTuple


class Column(NamedTuple):
    """A column of a table: its key in CSV and JSON, its heading, and how its values are formatted."""

    key: str
    heading: str
    show: Callable[[Any], str] = str


class Table(NamedTuple):
    """Rows of raw values. lines: plain text to show instead of a long table, such as bars."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    title: str = ""
    lines: Callable[[], Sequence[str]] | None = None

    def cells(self) -> list[list[str]]:
        """The rows, formatted for people."""
        return [[c.show(x) for c, x in zip(self.columns, row, strict=True)] for row in self.rows]


def nothing() -> tuple[()]:
    """No tables, no plots."""
    return ()


class Answer(NamedTuple):
    """The parts of an answer. They are functions, so that only what a format renders is computed.

    data: the object of JSON. records: the rows of CSV. text: a summary in plain text, followed by tables and
    foot, the last paragraph. estimates: for formats of estimates (svg, folded), with the requested breakdown,
    `by`. pictures: other SVG elements.
    """

    data: Callable[[], Any]
    records: Callable[[], Table]
    text: Callable[[], str] = str
    tables: Callable[[], Sequence[Table]] = nothing
    foot: str = ""
    estimates: Sequence[Estimate] = ()
    by: str = ""
    pictures: Callable[[], Sequence[str]] = nothing
    labels: Sequence[str] = ()  # of several estimates, where their settings do not say what they are
