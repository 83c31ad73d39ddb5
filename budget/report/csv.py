"""CSV: raw numbers, one line per row; for arrays, one line per row and index."""

from __future__ import annotations

import csv
import io

from ..named import Any
from ._answer import Answer


def render(answer: Answer) -> str:
    """The answer's records below a header line."""
    out = io.StringIO()
    table = records(answer)
    keys = list(table[0]) if table else [c.key for c in answer.records().columns]
    writer = csv.DictWriter(out, keys, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return out.getvalue().rstrip("\n")


def records(answer: Answer) -> list[dict[str, Any]]:
    """The answer's records by their columns' keys, one a line."""
    table = answer.records()
    keys = [c.key for c in table.columns]
    return _by_index([dict(zip(keys, row, strict=True)) for row in table.rows])


def _by_index(table: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of scalars. If values are arrays: all rows for the first element, then all for the second, ..."""
    shapes = [v.shape for row in table for v in row.values() if getattr(v, "ndim", 0) > 0]
    if not shapes:
        return table
    import numpy

    shape = numpy.broadcast_shapes(*shapes)
    size = numpy.prod(shape)
    flat = [{k: numpy.broadcast_to(v, shape).ravel().tolist() for k, v in row.items()} for row in table]
    return [{"index": i, **{k: v[i] for k, v in row.items()}} for i in range(size) for row in flat]
