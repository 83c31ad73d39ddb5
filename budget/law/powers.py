"""Where the optimum is, without a loss: N = n C^n_power or D = d C^d_power, C in units of `unit` FLOPs."""

from __future__ import annotations

from collections.abc import Mapping

CONSTANTS = ("unit",)  # and one of the pairs
TAKES = ()


def optimum(c: Mapping[str, float], flops: float) -> tuple[float, float]:
    """(parameters, tokens): the law states one of them, and C = 6 N D gives the other.

    A law of FLOPs a token (M, with C = M D) counts M / 6 parameters, attention's work among them.
    """
    compute = flops / c["unit"]
    if "d" in c:
        tokens = c["d"] * compute ** c["d_power"]
        return flops / 6 / tokens, tokens
    params = c["n"] * compute ** c["n_power"]
    return params, flops / 6 / params
