"""Relative least squares of a few numbers: none of them runs away, and no bad record rules.

All are logarithms, so that numbers stay positive, and microseconds and seconds count alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ..named import Any

LINEAR = 0.1  # a larger error, as a logarithm, counts linearly and not squared: one bad record must not rule
# A number this factor from where it is drawn to counts as a record that is off by LINEAR: what the data say
# little about must not run away.
SPREAD = math.log(8.0)
LEAST = math.log(1e-9)  # of any number: what data say nothing about must not run away
STEPS, ENOUGH = 40, 1e-3  # at most so many, or until one gains less of the cost


def least_squares(errors: Callable[[Any], Any], x: Any, middle: Any, most: Any) -> Any:
    """The numbers whose errors are least, from x on, each drawn a little to its middle, none above its most.

    Arrays of logarithms. errors: of the numbers, by record. Source: levenberg-marquardt.
    """
    import numpy as np

    drawn = (LINEAR / SPREAD) ** 2

    def weights(e: Any) -> Any:
        return 1 / np.maximum(1, np.abs(e) / LINEAR)

    damping, e = 1e-2, errors(x)
    for _ in range(STEPS):
        w, step = weights(e), 1e-4
        slopes = np.stack([(errors(x + step * axis) - e) / step for axis in np.eye(len(x))], 1)
        normal, gradient = slopes.T @ (slopes * w[:, None]), slopes.T @ (w * e)
        normal, gradient = normal + drawn * np.eye(len(x)), gradient + drawn * (x - middle)
        cost = (w * e * e).sum() + drawn * ((x - middle) ** 2).sum()
        while damping < 1e6:
            moved = np.clip(x - np.linalg.solve(normal + damping * np.eye(len(x)), gradient), LEAST, most)
            tried = errors(moved)
            gain = cost - (weights(tried) * tried * tried).sum() - drawn * ((moved - middle) ** 2).sum()
            if gain > 0:
                break
            damping *= 5
        if damping >= 1e6:
            break
        x, e, damping = moved, tried, damping / 5
        if gain < ENOUGH * cost:
            break
    return x
