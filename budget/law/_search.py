"""Searches over a positive size, in its logarithm; the functions searched have one valley or none."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, log

GOLDEN = (5**0.5 - 1) / 2
STEPS = 120  # of a search over a range of e^50: the last one is below 1e-9 of the size


def lowest(value: Callable[[float], float], low: float, high: float) -> float:
    """Where a function with one valley is lowest."""
    a, b = log(low), log(high)
    c, d = b - GOLDEN * (b - a), a + GOLDEN * (b - a)
    at_c, at_d = value(exp(c)), value(exp(d))
    for _ in range(STEPS):
        if at_c < at_d:
            b, d, at_d = d, c, at_c
            c = b - GOLDEN * (b - a)
            at_c = value(exp(c))
        else:
            a, c, at_c = c, d, at_d
            d = a + GOLDEN * (b - a)
            at_d = value(exp(d))
    return exp((a + b) / 2)


def crossing(value: Callable[[float], float], target: float, low: float, high: float) -> float | None:
    """Where a falling function comes down to a target; None where it does not between the two ends."""
    if not value(high) <= target <= value(low):
        return None
    a, b = log(low), log(high)
    for _ in range(STEPS):
        middle = (a + b) / 2
        a, b = (middle, b) if value(exp(middle)) > target else (a, middle)
        if b - a < 1e-12:
            break
    return exp((a + b) / 2)
