"""CSV: one line an operator (or `--by` layer, part), raw numbers."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from ._rows import COLUMNS, rows

if TYPE_CHECKING:
    from ..estimate import Estimate


def render(estimate: Estimate, by: str = "") -> str:
    """Rows with a header line."""
    out = io.StringIO()
    writer = csv.DictWriter(out, ("name", *COLUMNS), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(estimate, by or "operator"))
    return out.getvalue().rstrip("\n")
