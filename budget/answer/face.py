"""How answers show themselves: printed, in a notebook, as a picture, as a data frame."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import InputError
from ..named import Any


class Picture(str):
    """An SVG that notebooks show."""

    __slots__ = ()

    def _repr_svg_(self) -> str:
        return str(self)

    def save(self, path: str) -> None:
        """Write it to a file, whole or not at all. Raises OSError."""
        from ..files import replace

        replace(path, f"{self}\n")


class Shown:
    """An answer that prints as a table, and that notebooks show with its picture.

    rendered: what renders it, (answer, what) -> text or rows. Formats know answers, not the other way round:
    budget/__init__.py, which knows both, sets it.
    """

    __slots__ = ()
    rendered: Callable[[Any, str], Any]

    def __hash__(self) -> int:
        """Answers that are equal read alike; their tables would be no key of a dict."""
        return hash(repr(self))

    def __str__(self) -> str:
        try:
            return str(self._as("table"))
        except InputError:  # of arrays
            return repr(self)

    def _as(self, what: str) -> Any:
        return type(self).rendered(self, what)

    def show(self, what: str | None = None) -> Any:
        """Prints the table; or returns what a `--format` makes: its text, or the rows of `records`."""
        return print(self) if what is None else self._as(what)  # noqa: T201 - what it is for

    def _of_one(self, what: str) -> str | None:
        """A format that shows one case; None for arrays, which notebooks then show as text."""
        try:
            return str(self._as(what))
        except InputError:
            return None

    def _repr_markdown_(self) -> str | None:
        return self._of_one("markdown")

    def _repr_html_(self) -> str | None:
        return self._of_one("body")

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        """What notebooks choose from."""
        known = {"text/markdown": self._repr_markdown_(), "text/html": self._repr_html_()}
        return {"text/plain": str(self), **{kind: text for kind, text in known.items() if text is not None}}

    def plot(self) -> Picture:
        """The picture of `--format svg`. Raises InputError for arrays of sizes."""
        return Picture(self._as("svg"))

    def to_frame(self) -> Any:
        """The rows of `--format csv` as a DataFrame. Raises InputError where pandas is not installed."""
        try:
            from pandas import DataFrame
        except ImportError:
            raise InputError("to_frame", "needs pandas: pip install pandas") from None
        return DataFrame(self._as("records"))
