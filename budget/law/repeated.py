"""Repeated data: L = E + A / N'^alpha + B / D'^beta, where repetition and excess parameters lose their worth.

D' = U_D + U_D R_D* (1 - exp(-R_D / R_D*)): U_D unique tokens and R_D repetitions of them; N' likewise,
where U_N is the optimum for the unique tokens. Source: muennighoff-2023 (equations 5, 6, 16 to 18).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, inf

from . import additive
from ._search import lowest

CONSTANTS = (*additive.CONSTANTS, "R_D", "R_N")
TAKES = ("unique",)


def loss(c: Mapping[str, float], params: float, tokens: float, unique: float = inf) -> float:
    """Nats a token; unique: how many different tokens there are; all are used before any is repeated."""
    fresh = min(unique, tokens)
    fitting = min(_params_for(c, fresh), params)
    return additive.loss(c, _worth(params, fitting, c["R_N"]), _worth(tokens, fresh, c["R_D"]))


def optimum(c: Mapping[str, float], flops: float, unique: float = inf) -> tuple[float, float]:
    """Without repetition in closed form, else searched."""
    params, tokens = additive.optimum(c, flops)
    if tokens > unique:
        params = lowest(lambda n: loss(c, n, flops / 6 / n, unique), params / 1e4, params * 1e4)
    return params, flops / 6 / params


def worth(c: Mapping[str, float], tokens: float, unique: float) -> float:
    """How many fresh tokens these tokens are worth."""
    return _worth(tokens, min(unique, tokens), c["R_D"])


def _worth(size: float, fresh: float, decay: float) -> float:
    return fresh + fresh * decay * (1 - exp(-(size / fresh - 1) / decay))


def _params_for(c: Mapping[str, float], tokens: float) -> float:
    """The parameters for which so many fresh tokens are compute-optimal."""
    alpha, beta = c["alpha"], c["beta"]
    return float((alpha * c["A"] / (beta * c["B"]) * tokens**beta) ** (1 / alpha))
