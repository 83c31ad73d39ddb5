"""Plots of records: a roofline, and predicted against measured times."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from html import escape
from itertools import product

from ..device import Device
from ..measured.validation import Row
from ..named import NamedTuple
from ._axes import Axis, grid, powers
from ._draw import COLOURS, WIDTH, drawing, line, text
from ._units import decimal, seconds

HEIGHT, LEFT, RIGHT, BOTTOM, TOP = 460, 96, 150, 45, 24  # pixels
# Behind a circle's colours come those of squares, diamonds and triangles: no two groups look the same.
SHAPES = (
    "M-4 0A4 4 0 1 0 4 0A4 4 0 1 0 -4 0Z", "M-4 -4H4V4H-4Z", "M0 -5L5 0L0 5L-5 0Z", "M0 -5L5 4L-5 4Z"
)  # fmt: skip
Point = tuple[Row, float, float]


class Axes(NamedTuple):
    """Two logarithmic axes."""

    x: Axis
    y: Axis


def _axes(across: tuple[float, float], up: tuple[float, float]) -> Axes:
    return Axes(Axis(*across, LEFT, WIDTH - RIGHT), Axis(*up, HEIGHT - BOTTOM, TOP))


def _span(values: Sequence[float]) -> tuple[float, float]:
    """The powers of ten around positive values."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return 10.0**low, 10.0 ** max(high, low + 1)


def looks(rows: Sequence[Row]) -> Mapping[str, str]:
    """How each group is drawn, in every chart alike: a shape's path and its colour."""
    kinds = product(SHAPES, COLOURS)
    groups = dict.fromkeys(r.group for r in rows)
    return {
        group: f'd="{shape}" fill="{colour}" fill-opacity=".8"'
        for group, (shape, colour) in zip(groups, kinds, strict=False)
    }


def measured_against_predicted(rows: Sequence[Row]) -> str:
    """One point a record. On the solid line predicted equals measured; the dashed lines are 20 % away."""
    low, high = _span([t for r in rows for t in (r.predicted, r.record.seconds)])
    axes = _axes((low, high), (low, high))
    lines = [
        _straight(axes, (low, low * f), (high, high * f), look)
        for f, look in ((1, "whisker"), (1.2, "limit"), (1 / 1.2, "limit"))
    ]
    points = [(r, r.record.seconds, r.predicted) for r in rows]
    return _figure(axes, ("measured", "s"), ("predicted", "s"), lines, points, looks(rows))


def roofline(rows: Sequence[Row], device: Device) -> str:
    """A roofline: FLOP/s of contractions over arithmetic intensity, below the device's peak rates."""
    chosen = [r for r in rows if r.flops]
    if not chosen:
        return "<p>No contractions were measured.</p>"
    dtype = chosen[0].record.dtype
    peak, bandwidth = device.rate(dtype), device.bandwidth
    points = [(r, r.flops / r.bytes, r.flops / r.record.seconds) for r in chosen]
    ridge = peak / bandwidth
    axes = _axes(_span([*(x for _, x, _ in points), ridge]), _span([*(y for *_, y in points), peak]))
    start = max(axes.x.low, axes.y.low / bandwidth)
    roof = [
        _straight(axes, (start, start * bandwidth), (ridge, peak), "whisker"),
        _straight(axes, (ridge, peak), (axes.x.high, peak), "whisker"),
        text(axes.x.end - 4, axes.y.at(peak) - 5, f"{device.name}, {dtype}", "end"),
    ]
    return _figure(axes, ("FLOPs per byte", ""), ("reached", "FLOP/s"), roof, points, looks(rows))


def _straight(axes: Axes, start: tuple[float, float], end: tuple[float, float], look: str) -> str:
    (x1, y1), (x2, y2) = ((axes.x.at(x), axes.y.at(y)) for x, y in (start, end))
    return line(x1, y1, x2, y2, look)


def _figure(
    axes: Axes,
    across: tuple[str, str],
    up: tuple[str, str],
    lines: Sequence[str],
    points: Sequence[Point],
    look: Mapping[str, str],
) -> str:
    """A chart; across, up: what an axis shows, and its unit."""
    right, floor = axes.x.end, axes.y.start
    inside = (
        f'<clipPath id="in"><rect x="{LEFT}" y="0" width="{right - LEFT:.0f}" height="{floor}"/></clipPath>'
    )
    parts = [inside, text(LEFT, TOP - 10, up[0]), text((LEFT + right) / 2, HEIGHT - 8, across[0], "middle")]
    across_at, up_at = ([10.0**n for n in powers(axis)] for axis in axes)
    shown_x, shown_y = (partial(_shown, unit=unit) for _, unit in (across, up))
    parts += grid(axes.x, across_at, axes.y, up_at, shown_x, shown_y)
    marks = "".join([*lines, *_points(axes, points, look)])
    parts.append(f'<g clip-path="url(#in)">{marks}</g>')
    return drawing([*parts, *_groups(points, look, right + 14)], HEIGHT, f"{up[0]} over {across[0]}")


def _shown(value: float, unit: str) -> str:
    return seconds(value) if unit == "s" else decimal(value, unit)


def _points(axes: Axes, points: Sequence[Point], look: Mapping[str, str]) -> Iterator[str]:
    for r, x, y in points:
        times = f"measured {seconds(r.record.seconds)}, predicted {seconds(r.predicted)}"
        label = f"{r.record.case}: {times} ({r.error:+.1%})"
        place = f'transform="translate({axes.x.at(x):.1f} {axes.y.at(y):.1f})"'
        yield f"<path {look[r.group]} {place}><title>{escape(label)}</title></path>"


def _groups(points: Sequence[Point], look: Mapping[str, str], x: float) -> Iterator[str]:
    """The legend, of the groups that are there."""
    for i, group in enumerate(dict.fromkeys(r.group for r, *_ in points)):
        y = TOP + 12 + 18 * i
        yield f'<path {look[group]} transform="translate({x:.1f} {y})"/>'
        yield text(x + 10, y + 4, group)
