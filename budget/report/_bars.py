"""Several estimates as bars: how long each takes, and how much of its device's memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..answer import Estimate
from ._comparison import apart
from ._draw import COLOUR, RIGHT, WIDTH, across, drawing, line, text
from ._summary import shorten
from ._units import memory, seconds

SIZES = ("batch", "seq", "image", "sound")  # a number alone would not say what it is
NAME, GAP, ROW, TOP = 190, 70, 30, 76  # pixels: of names, between the two plots, of a row, above the rows
BESIDE = 26  # characters of a name that stands left of its bars
EDGE, TALL = 16, 46  # of rows whose names stand above their bars: left of them, and their height


def side_by_side(
    estimates: Sequence[Estimate], heading: str, labels: Sequence[str] = (), *, each: bool = False
) -> str:
    """One row an estimate: its time and interval on the left; its memory, and the device's, on the right.

    labels: their names; else what tells the estimates apart. They stand above the bars where there is no room
    beside them. each: the time is that of a sample, where steps are of different sizes.
    """
    names = labels or _names(estimates)
    labels = names if labels or max(map(len, names)) > BESIDE else ()
    row = TALL if labels else ROW
    body = [*_heading(heading), *_rows(estimates, labels, row, each=each)]
    return drawing(body, TOP + row * len(estimates) + 24, heading)


def _heading(heading: str) -> Iterator[str]:
    """The heading on two lines: what it has room for, and the rest."""
    first = shorten(heading, 80)
    yield text(EDGE, 22, first, "head")
    yield text(EDGE, 39, shorten(heading[len(first) + 2 :], 110))


def _rows(estimates: Sequence[Estimate], labels: Sequence[str], row: float, *, each: bool) -> Iterator[str]:
    left = EDGE if labels else NAME
    width = (WIDTH - left - GAP - RIGHT - 130) / 2
    right = left + width + GAP
    took = [_took(e, each=each) for e in estimates]
    longest = width / max(high for _, _, high in took)
    largest = width / max(min(e.device.usable_bytes for e in estimates), *(e.process for e in estimates))
    yield text(left, TOP - 16, f"time{' a sample' * each}, and its 90 % interval")
    yield text(right, TOP - 16, "peak memory, pale the process; mark: the device's")
    for i, (e, name) in enumerate(zip(estimates, labels or _names(estimates), strict=True)):
        y = TOP + row * i
        if labels:
            yield text(left, y + 10, name[:110])
            y += 15
        else:
            yield text(left - 8, y + 14, name, "end")
        yield from _time(left, y, took[i], longest)
        yield from _memory(right, y, e, largest, width)


def _took(e: Estimate, *, each: bool) -> tuple[float, float, float]:
    """The ends of the interval with the time between them: of a step, or of one of its samples."""
    times, n = e.seconds(), e.model.samples if each else 1
    return times["low"] / n, times["step"] / n, times["high"] / n


def _time(x: float, y: float, took: tuple[float, float, float], scale: float) -> Iterator[str]:
    low, step, high = took
    yield _bar(x, y, step * scale, COLOUR["inputs"])
    yield line(x + low * scale, y + 9, x + high * scale, y + 9, "whisker")
    yield text(x + high * scale + 6, y + 14, seconds(step))


def _memory(x: float, y: float, e: Estimate, scale: float, width: float) -> Iterator[str]:
    """The peak, paler what the process holds beyond it, and the device's memory where it is in sight."""
    colour, size = COLOUR["gradients" if e.fits else "parameters"], e.device.usable_bytes * scale
    peak, process = e.memory.peak * scale, e.process * scale
    yield _bar(x, y, peak, colour)
    yield _bar(x + peak, y, process - peak, colour, 0.4)
    label = memory(e.process) + ("" if e.fits else ": too much")
    after = process
    if size <= width:
        yield line(x + size, y - 2, x + size, y + 21, "limit")
        if process <= size < process + across(label) + 12:  # else the mark would cross the words
            after = size
    yield text(x + after + 6, y + 14, label)


def _bar(x: float, y: float, width: float, colour: str, opacity: float = 0.85) -> str:
    box = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="18"'
    return f'<rect {box} fill="{colour}" fill-opacity="{opacity:g}"/>'


def _names(estimates: Sequence[Estimate]) -> list[str]:
    """A name for each estimate: the columns of the comparison's table that tell it from the others."""
    shown = apart(estimates)
    kept = [i for i, c in enumerate(shown.columns) if c.key not in ("params", "step")] or [0]
    rows = shown.cells()
    sizes = {i: f"{shown.columns[i].key} " for i in kept if shown.columns[i].key in SIZES}
    return [", ".join(sizes.get(i, "") + row[i] for i in kept) for row in rows]
