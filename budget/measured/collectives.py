"""Fit of latency and bandwidth to records of collectives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .record import Record


def links(records: Iterable[Record]) -> dict[str, tuple[float, float]]:
    """(latency in seconds, bandwidth in bytes/s) of each collective, by name and number of machines:
    relative least squares of a + bytes / b, in closed form.
    """
    groups: dict[str, list[tuple[float, float]]] = {}
    for r in records:
        if r.collective and r.split == "fit":
            groups.setdefault(r.collective, []).append((1 / r.seconds, r.info["bytes"] / r.seconds))
    by_name = {}
    for name, rows in groups.items():
        aa, ab, bb = (sum(x * y for x, y in pairs) for pairs in _products(rows))
        a, b = sum(x for x, _ in rows), sum(y for _, y in rows)
        determinant = aa * bb - ab * ab
        if len(rows) > 1 and determinant > 0:
            start, per_byte = (a * bb - b * ab) / determinant, (b * aa - a * ab) / determinant
            if per_byte > 0:
                by_name[name] = (max(start, 0.0), 1 / per_byte)
    return by_name


def _products(rows: Sequence[tuple[float, float]]) -> Iterable[Iterable[tuple[float, float]]]:
    yield [(x, x) for x, _ in rows]
    yield rows
    yield [(y, y) for _, y in rows]
