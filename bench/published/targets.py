"""What most people ask, training on one node and inference on one GPU: errors of what was left out."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from statistics import median

from budget.measured.validation import p90
from budget.named import Any

from .intervals import Errors, held
from .layouts import NODE
from .measured import Case

FOLDS = 5

ASKED: Mapping[str, Callable[[Case], bool]] = {
    "training on one node": lambda c: c.trains and c.devices <= NODE,
    "inference on one GPU": lambda c: not c.trains and c.devices == 1,
    "inference on several GPUs": lambda c: not c.trains and c.devices > 1,
}


def fold(c: Case) -> int:
    """One of FOLDS parts of the rows, the same each time."""
    return sum(i * ord(letter) for i, letter in enumerate(c.id, 1)) % FOLDS


# What is left out together.
LEFT_OUT: Mapping[str, Callable[[Case], Any]] = {
    "a fifth of each pair": fold,
    "each pair of stack and device": lambda c: (c.stack, c.generation),
    "each source": lambda c: c.source,
    "each stack": lambda c: c.stack,
}


def targets(cases: Sequence[Case], errors: Mapping[str, Errors]) -> Iterator[str]:
    """The lines of the table. errors: as rows are `fitted`, and of each of LEFT_OUT.

    Inside are rows whose time lies in the interval that an answer would have had without what is left out.
    """
    by = tuple(errors[name] for name in LEFT_OUT)
    within = {name: held(cases, errors[name], LEFT_OUT.get(name, fold), by) for name in errors}
    sources: dict[str, set[str]] = {}
    for c in cases:
        sources.setdefault(c.stack, set()).add(c.source)
    yield "| asked | left out | rows | median error | 90th percentile | inside |"
    yield "|---|---|---:|---:|---:|---:|"
    for asked, wanted in ASKED.items():
        own = [c for c in cases if wanted(c)]
        kept = [c for c in own if len(sources[c.stack]) > 1]
        only = [c for c in own if len(sources[c.stack]) == 1]
        for name, rows in (
            ("fitted", own),
            ("a fifth of each pair", own),
            ("each pair of stack and device", own),
            ("each source, of stacks with others", kept),
            ("each source, of stacks with no other", only),
            ("each stack", own),
        ):
            if not rows:
                continue
            kind = name.split(",")[0]
            cells = (
                f"{spread([errors[kind][c.key] for c in rows])} | {share(within[kind][c.key] for c in rows)}"
            )
            yield f"| {asked} | {'nothing' if name == 'fitted' else name} | {len(rows)} | {cells} |"
        twice = published_twice(own, errors["fitted"])
        if twice:
            yield f"| {asked} | or predicted by another publication | {len(twice) // 2} | {spread(twice)} | |"


ALIKE = 0.01  # of a logarithm, by which predictions differ of rows that are the same to this tool


def published_twice(cases: Iterable[Case], errors: Errors) -> list[float]:
    """Errors, as logarithms, of predicting one publication by another that says the same of what was run: one
    stack, device, dtype and quantity, and nearly one prediction. Each two publications count once either way.
    errors: of the rows as fitted.
    """
    same: dict[Any, list[Case]] = defaultdict(list)
    for c in cases:
        same[c.stack, c.device.id, c.dtype, c.quantity].append(c)
    apart: dict[Any, list[float]] = defaultdict(list)
    for key, rows in same.items():
        for a, b in combinations(rows, 2):
            wrong = errors[a.key] - errors[b.key]
            if a.source != b.source and abs(wrong + a.measured - b.measured) < ALIKE:
                apart[key, frozenset((a.source, b.source))].append(abs(wrong))
    return [sign * median(of) for of in apart.values() for sign in (1, -1)]


def spread(errors: Sequence[float], between: str = " | ", digits: int = 1) -> str:
    """Median and 90th percentile of errors that are logarithms."""
    sizes = [abs(math.exp(e) - 1) for e in errors]
    return f"{median(sizes):.1%}{between}{p90(sizes):.{digits}%}"


def share(held: Iterable[bool]) -> str:
    """The share of what holds."""
    one = list(held)
    return f"{sum(one) / len(one):.0%}"
