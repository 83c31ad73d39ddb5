"""Schedules of pipelines, written out: what they leave idle and hold at once is what their papers say."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budget.errors import InputError
from budget.fold.timeline import BACKWARD, FORWARD, INPUTS, WEIGHTS, order, timeline

PLAIN = ("gpipe", "1f1b", "zb_h1")
CASES = [
    *((how, p, m, 1) for how in PLAIN for p, m in ((1, 3), (2, 2), (4, 4), (4, 9), (8, 32))),
    *(("interleaved", p, m, v) for p, m, v in ((2, 4, 2), (4, 8, 2), (8, 16, 4), (4, 4, 3))),
    *(("dualpipe", p, m, 1) for p, m in ((2, 4), (4, 8), (8, 20))),
]


def ran(how, p, m, v=1, f=1.0, b=2.0, w=1.0, message=0.0):
    taken = {FORWARD: f / v, BACKWARD: b / v, INPUTS: (b - w) / v, WEIGHTS: w / v}
    return timeline(order(how, p, m, v), lambda _, x: taken[x.what], message)


@pytest.mark.parametrize(("how", "p", "m", "v"), CASES)
def test_every_pass_runs_once_and_after_what_it_needs(how, p, m, v):
    found = ran(how, p, m, v)
    ways = 2 if how == "dualpipe" else 1
    forward = [(x.run.micro, x.run.stage, x.run.way) for x in found if x.run.what == FORWARD]
    whole = [(x.run.micro, x.run.stage, x.run.way) for x in found if x.run.what in (BACKWARD, INPUTS)]
    wanted = set(itertools.product(range(m // ways), range(p * v), range(ways)))
    assert set(forward) == set(whole) == wanted
    assert len(forward) == len(whole) == len(wanted)
    ends = {(x.run.what, x.run.micro, x.run.stage, x.run.way): x.end for x in found}
    for x in found:
        if x.run.what == FORWARD and x.run.stage:
            assert x.start >= ends[FORWARD, x.run.micro, x.run.stage - 1, x.run.way]
        if x.run.what == INPUTS:
            assert ends[WEIGHTS, *x.run[1:4]] > x.end
    for rank in range(p):
        mine = [x for x in found if x.rank == rank and not x.run.beside]
        pairs = {(x.start, x.end) for x in found if x.rank == rank and x.run.beside}
        assert all(a.end <= b.start or (b.start, b.end) in pairs for a, b in itertools.pairwise(mine))
        assert sum(1 for x in found if x.rank == rank and x.run.what == FORWARD) == m * v


@pytest.mark.parametrize(("p", "m"), [(2, 4), (4, 8), (8, 16), (8, 32)])
@pytest.mark.parametrize("v", [1, 2, 4])
def test_what_is_idle(p, m, v):
    """F = W = 1, B = 2. Sources: GPipe, Megatron-LM, zero bubble, DualPipe (table 2, F and B at once as
    one).
    """
    f, b, w = 1, 2, 1
    idle = {
        "gpipe": (p - 1) * (f + b),
        "1f1b": (p - 1) * (f + b),
        "zb_h1": (p - 1) * (f + b - 2 * w),
        "dualpipe": (p // 2 - 1) * (f + b + b - 3 * w),
    }
    wanted = {"interleaved": (p - 1) * (f + b) / v} if v > 1 else idle
    for how, seconds in wanted.items():
        assert max(x.end for x in ran(how, p, m, v)) - m * (f + b) == pytest.approx(seconds), how


def held(found, rank):
    """Stages' activations that a rank holds at most, from a forward pass to the last use of it."""
    changes = []
    apart = {x.run[1:4] for x in found if x.rank == rank and x.run.what == WEIGHTS}
    for x in (x for x in found if x.rank == rank):
        if x.run.what == FORWARD:
            changes.append((x.start, 1))
        elif x.run.what == WEIGHTS or x.run[1:4] not in apart:
            changes.append((x.end, -1))
    return max(itertools.accumulate(change for _, change in sorted(changes)))


def test_what_is_held():
    """In stages: 1F1B as many as ranks follow, interleaved of each a part more, ZB-H1 never above 1F1B's
    most.
    """
    p, m = 4, 16
    for rank in range(p):
        assert held(ran("gpipe", p, m), rank) == m
        assert held(ran("1f1b", p, m), rank) == p - rank
        assert held(ran("interleaved", p, m, 3), rank) == 2 * (p - rank - 1) + 2 * p + 1
        assert held(ran("zb_h1", p, m), rank) <= p
        assert held(ran("dualpipe", p, m), rank) <= p + 1


@given(st.sampled_from(CASES), st.floats(0.1, 5), st.floats(0.1, 5), st.floats(0, 1))
def test_more_seconds_never_end_sooner(case, f, b, message):
    sooner = max(x.end for x in ran(*case, f, b, b / 2, message))
    assert max(x.end for x in ran(*case, 1.1 * f, b, b / 2, message)) >= sooner - 1e-9
    assert max(x.end for x in ran(*case, f, b, b / 2, message + 0.1)) >= sooner - 1e-9


@pytest.mark.parametrize(
    ("case", "field"),
    [
        (("interleaved", 4, 6, 2), "layout.pp"),
        (("dualpipe", 3, 12), "layout.schedule"),
        (("1f1b", 64, 10**6), "layout"),
    ],
)
def test_errors(case, field):
    with pytest.raises(InputError) as error:
        order(*case)
    assert error.value.field == field
