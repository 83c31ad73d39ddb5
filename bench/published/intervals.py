"""Intervals from the errors of rows that a fit left out, and whether other rows' errors lie inside."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from budget.device.generation import interval_on
from budget.measured.calibration import interval
from budget.named import Any, NamedTuple

from .measured import Case
from .side_by_side import side_by_side

COVERAGE = 0.9
DRAWN = 3  # a group's errors are averaged with so many mean errors, so that one of a few does not rule
FEWEST = 2  # the fewest rows of a pair that has an interval of its own
PROMPT = "ttft_s"  # the quantity whose errors have a width of their own

Errors = Mapping[str, float]  # logarithms of predicted over measured, by a row's key


class Group(NamedTuple):
    """How rows are grouped: by alike errors (`of`), and within a group by errors that are not independent
    (`together`).
    """

    of: Callable[[Case], Any]
    together: Callable[[Case], Any]


KNOWN = Group(lambda c: (c.stack, c.generation), lambda c: c.key)
ELSEWHERE = Group(lambda c: c.stack, lambda c: c.generation)


class Powers(NamedTuple):
    """By how much more than others an answer is off, as powers of its interval's ends: a prompt's, and one
    whose time is all the host's.
    """

    prompt: float = 1.0
    host: float = 1.0

    def of(self, c: Case) -> float:
        """A row's."""
        return (self.prompt if c.quantity == PROMPT else 1.0) * (1 + (self.host - 1) * c.host)


class Widths(NamedTuple):
    """Factors within which nine of ten measured times lie: of a pair of a stack and a generation that was
    measured, of a stack on any other generation, of any other stack; and the powers of all of them.
    """

    here: Mapping[Any, float]
    elsewhere: Mapping[Any, float]
    anywhere: float
    powers: Powers

    def on(self, stack: str) -> dict[str, tuple[float, float]]:
        """A stack's intervals, as its file has them."""
        factors = {"": self.elsewhere[stack]} if stack in self.elsewhere else {}
        factors |= {generation: width for (name, generation), width in self.here.items() if name == stack}
        return {generation: (1 / width, width) for generation, width in factors.items()}

    def of(self, c: Case) -> float:
        """What an answer like this row has."""
        known = interval_on(self.on(c.stack), c.generation)
        width = known[1] if known else self.anywhere
        return width ** self.powers.of(c)


def intervals(cases: Sequence[Case], rows: Errors, pairs: Errors, sources: Errors, stacks: Errors) -> Widths:
    """The widths that the errors of rows, of pairs, of sources and of stacks left out give.

    No pair that trains is surer than all together, by sources left out: how far off a page is that nobody had
    read does not follow from how well its pair's rows fit (552 such rows: a rank correlation of 0.05).
    """
    powers = less_sure(cases, sources)
    rows, pairs, sources, stacks = (
        as_others(cases, errors, powers) for errors in (rows, pairs, sources, stacks)
    )
    counts = Counter(map(KNOWN.of, cases))
    trained = {KNOWN.of(c) for c in cases if c.trains}
    least = interval([sources[c.key] for c in cases if c.trains], COVERAGE)
    here = {
        g: max(width, least) if g in trained else width
        for g, width in widths(cases, rows, KNOWN, sources).items()
        if counts[g] >= FEWEST
    }
    anywhere = interval([stacks[c.key] for c in cases], COVERAGE)
    return Widths(here, widths(cases, pairs, ELSEWHERE, sources), anywhere, powers)


def less_sure(cases: Sequence[Case], errors: Errors) -> Powers:
    """How many times as large as other errors of what serves those of prompts are in the mean, and of these
    two, those of what waits for the host for all of its time.
    """
    serving = [c for c in cases if not c.trains]
    prompt = _times(serving, errors, lambda c: float(c.quantity == PROMPT))
    host = _times(serving, as_others(serving, errors, Powers(prompt)), lambda c: c.host)
    return Powers(prompt, max(host, 1.0))


