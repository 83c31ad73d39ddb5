"""SVG: memory over the time of one step, by kind of tensor, and where the time goes; several as bars; of a
pipeline its schedule.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..answer import Estimate
from ..errors import InputError
from ..fold.curve import Point, over_time
from ..fold.memory import KINDS
from ..size import is_number
from ._answer import Answer
from ._bars import side_by_side
from ._draw import BYTES, COLOUR, LEFT, RIGHT, SECONDS, WIDTH, drawing, legend, line, text, ticks
from ._pipeline import has_pipeline
from ._pipeline import picture as pipeline
from ._summary import describe, shorten, verdict, where, workload
from ._units import memory, seconds

TOP, HIGH = 100, 260  # pixels: above the curve, and its height
ROOM = 1.08  # of the limit: the plot goes on above it, for its label


def render(answer: Answer) -> str:
    """A self-contained SVG. Raises InputError for arrays, for a breakdown but that of memory over time, which
    the picture of an estimate is, and for what has no picture.
    """
    pictures = () if answer.by not in ("", "moment") else (*drawn(answer), *answer.pictures())
    if not pictures:
        raise InputError(
            "format", "there is no picture of this answer (of arrays, of a breakdown); allowed: json, csv"
        )
    return pictures[0]


def drawn(answer: Answer) -> list[str]:
    """The picture of an answer's estimate, or of its estimates side by side; none of arrays."""
    estimates = answer.estimates
    if not estimates or not all(is_number(e.times.step) for e in estimates):
        return []
    if len(estimates) > 1:
        return [side_by_side(estimates, answer.text().partition("\n")[0], answer.labels)]
    return [*([pipeline(estimates[0])] if has_pipeline(estimates[0]) else []), picture(estimates[0])]


def picture(estimate: Estimate) -> str:
    """The plot of one estimate, as an SVG element."""
    body = [*_title(estimate), *_curve(estimate), *_times(estimate)]
    return drawing(body, TOP + HIGH + 128, f"{estimate.model.name}: memory over one step, and its time")


def _title(e: Estimate) -> Iterator[str]:
    m, size = e.memory, e.device.usable_bytes
    yield text(LEFT, 24, shorten(f"{e.model.name}: {describe(e)}", 84), "head")
    yield text(LEFT, 43, workload(e))
    yield text(LEFT, 60, f"peak {memory(m.peak)} of {memory(size)}, in {where(m.at)}; {verdict(e)}")


def _curve(e: Estimate) -> Iterator[str]:
    """A stacked area for each kind of tensor, and a dashed line at the device's memory if in sight."""
    size, peak = e.device.usable_bytes, e.memory.peak
    points = over_time(e.memory, e.times)
    across, floor = WIDTH - LEFT - RIGHT, TOP + HIGH
    top = max(peak, ROOM * size) if size < 2 * peak else peak
    up = HIGH / top
    for level, label in ticks(top, BYTES):
        y = floor - level * up
        yield line(LEFT, y, WIDTH - RIGHT, y, "grid")
        yield text(LEFT - 6, y + 4, label, "end")
    columns = _columns(points, across)
    below = [0.0] * len(columns)
    shown = [k for k in KINDS if any(p.live[k] for p in columns)]
    for kind in shown:
        above = [b + p.live[kind] for b, p in zip(below, columns, strict=True)]
        edge = [*_steps(above, floor, up), *reversed(list(_steps(below, floor, up)))]
        area = f'd="M{"L".join(edge)}Z" fill="{COLOUR[kind]}" fill-opacity=".85"'
        yield f"<path {area}><title>{kind}</title></path>"
        below = above
    if size <= top:
        y = floor - size * up
        yield line(LEFT, y, WIDTH - RIGHT, y, "limit")
        yield text(WIDTH - RIGHT, y - 5, f"{e.device.name}: {memory(size)}", "end")
    yield from _axis(e, points, floor)
    yield from legend([(kind, f'fill="{COLOUR[kind]}" fill-opacity=".85"') for kind in shown], TOP - 12)


def _columns(points: Sequence[Point], across: int) -> list[Point]:
    """The highest point in each of `across` equal stretches of time; where none begins, the one before."""
    whole = sum(p.seconds for p in points) or 1.0
    best: list[Point | None] = [None] * across
    at = 0.0
    for p in points:
        column = min(across - 1, int(at / whole * across))
        held = best[column]
        if held is None or p.total > held.total:
            best[column] = p
        at += p.seconds
    highest, last = [], points[0]
    for held in best:
        last = held or last
        highest.append(last)
    return highest


def _steps(values: Sequence[float], floor: float, up: float) -> Iterator[str]:
    """The corners of a step function of one value a pixel."""
    heights = [f"{floor - value * up:.1f}" for value in values]
    starts = [i for i, height in enumerate(heights) if i == 0 or height != heights[i - 1]]
    for start, end in zip(starts, [*starts[1:], len(heights)], strict=True):
        yield from (f"{LEFT + x:.1f} {heights[start]}" for x in (start, end))


def _axis(e: Estimate, points: Sequence[Point], floor: float) -> Iterator[str]:
    """The time below the plot, and where each phase begins."""
    step, across = e.times.step, WIDTH - LEFT - RIGHT
    for at, label in ticks(step, SECONDS):
        x = LEFT + at / step * across
        yield line(x, floor, x, floor + 5, "axis")
        yield text(x, floor + 18, label, "middle")
    at, free, named = 0.0, 0.0, ""
    for p in points:
        if p.phase != named and p.seconds:
            named, x = p.phase, LEFT + at / step * across
            yield line(x, floor + 24, x, floor + 36, "axis")
            if x >= free and x + 7 * len(named) < WIDTH:
                yield text(x + 4, floor + 35, named)
                free = x + 7 * len(named) + 10
        at += p.seconds


def _times(e: Estimate) -> Iterator[str]:
    """One bar, divided by the fraction of the time that each class of kernel takes."""
    times, y = e.seconds(), TOP + HIGH + 72
    low, high = seconds(times["low"]), seconds(times["high"])
    yield text(LEFT, y - 8, f"{seconds(e.times.step)} ({low} to {high}), {e.profile.summary}")
    x, items = float(LEFT), []
    for i, (kind, fraction) in enumerate(sorted(times["shares"].items(), key=lambda pair: -pair[1])):
        width, look = fraction * (WIDTH - LEFT - RIGHT), f'class="bar" fill-opacity="{0.75 * 0.62**i:.2f}"'
        yield f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="18" {look}><title>{kind}</title></rect>'
        x += width
        items.append((f"{kind} {fraction:.0%}", look))
    yield from legend(items, y + 38)
