"""What a command answers, in the parts that formats show."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..answer import Estimate
from ..named import Any, NamedTuple


class Column(NamedTuple):
    """A column of a table: its name for programs, its heading for people, and how they read its values."""

    key: str
    heading: str
    show: Callable[[Any], str] = str


class Table(NamedTuple):
    """Rows of raw values. `lines` makes text of them where a table would be long: bars, say."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    title: str = ""
    lines: Callable[[], Sequence[str]] | None = None

    def cells(self) -> list[list[str]]:
        """The values as people read them."""
        return [[c.show(x) for c, x in zip(self.columns, row, strict=True)] for row in self.rows]


def nothing() -> tuple[()]:
    """No tables, no pictures."""
    return ()


class Answer(NamedTuple):
    """The parts of an answer, each a function that is called where a format shows it.

    data: plain numbers under the keys of the command's JSON. records: the rows that a spreadsheet wants.
    text: what people read first; tables: what they read then; foot: the last line.
    estimates: those that are pictured, `by` as asked; pictures: SVG elements of other things.
    """

    data: Callable[[], Any]
    records: Callable[[], Table]
    text: Callable[[], str] = str
    tables: Callable[[], Sequence[Table]] = nothing
    foot: str = ""
    estimates: Sequence[Estimate] = ()
    by: str = ""
    pictures: Callable[[], Sequence[str]] = nothing
