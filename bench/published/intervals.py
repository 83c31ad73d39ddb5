"""Intervals from errors of rows that were left out, and whether those of other rows lie inside."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from budget.measured.calibration import interval
from budget.named import Any, NamedTuple

from .measured import Case

COVERAGE = 0.9
DRAWN = 3  # as many of a mean error are mixed with a group's own: of few, one would rule
FEWEST = 2  # rows of a pair with an interval of its own

Errors = Mapping[str, float]  # logarithms of predicted over measured, by a row's key


class Group(NamedTuple):
    """Rows whose errors are alike, and which of them are off together."""

    of: Callable[[Case], Any]
    together: Callable[[Case], Any]


KNOWN = Group(lambda c: (c.stack, c.generation), lambda c: c.key)
ELSEWHERE = Group(lambda c: c.stack, lambda c: c.generation)


class Widths(NamedTuple):
    """Factors within which nine of ten measured times lie: of a pair of a stack and a generation that was
    measured, of a stack on any other generation, of any other stack.
    """

    here: Mapping[Any, float]
    elsewhere: Mapping[Any, float]
    anywhere: float

    def of(self, c: Case) -> float:
        """What an answer like this row has."""
        return self.here.get(KNOWN.of(c)) or self.elsewhere.get(ELSEWHERE.of(c), self.anywhere)


def intervals(found: Sequence[Case], rows: Errors, pairs: Errors, sources: Errors) -> Widths:
    """The widths that the errors of rows, of pairs and of sources left out give."""
    counts: dict[Any, int] = {}
    for c in found:
        counts[KNOWN.of(c)] = counts.get(KNOWN.of(c), 0) + 1
    here = {g: width for g, width in widths(found, rows, KNOWN, sources).items() if counts[g] >= FEWEST}
    anywhere = interval([sources[c.key] for c in found], COVERAGE)
    return Widths(here, widths(found, pairs, ELSEWHERE), anywhere)


def widths(
    found: Sequence[Case], errors: Errors, group: Group, others: Errors | None = None
) -> dict[Any, float]:
    """By group, the factor within which nine of ten measured times lie: a group's mean error, drawn to the
    mean of all, times what holds nine of ten errors of all groups in that unit. Source: split-conformal.

    others: the errors to whose mean it is drawn: few rows, often one source's, say little of others.
    """
    sizes: dict[Any, list[float]] = {}
    apart: dict[Any, set[Any]] = {}
    for c in found:
        sizes.setdefault(group.of(c), []).append(abs(errors[c.key]))
        apart.setdefault(group.of(c), set()).add(group.together(c))
    mean = sum(abs((others or errors)[c.key]) for c in found) / len(found)
    units = {
        g: (len(apart[g]) * sum(of) / len(of) + DRAWN * mean) / (len(apart[g]) + DRAWN)
        for g, of in sizes.items()
    }
    most = math.log(interval([e / units[g] for g, of in sizes.items() for e in of], COVERAGE))
    return {g: math.exp(most * unit) for g, unit in units.items()}


def held(
    found: Sequence[Case], errors: Errors, left_out: Callable[[Case], Any], by: tuple[Errors, Errors, Errors]
) -> dict[str, bool]:
    """By row, whether its error lies within the interval that an answer would have had without the rows that
    are left out together with it. by: see `intervals`.
    """
    within: dict[str, bool] = {}
    for out in {left_out(c) for c in found}:
        seen = intervals([c for c in found if left_out(c) != out], *by)
        own = (c for c in found if left_out(c) == out)
        within |= {c.key: abs(errors[c.key]) <= math.log(seen.of(c)) for c in own}
    return within
