"""Plots as SVG: a roofline, and predicted against measured times."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

from ..device import Device
from ..measured.validation import Row
from ..named import NamedTuple
from ._units import decimal, seconds

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 760, 460, 70, 45, 12
# Okabe and Ito's colours, which people with any colour vision tell apart. Source: okabe-ito
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


class Axes(NamedTuple):
    """Two logarithmic axes."""

    x0: float
    x1: float
    y0: float
    y1: float

    def x(self, value: float) -> float:
        return LEFT + (WIDTH - LEFT - 150) * _share(value, self.x0, self.x1)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * _share(value, self.y0, self.y1)


def _share(value: float, low: float, high: float) -> float:
    return (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))


def _span(values: Sequence[float]) -> tuple[float, float]:
    """The powers of ten around positive values."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return 10.0**low, 10.0 ** max(high, low + 1)


def measured_against_predicted(found: Sequence[Row]) -> str:
    """One point per record. On the solid line predicted equals measured; the dashed lines are 20 % away."""
    low, high = _span([t for r in found for t in (r.predicted, r.record.seconds)])
    axes = Axes(low, high, low, high)
    lines = [
        _line(axes, (low, low * f), (high, high * f), dash)
        for f, dash in ((1, ""), (1.2, "4"), (1 / 1.2, "4"))
    ]
    points = [(r, r.record.seconds, r.predicted) for r in found]
    return _figure(axes, "measured", "predicted", "s", [*lines, *_points(axes, points)], found)


def roofline(found: Sequence[Row], device: Device) -> str:
    """A roofline plot: FLOP/s of contractions over arithmetic intensity, below the device's peak rates."""
    chosen = [r for r in found if r.flops]
    if not chosen:
        return "<p>No contractions were measured.</p>"
    dtype = chosen[0].record.dtype
    peak, bandwidth = device.rate(dtype), device.bandwidth
    at = [(r, r.flops / r.bytes, r.flops / r.record.seconds) for r in chosen]
    ridge = peak / bandwidth
    x0, x1 = _span([*(x for _, x, _ in at), ridge])
    y0, y1 = _span([*(y for *_, y in at), peak])
    axes = Axes(x0, x1, y0, y1)
    start = max(x0, y0 / bandwidth)
    roof = [
        _line(axes, (start, start * bandwidth), (ridge, peak), ""),
        _line(axes, (ridge, peak), (x1, peak), ""),
    ]
    return _figure(axes, f"FLOPs per byte ({dtype})", "", "FLOP/s", [*roof, *_points(axes, at)], chosen)


def _points(axes: Axes, points: Sequence[tuple[Row, float, float]]) -> Iterator[str]:
    groups = list(dict.fromkeys(r.group for r, *_ in points))
    for r, x, y in points:
        colour = COLOURS[groups.index(r.group) % len(COLOURS)]
        times = f"measured {seconds(r.record.seconds)}, predicted {seconds(r.predicted)}"
        label = f"{r.record.case}: {times} ({r.error:+.1%})"
        yield (
            f'<circle cx="{axes.x(x):.1f}" cy="{axes.y(y):.1f}" r="4" fill="{colour}" fill-opacity=".7">'
            f"<title>{escape(label)}</title></circle>"
        )


def _line(axes: Axes, start: tuple[float, float], end: tuple[float, float], dash: str) -> str:
    (x1, y1), (x2, y2) = ((axes.x(x), axes.y(y)) for x, y in (start, end))
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="#555" stroke-dasharray="{dash}"/>'


def _figure(axes: Axes, across: str, up: str, unit: str, marks: Sequence[str], found: Sequence[Row]) -> str:
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(f"{up} {across}".strip())}">'
    ]
    parts += [f'<clipPath id="in"><rect x="{LEFT}" width="{WIDTH}" height="{HEIGHT - BOTTOM}"/></clipPath>']
    for value in _decades(axes.x0, axes.x1):
        x, text = axes.x(value), seconds(value) if unit == "s" else f"{value:g}"
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="#ddd"/>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{text}</text>')
    for value in _decades(axes.y0, axes.y1):
        y, text = axes.y(value), seconds(value) if unit == "s" else decimal(value, unit)
        parts.append(
            f'<line x1="{LEFT}" x2="{axes.x(axes.x1):.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
        )
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    parts.append(f'<g clip-path="url(#in)">{"".join(marks)}</g>')
    middle = (LEFT + axes.x(axes.x1)) / 2
    parts.append(f'<text x="{middle:.0f}" y="{HEIGHT - 8}" text-anchor="middle">{escape(across)}</text>')
    parts += [f'<text x="{LEFT}" y="{TOP - 1}">{escape(up)}</text>', *_legend(axes, found), "</svg>"]
    return "\n".join(parts)


def _decades(low: float, high: float) -> Iterator[float]:
    first, last = round(math.log10(low)), round(math.log10(high))
    return (10.0**n for n in range(first, last + 1))


def _legend(axes: Axes, found: Sequence[Row]) -> Iterator[str]:
    x = axes.x(axes.x1) + 14
    for i, group in enumerate(dict.fromkeys(r.group for r in found)):
        y = TOP + 12 + 18 * i
        yield f'<circle cx="{x}" cy="{y}" r="4" fill="{COLOURS[i % len(COLOURS)]}"/>'
        yield f'<text x="{x + 10}" y="{y + 4}">{escape(group)}</text>'
