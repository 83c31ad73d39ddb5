"""Axes, lines and points of charts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from ..named import NamedTuple
from ._draw import COLOURS, between, line, text

BLUE, RED, GREEN = COLOURS[:3]
STEPS = 40  # of a line


class Axis(NamedTuple):
    """An axis from a low to a high value, between two pixels; logarithmic or linear."""

    low: float
    high: float
    start: float
    end: float
    log: bool = True

    def at(self, value: float) -> float:
        """The pixel of a value."""
        low, high, x = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (self.end - self.start) * (x - low) / (high - low)

    def between(self) -> list[float]:
        """Values at even distances on the axis."""
        ratio, step = self.high / self.low, (self.high - self.low) / STEPS
        shares = [i / STEPS for i in range(STEPS + 1)]
        return [self.low * ratio**s if self.log else self.low + step * s * STEPS for s in shares]


def powers(x: Axis) -> range:
    """The powers of ten on an axis."""
    return range(math.ceil(math.log10(x.low)), math.floor(math.log10(x.high)) + 1)


def frame(
    x: Axis, y: Axis, across: Sequence[float], name: Callable[[float], str], value: Callable[[float], str]
) -> Iterator[str]:
    """The axes with their labels."""
    yield line(x.start, y.start, x.end, y.start, "axis")
    for v in across:
        yield text(x.at(v), y.start + 16, name(v), "middle")
    for at in between(y.low, y.high):
        yield line(x.start, y.at(at), x.end, y.at(at), "grid")
        yield text(x.start - 6, y.at(at) + 4, value(at), "end")


def grid(
    x: Axis,
    across: Sequence[float],
    y: Axis,
    up: Sequence[float],
    name: Callable[[float], str],
    value: Callable[[float], str],
) -> Iterator[str]:
    """Lines at values of both axes, with their labels."""
    for v in across:
        yield line(x.at(v), y.end, x.at(v), y.start, "grid")
        yield text(x.at(v), y.start + 16, name(v), "middle")
    for v in up:
        yield line(x.start, y.at(v), x.end, y.at(v), "grid")
        yield text(x.start - 6, y.at(v) + 4, value(v), "end")


def path(points: Sequence[tuple[float, float]]) -> str:
    """A path's data, from point to point."""
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def curve(points: Sequence[tuple[float, float]]) -> str:
    """A line from point to point."""
    return f'<path d="{path(points)}" fill="none" stroke="{BLUE}" stroke-width="2"/>'


def dot(x: float, y: float, colour: str) -> str:
    """A point."""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>'
