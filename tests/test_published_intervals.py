"""Intervals of fitted times: what holds nine in ten of what is left out, and of what is answered."""

import math

import numpy as np
import pytest
from budget.bench.published.intervals import (
    COVERAGE,
    KNOWN,
    PROMPT,
    Powers,
    Widths,
    held,
    holding,
    intervals,
    widths,
)
from published_tables import few_cases

import budget
from budget.device import software
from budget.fold.time import waiting


def test_an_interval_knows_nothing_of_what_is_left_out_with_a_row():
    """A stack left out is judged by what others give, a pair by its stack's other pairs."""
    rows = few_cases()
    errors = {c.key: (0.1 if c.stack == "gpt-fast" else 1.0) for c in rows}
    by = [errors] * 4
    for left_out in (lambda c: c.stack, lambda c: (c.stack, c.generation)):
        within = held(rows, errors, left_out, by)
        for out in {left_out(c) for c in rows}:
            more = {c.key: 5.0 if left_out(c) == out else errors[c.key] for c in rows}
            other = held(rows, errors, left_out, [more] * 4)
            assert all(other[c.key] == within[c.key] for c in rows if left_out(c) == out)
    apart = held(rows, errors, lambda c: c.stack, by)
    assert all(apart[c.key] == (c.stack == "gpt-fast") for c in rows)


def test_left_out_and_asked_by_a_user_a_pair_has_one_interval():
    """What the judge of pairs left out takes is what an answer of a file with these intervals says."""
    row = next(c for c in few_cases() if c.stack == "gpt-fast" and c.quantity == "tpot_s")
    within = Widths(
        {("gpt-fast", "sm80"): 2.0, ("gpt-fast", "sm90"): 1.4}, {"gpt-fast": 1.5}, 3.0, Powers(2.0)
    )
    answer = budget.estimate("gpt2", mode="decode", seq=128, device="h100", stack="gpt-fast")
    stack = answer.stack._replace(intervals=within.on("gpt-fast"))
    for generation, width in (("sm80", 2.0), ("sm90", 1.4), ("of nobody's", 2.0)):
        device = answer.device._replace(generation=generation)
        shared = answer.profile._replace(prompt=within.powers.prompt)
        for mode, quantity, wide in (("decode", "tpot_s", width), ("prefill", "ttft_s", width**2)):
            asked = software.profile(shared, device, stack, "bfloat16", mode=mode)
            assert (asked.low, asked.high) == pytest.approx((1 / wide, wide))
            assert within.of(row._replace(generation=generation, quantity=quantity)) == wide
    assert within.of(row._replace(stack="nobody's")) == 3.0


def test_prompts_have_wider_intervals_by_as_much_as_they_are_further_off():
    """Nine in ten of either are held, where one width for both would hold few prompts and all tokens."""
    drawn = np.random.default_rng(0)
    rows = [c._replace(id=f"{c.id} {k}", source=str(k)) for k in range(9) for c in few_cases()]
    errors = {c.key: drawn.normal(0, 0.3 if c.quantity == PROMPT else 0.1) for c in rows}
    within = intervals(rows, errors, errors, errors, errors)
    assert within.powers.prompt == pytest.approx(3, rel=0.2)
    for quantity in {c.quantity for c in rows}:
        inside = [abs(errors[c.key]) <= math.log(within.of(c)) for c in rows if c.quantity == quantity]
        assert np.mean(inside) == pytest.approx(COVERAGE, abs=0.05)


def test_the_longer_a_device_waits_for_its_host_the_wider_is_the_interval():
    """By as much as such rows are further off, and judged as it is answered: a model of a few small layers,
    eager, waits for most of a token, a large one for little of its prompt.
    """
    drawn = np.random.default_rng(0)
    rows = [
        c._replace(id=f"{c.id} {k}", source=str(k), host=k % 3 / 2) for k in range(36) for c in few_cases()
    ]
    errors = {c.key: drawn.normal(0, 0.1 * (1 + c.host)) for c in rows}
    within = intervals(rows, errors, errors, errors, errors)
    assert within.powers.host == pytest.approx(2, rel=0.25)
    for host in {c.host for c in rows}:
        inside = [abs(errors[c.key]) <= math.log(within.of(c)) for c in rows if c.host == host]
        assert np.mean(inside) == pytest.approx(COVERAGE, abs=0.05)
    asked = {"device": "h100", "stack": "transformers", "batch": 1}
    token = budget.estimate("gpt2", mode="decode", seq=128, **asked)
    prompt = budget.estimate("qwen3-8b", mode="prefill", seq=8192, **asked)
    for e in (token, prompt):
        row = rows[0]._replace(quantity="tpot_s", host=float(waiting(e.times)))
        assert e.interval[1] == pytest.approx(e.profile.high ** Powers(host=e.profile.host).of(row))
    assert token.times.overhead > 0.5 * token.times.step and token.interval[1] > prompt.interval[1]


def test_nine_of_ten_of_each_kind_are_held_of_what_trains_and_of_what_serves():
    drawn = np.random.default_rng(0)
    kinds = [[(bool(k % 3), x) for k, x in enumerate(drawn.exponential(by, 500))] for by in (1.0, 2.0)]
    for trains in (False, True):
        size = holding(trains, kinds)
        inside = [np.mean([x <= size for own, x in of if own == trains]) for of in kinds]
        assert min(inside) == pytest.approx(COVERAGE, abs=0.02)


def test_new_sources_that_are_far_off_widen_what_is_answered():
    rows = [c._replace(source=str(k % 3)) for k, c in enumerate(few_cases())]
    near, far = ({c.key: math.log(1.1) * by for c in rows} for by in (1, 3))
    known, strange = (widths(rows, near, KNOWN, sources) for sources in (near, far))
    assert all(known[g] == pytest.approx(1.1) for g in known)
    assert np.mean([far[c.key] <= 1.1 * math.log(strange[KNOWN.of(c)]) for c in rows]) >= COVERAGE


@pytest.mark.parametrize("trains", [False, True])
def test_no_pair_that_trains_is_surer_than_nine_of_ten_of_all_that_train(trains):
    rows = [c._replace(source=str(k), trains=trains) for k, c in enumerate(few_cases())]
    lucky = KNOWN.of(rows[0])
    errors = {c.key: math.log(1.01 if KNOWN.of(c) == lucky else 1.5) for c in rows}
    assert sum(KNOWN.of(c) != lucky for c in rows) > len(rows) / 5, "more than one in ten are off"
    here = intervals(rows, errors, errors, errors, errors).here
    assert (here[lucky] >= 1.5 * (1 - 1e-9)) == trains
