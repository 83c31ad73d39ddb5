"""CSV: one line an operator (or what `--by` says), raw numbers."""

from __future__ import annotations

import csv
import io

from ..named import TYPE_CHECKING
from ._rows import rows

if TYPE_CHECKING:
    from ..estimate import Estimate


def render(estimate: Estimate, by: str = "") -> str:
    """Rows with a header line."""
    out = io.StringIO()
    table = rows(estimate, by or "operator")
    writer = csv.DictWriter(out, list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return out.getvalue().rstrip("\n")
