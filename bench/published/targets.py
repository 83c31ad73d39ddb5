"""What most people ask, training on one node and inference on one GPU: errors of what was left out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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


def targets(found: Sequence[Case], errors: Mapping[str, Errors]) -> Iterator[str]:
    """The lines of the table. errors: as rows are `fitted`, and of each of LEFT_OUT.

    Inside are rows whose time lies in the interval that an answer would have had without what is left out.
    """
    by = tuple(errors[name] for name in LEFT_OUT)
    within = {name: held(found, errors[name], LEFT_OUT.get(name, fold), by) for name in errors}
    sources: dict[str, set[str]] = {}
    for c in found:
        sources.setdefault(c.stack, set()).add(c.source)
    yield "| asked | left out | rows | median error | 90th percentile | inside |"
    yield "|---|---|---:|---:|---:|---:|"
    for asked, wanted in ASKED.items():
        own = [c for c in found if wanted(c)]
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


def spread(errors: Sequence[float], between: str = " | ", digits: int = 1) -> str:
    """Median and 90th percentile of errors that are logarithms."""
    sizes = [abs(math.exp(e) - 1) for e in errors]
    return f"{median(sizes):.1%}{between}{p90(sizes):.{digits}%}"


def share(held: Iterable[bool]) -> str:
    """The share of what holds."""
    one = list(held)
    return f"{sum(one) / len(one):.0%}"
