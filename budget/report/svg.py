"""SVG: a plot of memory over one step, by kind of tensor, and of the time by class of kernel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from ..answer import Estimate
from ..errors import InputError
from ..fold.memory import KINDS
from ..size import is_number
from ._answer import Answer
from ._estimate import highest
from ._figures import COLOURS
from ._summary import describe, where
from ._units import memory, seconds

WIDTH, LEFT, RIGHT, TOP, HIGH = 760, 76, 20, 78, 260  # pixels; HIGH: of the curve
COLOUR = dict(zip(KINDS, COLOURS, strict=True))
STYLE = "text{font:12px system-ui,sans-serif;fill:#222}.head{font-weight:600;font-size:15px}"


def render(answer: Answer) -> str:
    """A self-contained SVG. Raises InputError for arrays, for a breakdown and for several estimates."""
    if len(answer.estimates) != 1 or answer.by or not is_number(answer.estimates[0].times.step):
        raise InputError("format", "svg shows one case, and no breakdown; allowed with these: json, csv")
    return picture(answer.estimates[0])


def picture(estimate: Estimate) -> str:
    """The plot of one estimate, as an SVG element."""
    body = [*_title(estimate), *_curve(estimate), *_times(estimate)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {TOP + HIGH + 132}" role="img">',
            f'<style>{STYLE}</style><rect width="100%" height="100%" fill="#fff"/>',
            *body,
            "</svg>",
        ]
    )


def _text(x: float, y: float, text: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {more}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, more: str = "") -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{colour}" {more}/>'


def _title(e: Estimate) -> Iterator[str]:
    m, size = e.memory, e.device.usable_bytes
    verdict = "fits" if e.fits else "does not fit"
    yield _text(LEFT, 22, f"{e.model.name}: {describe(e)}"[:90], 'class="head"')
    sizes = f"batch {e.task.workload.batch:,.0f}, {e.task.dtype}, on 1 x {e.device.name}"
    yield _text(
        LEFT, 41, f"{sizes}: {memory(m.peak)} of {memory(size)} at the peak, in {where(m.at)}; {verdict}"
    )


def _curve(e: Estimate) -> Iterator[str]:
    """A stacked area per kind of tensor, and a dashed line at the device's memory if it is in the plot."""
    size = e.device.usable_bytes
    curve = highest(e.memory.curve, WIDTH - LEFT - RIGHT)
    top = max(e.memory.peak, size) if size < 2 * e.memory.peak else e.memory.peak
    across = (WIDTH - LEFT - RIGHT) / len(curve)
    up = HIGH / top
    floor = TOP + HIGH
    for level in (0, 0.25, 0.5, 0.75, 1):
        y = floor - level * HIGH
        yield _line(LEFT, y, WIDTH - RIGHT, y, "#ddd")
        yield _text(LEFT - 6, y + 4, memory(level * top), 'text-anchor="end"')
    below = [0.0] * len(curve)
    shown = [k for k in KINDS if any(m.live[k] for m in curve)]
    for kind in shown:
        above = [b + m.live[kind] for b, m in zip(below, curve, strict=True)]
        edge = [*_steps(above, across, floor, up), *reversed(list(_steps(below, across, floor, up)))]
        path = f'd="M{"L".join(edge)}Z" fill="{COLOUR[kind]}" fill-opacity=".8"'
        yield f"<path {path}><title>{kind}</title></path>"
        below = above
    if size <= top:
        y = floor - size * up
        yield _line(LEFT, y, WIDTH - RIGHT, y, "#222", 'stroke-dasharray="5"')
    yield from _phases([m.phase for m in curve], across, floor + 17)
    for i, kind in enumerate(shown):
        x = LEFT + 96 * i
        yield f'<rect x="{x}" y="{TOP - 22}" width="10" height="10" fill="{COLOUR[kind]}" fill-opacity=".8"/>'
        yield _text(x + 14, TOP - 13, kind)


def _steps(values: Sequence[float], across: float, floor: float, up: float) -> Iterator[str]:
    """The corners of a step function that is constant while an operator runs."""
    heights = [f"{floor - value * up:.1f}" for value in values]
    starts = [i for i, height in enumerate(heights) if i == 0 or height != heights[i - 1]]
    for start, end in zip(starts, [*starts[1:], len(heights)], strict=True):
        yield from (f"{LEFT + x * across:.1f} {heights[start]}" for x in (start, end))


def _phases(phases: Sequence[str], across: float, y: float) -> Iterator[str]:
    """The names of the phases below the plot, each at its start."""
    for phase in dict.fromkeys(phases):
        x = LEFT + phases.index(phase) * across
        at_end = x > WIDTH - 90
        anchor = 'text-anchor="end"' if at_end else ""
        yield _line(x, y - 17, x, y, "#999")
        yield _text(x - 4 if at_end else x + 4, y, phase, anchor)
    yield _text(LEFT, y + 17, "operators as they run; of layers that repeat, the first two and the last")


def _times(e: Estimate) -> Iterator[str]:
    """One bar, divided by the fraction of the time that each class of kernel takes."""
    times, y = e.seconds(), TOP + HIGH + 78
    fractions: Mapping[str, float] = times["shares"]
    low, high = seconds(times["low"]), seconds(times["high"])
    yield _text(LEFT, y - 8, f"{seconds(e.times.step)} ({low} to {high}), {e.profile.summary}")
    x = float(LEFT)
    for i, (kind, fraction) in enumerate(sorted(fractions.items(), key=lambda pair: -pair[1])):
        width = fraction * (WIDTH - LEFT - RIGHT)
        place = f'x="{x:.1f}" y="{y}" width="{width:.1f}" height="22"'
        yield f'<rect {place} fill="#222" fill-opacity="{0.7 * 0.6**i:.2f}"/>'
        x += width
        if fraction > 0.05:
            yield _text(x - width / 2, y + 37, f"{kind} {fraction:.0%}", 'text-anchor="middle"')
