"""The curves as SVG: loss over data, a line and a band for each size of network."""

from __future__ import annotations

from html import escape
from math import exp, floor, log, log10

from budget.report._draw import COLOURS, STYLE

from .fitted import UNITS, Family, interval

WIDE, HIGH, LEFT, TOP, BOTTOM, GAP = 430, 330, 56, 40, 46, 40  # pixels of one plot and around it
POINTS = 40  # of a curve


def draw(families: list[Family]) -> str:
    """All families side by side."""
    width = len(families) * (LEFT + WIDE) + GAP
    box = f'viewBox="0 0 {width} {TOP + HIGH + BOTTOM}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="cb" role="img" {box}>',
        f'<style>{STYLE}</style><rect width="100%" height="100%" class="page"/>',
    ]
    for i, family in enumerate(families):
        parts += [f'<g transform="translate({i * (LEFT + WIDE) + LEFT},{TOP})">', *_plot(family), "</g>"]
    return "\n".join([*parts, "</svg>"])


class _Axes:
    def __init__(self, records):
        data, loss = [r["data"] for r in records], [r["loss"] for r in records]
        self.x0, self.x1 = log(min(data) / 1.3), log(max(data) * 1.3)
        self.y0, self.y1 = log(min(loss) * 0.93), log(max(loss) * 1.05)

    def x(self, value):
        return (log(value) - self.x0) / (self.x1 - self.x0) * (WIDE - 90)

    def y(self, value):
        return HIGH - (log(value) - self.y0) / (self.y1 - self.y0) * HIGH


def _plot(family: Family):
    axes, unit = _Axes(family.records), UNITS[family.name]
    sizes = sorted({r["params"] for r in family.records})
    title = {"mlp": "perceptrons on digits", "text": "transformers on Python's library"}[family.name]
    yield f'<text class="head" x="0" y="-20">{title}</text>'
    yield '<text x="0" y="-5">test loss, nats; band: 90 % of bootstrapped laws</text>'
    for tick in _ticks(exp(axes.y0), exp(axes.y1)):
        y = axes.y(tick)
        yield f'<line x1="0" x2="{WIDE - 90}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>'
        yield f'<text x="-6" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>'
    for value in sorted({r["data"] for r in family.records}):
        x = axes.x(value)
        yield f'<text x="{x:.1f}" y="{HIGH + 16}" text-anchor="middle">{_short(value)}</text>'
    yield f'<text x="{(WIDE - 90) / 2}" y="{HIGH + 34}" text-anchor="middle">{unit} of training data</text>'
    for i, params in enumerate(sizes):
        yield from _curve(family, axes, params, COLOURS[i % len(COLOURS)])
        y = 12 + 18 * i
        yield f'<circle cx="{WIDE - 78}" cy="{y}" r="4" fill="{COLOURS[i % len(COLOURS)]}"/>'
        yield f'<text x="{WIDE - 70}" y="{y + 4}">{params:,}</text>'
    yield f'<text x="{WIDE - 82}" y="{16 + 18 * len(sizes)}">parameters</text>'


def _curve(family, axes, params, colour):
    steps = [exp(axes.x0 + (axes.x1 - axes.x0) * i / (POINTS - 1)) for i in range(POINTS)]
    curve = [(x, *interval(family.fit, params, x)) for x in steps]
    upper = [f"{axes.x(x):.1f} {max(axes.y(high), 0):.1f}" for x, _, _, high in curve]  # within the plot
    lower = [f"{axes.x(x):.1f} {min(axes.y(low), HIGH):.1f}" for x, _, low, _ in reversed(curve)]
    yield f'<path d="M{"L".join(upper + lower)}Z" fill="{colour}" fill-opacity=".15"/>'
    line = [f"{axes.x(x):.1f} {axes.y(loss):.1f}" for x, loss, _, _ in curve]
    yield f'<path d="M{"L".join(line)}" fill="none" stroke="{colour}"/>'
    for r in family.records:
        if r["params"] == params:
            at = f'cx="{axes.x(r["data"]):.1f}" cy="{axes.y(r["loss"]):.1f}"'
            label = escape(f"{r['key']}: loss {r['loss']:.3f}, accuracy {r['accuracy']:.0%}")
            yield f'<circle {at} r="3.5" fill="{colour}"><title>{label}</title></circle>'


def _ticks(low, high):
    """Round values, about six: 1, 2, 5, 10, ... where the axis is long."""
    if high / low > 5:
        ladder = (m * 10.0**e for e in range(floor(log10(low)), floor(log10(high)) + 1) for m in (1, 2, 5))
        return [round(t, 6) for t in ladder if low <= t <= high]
    step = 10 ** floor(log10(high - low))
    step = next(s for s in (step / 10, step / 5, step / 2, step, step * 2) if (high - low) / s <= 8)
    first = -(-low // step)
    return [round(step * (first + i), 6) for i in range(int((high - step * first) // step) + 1)]


def _short(value):
    for size, prefix in ((2**20, "Mi"), (2**10, "ki")):
        if value % size == 0:
            return f"{value // size} {prefix}"
    return f"{value:,}"
