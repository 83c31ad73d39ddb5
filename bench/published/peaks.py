"""Intervals of memory, from measured peaks: `python -m budget.bench.published.peaks TABLE.csv ...`.

Nothing of memory is fitted: what is off is what a program does besides, and what a page does not say of it.
So whoever asks is another publication: each judges the interval that all others give it. One of n rows counts
as the root of n, since its rows are off together, but not alike. Of a row of a true test the error is what it
was before anything was changed, as its notes say: what was mended since says nothing of the next page. What
was off by more than a factor of three was of something else, as of a whole pipeline, and is read anew.
--write puts the intervals into budget/data.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import median

from budget import stack as stacks
from budget.answer.held import INTERVALS, SIZES
from budget.files import replace
from budget.measured.validation import p90
from budget.named import Any, NamedTuple
from budget.table import DATA

from .intervals import COVERAGE, DRAWN, parts
from .measured import publication
from .predict import predict
from .table import read

ABOUT = {
    "note": "Within what of a predicted size nine of ten measured ones lie: of peaks as pages state them"
    " (tests/data), of true tests as they were off first; nothing of it is fitted. By stack and by what was"
    " measured, drawn to the median of those that train, or serve; '': of a stack that nobody measured.",
    "source": "split-conformal",
}
ANY = ""  # a stack that no publication has
ELSE = math.log(3)
FIRST = re.compile(r"\bfirst (?:([+-][\d.]+)%|([\d.]+) of measured)")  # predicted, in a true test's notes


class Peak(NamedTuple):
    """A measured size and its error: the logarithm of measured over predicted."""

    id: str
    source: str
    stack: str
    mode: str
    quantity: str
    error: float

    @property
    def group(self) -> tuple[str, str, str]:
        """Rows whose errors are alike."""
        return self.mode, self.quantity, self.stack


Ends = tuple[float, float]


def main(argv: list[str]) -> int:
    """Print the intervals and how many rows they hold, and write them if asked to."""
    parser = argparse.ArgumentParser(prog="python -m budget.bench.published.peaks", description=__doc__)
    parser.add_argument("tables", nargs="+", metavar="TABLE.csv")
    parser.add_argument("--write", action="store_true", help="put the intervals into budget/data")
    options = parser.parse_args(argv)
    found = list(peaks(options.tables))
    within = intervals(found)
    print("\n".join(_lines(found, within)))
    if options.write:
        replace(os.path.join(DATA, INTERVALS), json.dumps({**ABOUT, **_told(within)}, indent=2) + "\n")
    return 0


def peaks(tables: Iterable[str]) -> Iterator[Peak]:
    """The rows that measured what a run holds; no weights, caches or shares."""
    for path in tables:
        of, rows = read(path)
        for row in rows:
            for p in predict(of, row):
                if p.asked is not None and p.asked.size and p.asked.measured:
                    error = _error(p.asked.measured / p.predicted, row.get("notes", ""))
                    source = publication(row["source"])
                    name = stacks.load(p.stack).same or p.stack
                    yield Peak(row["id"], source, name, p.mode, SIZES[p.asked.size], error)


def _error(ratio: float, notes: str) -> float:
    """The logarithm of measured over predicted: over what was predicted first, where notes say it."""
    told = FIRST.search(notes)
    first = -math.log(1 + float(told[1]) / 100 if told[1] else float(told[2])) if told else math.inf
    return first if abs(first) <= ELSE else math.log(ratio)


def intervals(found: Sequence[Peak]) -> dict[tuple[str, str, str], Ends]:
    """By mode, quantity and stack, logarithms of the ends of what holds nine of ten: the group's usual error,
    drawn to that of its mode, times what holds nine of ten errors in the unit that a group would have had
    without their publication. A stack without rows has the errors of all others that were measured so.
    """
    weights = {source: n**-0.5 for source, n in Counter(p.source for p in found).items()}
    usual = {mode: _usual(of, weights) for mode, of in parts(found, lambda p: p.mode).items()}

    def unit(of: Sequence[Peak], mode: str) -> float:
        n = len({p.source for p in of})
        return (n * (_usual(of, weights) if of else 0) + DRAWN * usual[mode]) / (n + DRAWN)

    ends = {}
    for of in (lambda p: p.group, lambda p: (p.mode, p.quantity, ANY)):
        groups = parts(found, of)
        sizes: dict[str, list[tuple[float, float]]] = {}
        for (mode, *_), rows in groups.items():
            for source, own in parts(rows, lambda p: p.source).items():
                scale = unit([p for p in rows if p.source != source], mode)
                sizes.setdefault(mode, []).extend((p.error / scale, weights[source]) for p in own)
        for group, rows in groups.items():
            low, high = (quantile(sizes[group[0]], q) for q in ((1 - COVERAGE) / 2, (1 + COVERAGE) / 2))
            scale = unit(rows, group[0])
            ends[group] = (min(low * scale, 0.0), max(high * scale, 0.0))
    return ends


def quantile(values: Iterable[tuple[float, float]], part: float) -> float:
    """The least value that so large a part of all weights does not exceed."""
    ordered = sorted(values)
    most, sum_ = part * sum(w for _, w in ordered), 0.0
    for value, weight in ordered:
        sum_ += weight
        if sum_ >= most * (1 - 1e-12):
            return value
    return ordered[-1][0]


def held(found: Sequence[Peak]) -> dict[str, bool]:
    """By row, whether its error lies within the interval that it would have had without its publication."""
    within: dict[str, bool] = {}
    for source, own in parts(found, lambda p: p.source).items():
        ends = intervals([p for p in found if p.source != source])
        for p in own:
            low, high = ends.get(p.group) or ends.get((p.mode, p.quantity, ANY)) or (0.0, 0.0)
            within[p.id] = low <= p.error <= high
    return within


def _usual(of: Sequence[Peak], weights: Mapping[str, float]) -> float:
    """The median error: a page that contradicts itself must not rule its group."""
    return quantile(((abs(p.error), weights[p.source]) for p in of), 0.5)


def _told(within: Mapping[tuple[str, str, str], Ends]) -> dict[str, Any]:
    """The intervals as the file has them: factors by mode, stack and quantity."""
    told: dict[str, Any] = {}
    for (mode, quantity, stack), ends in sorted(within.items(), key=lambda kv: (kv[0][0], kv[0][2])):
        told.setdefault(mode, {}).setdefault(stack, {})[quantity] = [round(math.exp(e), 3) for e in ends]
    for of in told.values():
        for quantity in SIZES.values():  # what nobody measured is no surer than what somebody did
            lows, highs = zip(*of[ANY].values(), strict=True)
            of[ANY].setdefault(quantity, [min(lows), max(highs)])
    return told


def _lines(found: Sequence[Peak], within: Mapping[tuple[str, str, str], Ends]) -> Iterator[str]:
    inside = held(found)
    yield f"{'':<40}{'rows':>5}{'pages':>6}{'median':>8}{'p90':>7}{'from':>7}{'to':>6}{'inside':>8}"
    for of in (lambda p: p.group, lambda p: (p.mode, p.quantity, ANY), lambda p: (p.mode, "all", ANY)):
        for group, rows in sorted(parts(found, of).items()):
            errors = [abs(math.expm1(-p.error)) for p in rows]
            pages, share = len({p.source for p in rows}), sum(inside[p.id] for p in rows) / len(rows)
            ends = "".join(f"{math.exp(e):6.2f}" for e in within.get(group, ()))
            yield (
                f"{' '.join(group):<40}{len(rows):5}{pages:6}{median(errors):8.1%}{p90(errors):7.0%} "
                f"{ends:12}{share:8.0%}"
            )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
