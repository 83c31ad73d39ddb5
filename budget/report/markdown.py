"""Markdown: the table's text, and breakdowns as tables."""

from __future__ import annotations

from ..named import TYPE_CHECKING
from . import table

if TYPE_CHECKING:
    from ..estimate import Estimate


def render(estimate: Estimate, by: str = "") -> str:
    """A fenced summary and, with `by`, a table behind it."""
    parts = ["```text", table.render(estimate), "```"]
    if by:
        parts += ["", *table.breakdown(estimate, by, "github")]
    return "\n".join(parts)
