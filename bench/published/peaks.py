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

from .intervals import COVERAGE, parts
from .measured import publication
from .predict import predict
from .table import read

# What a true test's notes say that its page was predicted before it was read.
FIRST = re.compile(r"\bfirst (?:([+-][\d.]+) ?%|([\d.]+) of (?:measured|the time))")
ABOUT = {
    "note": "The least within which of a predicted size nine of ten measured ones lie: of peaks as pages"
    " state them (tests/data), of true tests as they were off first; nothing of it is fitted. By stack and by"
    " what was measured, mixed with other stacks, and with all that trains, or serves; '': of a stack that"
    " nobody measured.",
    "source": "split-conformal",
}
ANY = ""  # a stack that no publication has
ELSE = math.log(3)
OTHERS = 8  # as many publications of other software are mixed with a stack's own: of few, one would rule


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
Weighed = tuple[float, float]  # an error, and its weight


def main(argv: list[str]) -> int:
    """Print the intervals and how many rows they hold, and write them if asked to."""
    parser = argparse.ArgumentParser(prog="python -m budget.bench.published.peaks", description=__doc__)
    parser.add_argument("tables", nargs="+", metavar="TABLE.csv")
    parser.add_argument("--write", action="store_true", help="put the intervals into budget/data")
    options = parser.parse_args(argv)
    rows = list(peaks(options.tables))
    within = intervals(rows)
    print("\n".join(_lines(rows, within)))
    if options.write:
        replace(os.path.join(DATA, INTERVALS), json.dumps({**ABOUT, **_table(within)}, indent=2) + "\n")
    return 0


def peaks(tables: Iterable[str]) -> Iterator[Peak]:
    """The rows that measured what a run holds; no weights, caches or shares."""
    for path in tables:
        kind, rows = read(path)
        for row in rows:
            for p in predict(kind, row):
                if p.asked is not None and p.asked.size and p.asked.measured:
                    error = _error(p.asked.measured / p.predicted, row.get("notes", ""))
                    source = publication(row["source"])
                    name = stacks.load(p.stack).same or p.stack
                    yield Peak(row["id"], source, name, p.mode, SIZES[p.asked.size], error)


def first(notes: str) -> float | None:
    """The logarithm of predicted over measured before anything was changed, where a true test's notes say it:
    `first 0.86 of measured`, `first -14 %`.
    """
    match = FIRST.search(notes)
    return match and math.log(1 + float(match[1]) / 100 if match[1] else float(match[2]))


def _error(ratio: float, notes: str) -> float:
    """The logarithm of measured over predicted: over what was predicted first, where notes say it."""
    then = first(notes)
    return math.log(ratio) if then is None or abs(then) > ELSE else -then


def intervals(rows: Sequence[Peak]) -> dict[tuple[str, str, str], Ends]:
    """By mode, quantity and stack, logarithms of the ends of the least that holds nine of ten: of the stack's
    own errors, mixed with those of all that was measured so, and these with those of all of the mode. A stack
    without rows has what it would be mixed with.
    """
    weights = {source: n**-0.5 for source, n in Counter(p.source for p in rows).items()}
    ends = {}
    for mode, run_so in parts(rows, lambda p: p.mode).items():
        every = [(p.error, weights[p.source]) for p in run_so]
        for quantity, measured in parts(run_so, lambda p: p.quantity).items():
            others = _mixed(measured, every, weights)
            ends[mode, quantity, ANY] = shortest(others)
            for stack, own in parts(measured, lambda p: p.stack).items():
                ends[mode, quantity, stack] = shortest(_mixed(own, others, weights))
    return ends


def _mixed(peaks: Sequence[Peak], others: Sequence[Weighed], weights: Mapping[str, float]) -> list[Weighed]:
    """Errors that weigh as much as they have publications, with others that weigh as much as OTHERS have."""
    own = [(p.error, weights[p.source]) for p in peaks]
    pages = len({p.source for p in peaks})
    return [
        (error, weight * most / sum(w for _, w in errors))
        for errors, most in ((own, pages), (others, OTHERS))
        for error, weight in errors
    ]


def shortest(errors: Iterable[Weighed], part: float = COVERAGE) -> Ends:
    """The ends around 0 of the shortest interval that holds so large a part of all weights."""
    ordered = sorted(errors)
    least, inside, end = part * sum(w for _, w in ordered) * (1 - 1e-12), 0.0, 0
    candidates = []
    for low, weight in ordered:
        while inside < least and end < len(ordered):
            inside += ordered[end][1]
            end += 1
        if inside < least:
            break
        candidates.append((min(low, 0.0), max(ordered[end - 1][0], 0.0)))
        inside -= weight
    return min(candidates, key=lambda ends: ends[1] - ends[0])


def held(rows: Sequence[Peak]) -> dict[str, bool]:
    """By row, whether its error lies within the interval that it would have had without its publication."""
    within: dict[str, bool] = {}
    for source, own in parts(rows, lambda p: p.source).items():
        ends = intervals([p for p in rows if p.source != source])
        for p in own:
            low, high = ends.get(p.group) or ends.get((p.mode, p.quantity, ANY)) or (0.0, 0.0)
            within[p.id] = low <= p.error <= high
    return within


def _table(within: Mapping[tuple[str, str, str], Ends]) -> dict[str, Any]:
    """The intervals as the file has them: factors by mode, stack and quantity."""
    table: dict[str, Any] = {}
    for (mode, quantity, stack), ends in sorted(within.items(), key=lambda kv: (kv[0][0], kv[0][2])):
        table.setdefault(mode, {}).setdefault(stack, {})[quantity] = [round(math.exp(e), 3) for e in ends]
    for by_stack in table.values():
        for quantity in SIZES.values():  # what nobody measured is no surer than what somebody did
            lows, highs = zip(*by_stack[ANY].values(), strict=True)
            by_stack[ANY].setdefault(quantity, [min(lows), max(highs)])
    return table


def _lines(rows: Sequence[Peak], within: Mapping[tuple[str, str, str], Ends]) -> Iterator[str]:
    inside = held(rows)
    yield f"{'':<40}{'rows':>5}{'pages':>6}{'median':>8}{'p90':>7}{'from':>7}{'to':>6}{'inside':>8}"
    for key in (lambda p: p.group, lambda p: (p.mode, p.quantity, ANY), lambda p: (p.mode, "all", ANY)):
        for group, own in sorted(parts(rows, key).items()):
            errors = [abs(math.expm1(-p.error)) for p in own]
            pages, share = len({p.source for p in own}), sum(inside[p.id] for p in own) / len(own)
            ends = "".join(f"{math.exp(e):6.2f}" for e in within.get(group, ()))
            yield (
                f"{' '.join(group):<40}{len(own):5}{pages:6}{median(errors):8.1%}{p90(errors):7.0%} "
                f"{ends:12}{share:8.0%}"
            )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
