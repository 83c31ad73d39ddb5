"""Robust least squares with a prior: no number runs away, and no bad record rules the fit."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..named import Any, NamedTuple


class Prior(NamedTuple):
    """The expected numbers: one that is `width` away from its `mean` costs as much as an error of 1.

    far: in widths; beyond that the cost grows linearly (huber).
    """

    mean: Any
    width: Any
    far: float = math.inf


def least_squares(
    errors: Callable[[Any], Any],
    slopes: Callable[[Any, Any], Any],
    x: Any,
    prior: Prior,
    *,
    far: float,
    steps: int,
    enough: float,
    least: Any = -math.inf,
    most: Any = math.inf,
) -> Any:
    """The numbers with the least cost, found from a start x. Source: levenberg-marquardt.

    errors: the numbers -> an error for each record; those larger than `far` count linearly (huber).
    slopes: the numbers and their errors -> the errors' derivatives, by record and number. It ends after
    `steps` steps, or when one gains less than `enough` of the cost. least, most: bounds of the numbers.
    """
    import numpy as np

    def cost(e: Any, x: Any) -> float:
        return _squares(e, far) + _squares((x - prior.mean) / prior.width, prior.far)

    damping, e = 1e-2, errors(x)
    for _ in range(steps):
        slope, w = slopes(x, e), _weights(e, far)
        force = _weights((x - prior.mean) / prior.width, prior.far) / prior.width**2
        normal = slope.T @ (slope * w[:, None]) + np.diag(force)
        gradient = slope.T @ (w * e) + (x - prior.mean) * force
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
    """The weight of each error in ordinary least squares with the same minimum."""
    import numpy as np

    return np.minimum(1, far / np.maximum(np.abs(e), 1e-9))