def _times(cases: Sequence[Case], errors: Errors, part: Callable[[Case], float]) -> float:
    """How many times as large as those of none of a kind the errors are of what is all of it, by the line
    through the errors of rows that are of it in part.
    """
    shares, sizes = [part(c) for c in cases], [abs(errors[c.key]) for c in cases]
    if len({*shares}) < 2:
        return 1.0
    slope, none = np.polyfit(shares, sizes, 1)
    return float((none + slope) / none) if none > 0 else 1.0


def as_others(cases: Iterable[Case], errors: Errors, powers: Powers) -> dict[str, float]:
    """The errors, with those of prompts, and of what waits for the host, as large as others'."""
    return {c.key: errors[c.key] / powers.of(c) for c in cases}


def widths(
    cases: Sequence[Case], errors: Errors, group: Group, sources: Errors | None = None
) -> dict[Any, float]:
    """By group, the factor within which nine of ten measured times lie: a group's mean error, drawn to that
    of all rows that train, or that serve, times what holds nine of ten errors in the unit that a group would
    have had without them.

    sources: the errors with each source left out, as who asks is often none of a group's sources. Groups are
    drawn to their means; of groups of several sources nine of ten of these are held, too.
    """
    far, usual = sources or errors, {}
    for trains, rows in parts(cases, lambda c: c.trains).items():
        usual[trains] = _mean(abs(far[c.key]) for c in rows)

    def unit(rows: Sequence[Case], known: Sequence[Case]) -> float:
        """A group's mean error, from some of its rows."""
        n, drawn = len({group.together(c) for c in known}), _mean(usual[c.trains] for c in rows)
        return (n * _mean(abs(errors[c.key]) for c in known) + DRAWN * drawn) / (n + DRAWN)

    def sizes(by: Errors, rows: Sequence[Case], apart: Callable[[Case], Any]) -> Iterator[tuple[bool, float]]:
        for key, part in parts(rows, apart).items():
            own = unit(rows, [c for c in rows if apart(c) != key])
            yield from ((c.trains, abs(by[c.key]) / own) for c in part)

    groups = parts(cases, group.of)
    kinds = [[size for rows in groups.values() for size in sizes(errors, rows, group.together)]]
    if sources:
        several = [rows for rows in groups.values() if len({c.source for c in rows}) > 1]
        kinds.append([size for rows in several for size in sizes(sources, rows, lambda c: c.source)])
    most = {trains: holding(trains, kinds) for trains in usual}
    return {g: math.exp(max(most[c.trains] for c in rows) * unit(rows, rows)) for g, rows in groups.items()}


def holding(trains: bool, kinds: Iterable[Iterable[tuple[bool, float]]]) -> float:
    """The bound of nine in ten sizes of each kind, for those that train, or that serve. Source:
    split-conformal.
    """
    apart = ([size for own, size in kind if own == trains] for kind in kinds)
    return max(math.log(interval(sizes, COVERAGE)) for sizes in apart if sizes)


def parts(rows: Iterable[Any], key: Callable[[Any], Any]) -> dict[Any, list[Any]]:
    """Rows by what they have in common."""
    apart: dict[Any, list[Any]] = {}
    for row in rows:
        apart.setdefault(key(row), []).append(row)
    return apart


def _mean(values: Iterable[float]) -> float:
    """0 of none."""
    several = list(values)
    return sum(several) / max(len(several), 1)


def held(
    cases: Sequence[Case], errors: Errors, left_out: Callable[[Case], Any], by: Sequence[Errors]
) -> dict[str, bool]:
    """By row, whether its error lies within the interval that an answer would have without the rows that are
    left out with it. by: see `intervals`.
    """
    apart = parts(cases, left_out)

    def inside(out: Any) -> dict[str, bool]:
        seen = intervals([c for c in cases if left_out(c) != out], *by)
        return {c.key: abs(errors[c.key]) <= math.log(seen.of(c)) for c in apart[out]}

    within: dict[str, bool] = {}
    for some in side_by_side(inside, [*apart]):
        within |= some
    return within
