"""A pipeline's schedule in full: what each rank runs, in order, and when it begins and ends.

For pictures and traces of single cases; fold/pipeline.py has the formulas, which tests hold against this.
Sources: gpipe, megatron-lm-2021, zero-bubble, dualpipe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..errors import InputError, wrong
from ..named import NamedTuple

FORWARD, BACKWARD, INPUTS, WEIGHTS = "forward", "backward", "backward of inputs", "backward of weights"
MOST = 1_000_000  # passes that are listed


class Pass(NamedTuple):
    """What a rank runs: a pass of one micro-batch through one stage.

    stage: of all of the pipeline's, interleaved ones too. way: of two pipelines that run towards each other.
    beside: whether it runs together with the next one, so that both begin and end at the same time.
    """

    what: str
    micro: int
    stage: int
    way: int = 0
    beside: bool = False


class Ran(NamedTuple):
    """A pass with its rank and its seconds from the beginning of the step."""

    rank: int
    run: Pass
    start: float
    end: float


class Shape(NamedTuple):
    """A pipeline: its ranks, its micro-batches and the chunks of each rank."""

    ranks: int
    micro: int
    chunks: int


Order = tuple[tuple[Pass, ...], ...]


def order(schedule: str, ranks: int, micro: int, chunks: int = 1) -> Order:
    """What each rank runs, in order. Raises InputError for what is too long to write out, or cannot be."""
    if 3 * ranks * micro * chunks > MOST:
        raise InputError("layout", f"{ranks * micro * chunks:,} passes; allowed: {MOST // 3:,} written out")
    if schedule == "interleaved" and micro % ranks:
        raise wrong("layout.pp", ranks, f"divisors of the micro-batches, {micro}")
    if schedule == "dualpipe" and (ranks % 2 or micro % 2 or micro < 2 * ranks):
        raise InputError("layout.schedule", "dualpipe wants even stages and twice as many micro-batches")
    write = {
        "gpipe": _gpipe,
        "1f1b": _one_forward_one_backward,
        "interleaved": _interleaved,
        "zb_h1": _zero_bubble,
        "dualpipe": _dual,
    }[schedule]
    return tuple(tuple(write(rank, Shape(ranks, micro, chunks))) for rank in range(ranks))


def _gpipe(rank: int, shape: Shape) -> Iterator[Pass]:
    yield from (Pass(FORWARD, i, rank) for i in range(shape.micro))
    yield from (Pass(BACKWARD, i, rank) for i in reversed(range(shape.micro)))


def _one_forward_one_backward(rank: int, shape: Shape) -> Iterator[Pass]:
    """Forward passes until the first gradient arrives, then one of each."""
    yield from _steady(
        [Pass(FORWARD, i, rank) for i in range(shape.micro)],
        [Pass(BACKWARD, i, rank) for i in range(shape.micro)],
        shape.ranks - rank - 1,
    )


def _interleaved(rank: int, shape: Shape) -> Iterator[Pass]:
    """The same over a device's chunks: as many micro-batches as there are ranks go through one, then the
    next.
    """
    rounds = [
        (first + i, chunk)
        for first in range(0, shape.micro, shape.ranks)
        for chunk in range(shape.chunks)
        for i in range(shape.ranks)
    ]
    forward = [Pass(FORWARD, i, chunk * shape.ranks + rank) for i, chunk in rounds]
    backward = [Pass(BACKWARD, i, (shape.chunks - 1 - chunk) * shape.ranks + rank) for i, chunk in rounds]
    yield from _steady(forward, backward, 2 * (shape.ranks - rank - 1) + (shape.chunks - 1) * shape.ranks)


def _steady(forward: Sequence[Pass], backward: Sequence[Pass], ahead: int) -> Iterator[Pass]:
    """So many forward passes ahead of the first backward one, then in turn, then what is left."""
    ahead = min(ahead, len(forward))
    yield from forward[:ahead]
    for f, b in zip(forward[ahead:], backward, strict=False):
        yield from (f, b)
    yield from backward[len(forward) - ahead :]


def _zero_bubble(rank: int, shape: Shape) -> Iterator[Pass]:
    """ZB-H1: weights' gradients wait, as many as the rank's number, to fill what 1F1B leaves idle at the
    end.
    """
    waiting: list[Pass] = []
    for p in _one_forward_one_backward(rank, shape):
        if p.what == FORWARD:
            yield p
            continue
        yield p._replace(what=INPUTS)
        waiting.append(p._replace(what=WEIGHTS))
        if len(waiting) > rank:
            yield waiting.pop(0)
    yield from waiting


def _dual(rank: int, shape: Shape) -> Iterator[Pass]:
    """DualPipe: micro-batches enter at both ends; each rank has a stage of both ways. Its own eight steps."""
    half, near = shape.ranks // 2, min(rank, shape.ranks - 1 - rank)
    second = rank >= half
    counts: dict[tuple[str, int], int] = {}
    waiting: list[Pass] = []

    def run(what: str, phase: int, apart: bool = False, beside: bool = False) -> Iterator[Pass]:
        way = phase ^ second
        i = counts.get((what, way), 0)
        counts[what, way] = i + 1
        stage = shape.ranks - 1 - rank if way else rank
        if apart:
            waiting.append(Pass(WEIGHTS, i, stage, way))
        yield Pass(INPUTS if apart else what, i, stage, way, beside)

    def pair(phase: int) -> Iterator[Pass]:
        yield from (*run(FORWARD, phase, beside=True), *run(BACKWARD, 1 - phase))

    for _ in range(2 * (half - near - 1)):
        yield from run(FORWARD, 0)
    for _ in range(near + 1):
        yield from (*run(FORWARD, 0), *run(FORWARD, 1))
    for _ in range(half - near - 1):
        yield from run(BACKWARD, 1, apart=True)
        yield waiting.pop(0)
        yield from run(FORWARD, 1)
    for i in range(shape.micro // 2 - shape.ranks + near + 1):
        together = i > 0 or near < half - 1  # the middle ranks begin with two passes apart
        yield from pair(0) if together else (*run(FORWARD, 0), *run(BACKWARD, 1))
        yield from pair(1)
    for _ in range(half - near - 1):
        yield from (*run(BACKWARD, 1), *pair(1))
    apart, steps = False, near + 1
    for i in range(steps):
        apart = apart or (i == steps // 2 and near % 2 == 1)
        yield from run(BACKWARD, 1, apart)
        apart = apart or (i == steps // 2 and near % 2 == 0)
        yield from run(BACKWARD, 0, apart)
    for _ in range(half - near - 1):
        yield waiting.pop(0)
        yield from run(BACKWARD, 0, apart=True)
    yield from waiting


def timeline(order: Order, seconds: Callable[[int, Pass], float], message: float = 0.0) -> list[Ran]:
    """When everything runs: as soon as its rank is free and what it needs is there, `message` seconds after
    another rank made it. In the order in which passes end on each rank, rank by rank.
    """
    last = max(p.stage for passes in order for p in passes)
    rank_of = {(p.stage, p.way): rank for rank, passes in enumerate(order) for p in passes}
    ended: dict[tuple[str, int, int, int], float] = {}
    free, at = [0.0] * len(order), [0] * len(order)
    by_rank: list[list[Ran]] = [[] for _ in order]
    going = True
    while going:
        going = False
        for rank, passes in enumerate(order):
            while at[rank] < len(passes):
                both = passes[at[rank] : at[rank] + 1 + passes[at[rank]].beside]
                ready = [_ready(p, last, ended, rank_of, message) for p in both]
                if None in ready:
                    break
                start = max(free[rank], *filter(None, ready), 0.0)
                free[rank] = start + sum(seconds(rank, p) for p in both)
                for p in both:
                    by_rank[rank].append(Ran(rank, p, start, free[rank]))
                    ended[_key(p)] = free[rank]
                at[rank], going = at[rank] + len(both), True
    if any(n < len(passes) for n, passes in zip(at, order, strict=True)):
        raise InputError("layout.schedule", "its ranks wait for each other for ever")
    return [ran for ranked in by_rank for ran in ranked]


def _key(p: Pass) -> tuple[str, int, int, int]:
    """What others wait for: a gradient is there with its backward pass, or the part of it that makes
    inputs'.
    """
    return (BACKWARD if p.what == INPUTS else p.what, p.micro, p.stage, p.way)


def _ready(
    p: Pass,
    last: int,
    ended: dict[tuple[str, int, int, int], float],
    rank_of: dict[tuple[int, int], int],
    message: float,
) -> float | None:
    """When what a pass needs is ready; None if that is not known yet."""
    if p.what == FORWARD:
        needs = (FORWARD, p.micro, p.stage - 1, p.way) if p.stage else None
    elif p.what == WEIGHTS:
        needs = (BACKWARD, p.micro, p.stage, p.way)
    else:
        at_end = p.stage == last
        needs = (FORWARD, p.micro, p.stage, p.way) if at_end else (BACKWARD, p.micro, p.stage + 1, p.way)
    if needs is None:
        return 0.0
    if needs not in ended:
        return None
    apart = rank_of[needs[2], p.way] != rank_of[p.stage, p.way]
    return ended[needs] + (message if apart else 0.0)
