"""What pictures are drawn with: texts, lines, round ticks, legends, colours for light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from html import escape

from ..fold.memory import KINDS

WIDTH, LEFT, RIGHT = 760, 76, 20  # pixels
# Okabe and Ito's colours, which people with any colour vision tell apart. Source: okabe-ito
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
COLOUR = dict(zip(KINDS, COLOURS, strict=True))
# Pixels of characters at 12 pixels, as wide as DejaVu Sans has them, the widest of the usual fonts. Derived.
WIDE, NARROW = dict.fromkeys("mwMW%@", 11.6), dict.fromkeys("fijlrtI.,:;|()[] ", 4.5)
CHARACTER = 7.5  # of all others
# The class keeps a picture's rules from the page that it stands on.
STYLE = (
    ".cb text{font:12px system-ui,sans-serif;fill:#222}.cb .head{font-weight:600;font-size:15px}"
    ".cb .end{text-anchor:end}.cb .middle{text-anchor:middle}.cb .page{fill:#fff}.cb .bar{fill:#222}"
    ".cb .grid{stroke:#ddd}.cb .axis{stroke:#999}.cb .whisker{stroke:#222}"
    ".cb .limit{stroke:#222;stroke-dasharray:5}"
    "@media(prefers-color-scheme:dark){.cb text{fill:#e6edf3}.cb .page{fill:#0d1117}"
    ".cb .bar{fill:#e6edf3}.cb .grid{stroke:#30363d}.cb .limit,.cb .whisker{stroke:#e6edf3}}"
)


def drawing(body: Iterable[str], height: float, label: str) -> str:
    """An SVG element of its own."""
    box = f'viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(label)}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" class="cb" {box}>'
    return "\n".join(
        [head, f'<style>{STYLE}</style><rect width="100%" height="100%" class="page"/>', *body, "</svg>"]
    )


def text(x: float, y: float, words: str, look: str = "") -> str:
    """A line of text; look: a class of STYLE."""
    kind = f' class="{look}"' if look else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{kind}>{escape(words)}</text>'


def across(words: str) -> float:
    """Pixels that a text takes, about."""
    return sum(WIDE.get(c) or NARROW.get(c, CHARACTER) for c in words)


def apart(texts: Iterable[tuple[float, float, str]]) -> Iterator[str]:
    """Texts at their places, without those that would run into an earlier one."""
    placed: list[tuple[float, float, float]] = []
    for x, y, words in texts:
        end = x + across(words)
        if all(end <= start or stop <= x or abs(y - at) >= 12 for start, stop, at in placed):
            placed.append((x, end, y))
            yield text(x, y, words)


def line(x1: float, y1: float, x2: float, y2: float, look: str) -> str:
    """A straight line; look: a class of STYLE."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{look}"/>'


def legend(items: Sequence[tuple[str, str]], y: float, x: float = LEFT, end: float = WIDTH) -> Iterator[str]:
    """Words behind squares, on as many lines up to `end` as they need. items: words, and their square's
    attributes.
    """
    start = x
    for words, look in items:
        width = 14 + across(words) + 16
        if x + width > end and x > start:
            x, y = start, y + 17
        yield f'<rect x="{x:.1f}" y="{y - 9:.1f}" width="10" height="10" {look}/>'
        yield text(x + 14, y, words)
        x += width


BYTES = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B"))
SECONDS = (
    (86400.0, "days"),
    (3600.0, "h"),
    (60.0, "min"),
    (1.0, "s"),
    (1e-3, "ms"),
    (1e-6, "us"),
    (1e-9, "ns"),
)


def ticks(most: float, units: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """About five round values from 0 to `most` with their labels, in the largest unit that is not much
    more than `most`.
    """
    unit, name = next((u for u in units if most >= u[0] / 2), units[-1])
    values = between(0.0, most / unit)
    return [(v * unit, f"{v:{',.0f' if v == int(v) else 'g'}} {name}" if v else "0") for v in values]


def between(low: float, high: float, about: int = 5) -> list[float]:
    """About so many round values from `low` to `high`: multiples of 1, 2 or 5 times a power of ten."""
    least = (high - low) / about
    power = 10.0 ** math.floor(math.log10(least))
    step = next(power * n for n in (1, 2, 5, 10) if power * n >= least * 0.999)
    first, last = math.ceil(low / step - 1e-4), math.floor(high / step + 1e-4)
    return [i * step for i in range(first, last + 1)]
