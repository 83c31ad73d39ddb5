"""The published rows as a picture: predicted over measured seconds, and how many rows are how near."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from budget.report._axes import Axis, grid, path, powers
from budget.report._draw import COLOURS, LEFT, RIGHT, WIDTH, drawing, legend, line, text
from budget.report._units import seconds

from .intervals import Errors
from .measured import Case
from .targets import ASKED, published_twice

HEIGHT, TOP, FLOOR = 480, 58, 392  # pixels
GROUPS = COLOURS[1], COLOURS[0], COLOURS[2], COLOURS[3]
NEAR = 0.3  # what the dashed lines are away
SHARES = 0.0, 0.25, 0.5, 0.75, 1.0


def picture(cases: Sequence[Case], errors: Mapping[str, Errors]) -> str:
    """Two charts side by side, as SVG. errors: as rows are `fitted`, and of each of LEFT_OUT."""
    twice = published_twice(cases, errors["fitted"])
    lines = {
        "a fit without a fifth of its rows": list(errors["a fifth of each pair"].values()),
        "a fit without its publication": list(errors["each source"].values()),
        f"another publication of the same ({len(twice) // 2})": twice,
    }
    body = [
        text(LEFT, 24, f"{len(cases):,} published times against their predictions", "head"),
        *_scatter(cases, errors["each source"]),
        *_within({kind: of for kind, of in lines.items() if of}),
    ]
    return drawing(body, HEIGHT, "predicted over measured times, and how many are how near")


def _scatter(cases: Sequence[Case], errors: Errors) -> Iterator[str]:
    """A point a row: what an answer says that has not seen the row's publication."""
    ends = min(c.measured for c in cases), max(c.measured for c in cases)
    low, high = (10.0 ** to(v / math.log(10)) for to, v in zip((math.floor, math.ceil), ends, strict=True))
    x, y = Axis(low, high, LEFT, 400), Axis(low, high, FLOOR, TOP)
    yield text(LEFT, 46, "predicted by a fit without its publication")
    yield text(LEFT, FLOOR + 36, "measured: a step, a prompt, a token, an image")
    tens = [10.0**n for n in powers(x)][::2]
    yield from grid(x, tens, y, tens, seconds, seconds)
    kinds = {**ASKED, "other": lambda c: not any(wanted(c) for wanted in ASKED.values())}
    for (kind, wanted), colour in zip(kinds.items(), GROUPS, strict=True):
        own = ((c.measured, c.measured + errors[c.key]) for c in cases if wanted(c))
        dots = "".join(f"M{x.at(math.exp(m)):.1f} {_inside(y, p):.1f}h0" for m, p in own)
        look = f'stroke="{colour}" stroke-width="3.5" stroke-linecap="round" opacity=".5"'
        yield f'<path d="{dots}" {look}><title>{kind}</title></path>'
    for factor, look in ((1.0, "whisker"), (1 + NEAR, "limit"), (1 / (1 + NEAR), "limit")):
        start, end = low * max(1, 1 / factor), high / max(1, factor)
        yield line(x.at(start), y.at(start * factor), x.at(end), y.at(end * factor), look)
    items = [(kind, f'fill="{colour}"') for kind, colour in zip(kinds, GROUPS, strict=True)]
    yield from legend(items, FLOOR + 57, end=x.end)


def _inside(y: Axis, logarithm: float) -> float:
    """The pixel of a value, at an axis' end if it is beyond."""
    return y.at(min(max(math.exp(logarithm), y.low), y.high))


def _within(lines: Mapping[str, Sequence[float]]) -> Iterator[str]:
    """For each kind of errors a line: the share of rows that are at most so far off."""
    x, y = Axis(0.01, 1.0, 476, WIDTH - RIGHT), Axis(0.0, 1.0, FLOOR, TOP, log=False)
    yield text(476, 46, "share of rows that are at most so far off")
    yield from grid(x, [0.01, 0.03, 0.1, 0.3, 1.0], y, SHARES, "{:.0%}".format, "{:.0%}".format)
    for i, ((kind, errors), colour) in enumerate(zip(lines.items(), COLOURS, strict=False)):
        off = sorted(abs(math.exp(e) - 1) for e in errors)
        reached = [(v, (n + 1) / len(off)) for n, v in enumerate(off) if x.low <= v <= x.high]
        points = path([(x.at(v), y.at(share)) for v, share in reached[:: max(1, len(reached) // 200)]])
        yield f'<path d="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        yield from legend([(kind, f'fill="{colour}"')], FLOOR + 40 + 17 * i, x.start)
