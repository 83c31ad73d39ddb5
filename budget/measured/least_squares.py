"""Robust least squares of a few numbers: none of them runs away, and no bad record rules."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..named import Any, NamedTuple


class Drawn(NamedTuple):
    """Where numbers are drawn to, and how much they may differ from it to count as one error of one."""

    to: Any
    width: Any
    far: float = math.inf  # of these widths; a number farther off is drawn as by a constant force


def least_squares(
    errors: Callable[[Any], Any],
    slopes: Callable[[Any, Any], Any],
    x: Any,
    drawn: Drawn,
    *,
    far: float,
    steps: int,
    enough: float,
    least: Any = -math.inf,
    most: Any = math.inf,
) -> Any:
    """The numbers whose errors are least, from x on. Source: levenberg-marquardt.

    errors: an array of numbers' errors; one larger than `far` counts linearly (huber). slopes: their
    derivatives, of the numbers and their errors, by record and number. steps: at most so many, or until one
    gains less than `enough` of the cost. least, most: that numbers may be.
    """
    import numpy as np

    def cost(e: Any, x: Any) -> float:
        return _squares(e, far) + _squares((x - drawn.to) / drawn.width, drawn.far)

    damping, e = 1e-2, errors(x)
    for _ in range(steps):
        slope, w = slopes(x, e), _weights(e, far)
        force = _weights((x - drawn.to) / drawn.width, drawn.far) / drawn.width**2
        normal = slope.T @ (slope * w[:, None]) + np.diag(force)
        gradient = slope.T @ (w * e) + (x - drawn.to) * force
        free = ((x > least) | (gradient < 0)) & ((x < most) | (gradient > 0))  # not held by a bound
        normal, gradient, before = normal[np.ix_(free, free)], gradient[free], cost(e, x)
        while damping < 1e6:
            moved = np.copy(x)
            moved[free] -= np.linalg.solve(normal + damping * np.diag(np.diag(normal)), gradient)
            moved = np.clip(moved, least, most)
            tried = errors(moved)
            if cost(tried, moved) < before:
                break
            damping *= 5
        if damping >= 1e6:
            break
        x, e, damping = moved, tried, damping / 5
        if before - cost(e, x) < enough * before:
            break
    return x


def _squares(e: Any, far: float) -> float:
    """The sum of squares, linear beyond `far`. Source: huber."""
    import numpy as np

    a = np.abs(e)
    near = np.minimum(a, far)
    return float((near * (2 * a - near)).sum())


def _weights(e: Any, far: float) -> Any:
    """What each counts in least squares that have the same minimum."""
    import numpy as np

    return np.minimum(1, far / np.maximum(np.abs(e), 1e-9))
