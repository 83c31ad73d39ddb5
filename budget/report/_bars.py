"""Several estimates as bars: how long each takes, and how much of its device's memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..answer import Estimate
from ._comparison import table
from ._draw import CHARACTER, COLOUR, RIGHT, WIDTH, drawing, line, text
from ._summary import shorten
from ._units import memory, seconds

SIZES = ("batch", "seq", "image", "sound")  # a number alone would not say what it is
NAME, GAP, ROW, TOP = 190, 70, 30, 76  # pixels: of names, between the two plots, of a row, above the rows
BESIDE = 26  # characters of a name that stands left of its bars
EDGE, TALL = 16, 46  # of rows whose names stand above their bars: left of them, and their height


def side_by_side(estimates: Sequence[Estimate], heading: str, labels: Sequence[str] = ()) -> str:
    """One row an estimate: its time and interval on the left; peak memory, and the device's, on the right.

    labels: their names; else what tells the estimates apart. They stand above the bars where there is no room
    beside them.
    """
    names = labels or _names(estimates)
    labels = names if labels or max(map(len, names)) > BESIDE else ()
    row = TALL if labels else ROW
    body = [*_heading(heading), *_rows(estimates, labels, row)]
    return drawing(body, TOP + row * len(estimates) + 24, heading)


def _heading(heading: str) -> Iterator[str]:
    """The heading on two lines: what it has room for, and the rest."""
    first = shorten(heading, 80)
    yield text(EDGE, 22, first, "head")
    yield text(EDGE, 39, shorten(heading[len(first) + 2 :], 110))


def _rows(estimates: Sequence[Estimate], labels: Sequence[str], row: float) -> Iterator[str]:
    longest = max(e.seconds()["high"] for e in estimates)
    largest = max(min(e.device.usable_bytes for e in estimates), *(e.memory.peak for e in estimates))
    left = EDGE if labels else NAME
    wide = (WIDTH - left - GAP - RIGHT - 130) / 2
    right = left + wide + GAP
    yield text(left, TOP - 16, "time, and its 90 % interval")
    yield text(right, TOP - 16, "peak memory; the mark is the device's")
    for i, (e, name) in enumerate(zip(estimates, labels or _names(estimates), strict=True)):
        y, took = TOP + row * i, e.seconds()
        if labels:
            yield text(left, y + 10, name[:110])
            y += 15
        else:
            yield text(left - 8, y + 14, name, "end")
        yield _bar(left, y, took["step"] / longest * wide, COLOUR["inputs"])
        ends = [left + took[end] / longest * wide for end in ("low", "high")]
        yield line(ends[0], y + 9, ends[1], y + 9, "whisker")
        yield text(ends[1] + 6, y + 14, seconds(took["step"]))
        peak, size = (x / largest * wide for x in (e.memory.peak, e.device.usable_bytes))
        yield _bar(right, y, peak, COLOUR["gradients" if e.fits else "parameters"])
        label = memory(e.memory.peak) + ("" if e.fits else ": too much")
        after = peak
        if size <= wide:
            above = 1 if labels else 3
            yield line(right + size, y - above, right + size, y + 21, "limit")
            if peak <= size < peak + CHARACTER * len(label) + 12:  # else the mark would cross the words
                after = size
        yield text(right + after + 6, y + 14, label)


def _bar(x: float, y: float, wide: float, colour: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="18" fill="{colour}" fill-opacity=".85"/>'
    )


def _names(estimates: Sequence[Estimate]) -> list[str]:
    """What tells each from the others: what the comparison's table says before what it found."""
    shown = table(estimates)
    last = [c.key for c in shown.columns].index("peak")
    kept = [i for i, c in enumerate(shown.columns[:last]) if c.key not in ("params", "step")] or [0]
    rows = shown.cells()
    sizes = {i: f"{shown.columns[i].key} " for i in kept if shown.columns[i].key in SIZES}
    return [", ".join(sizes.get(i, "") + row[i] for i in kept) for row in rows]
