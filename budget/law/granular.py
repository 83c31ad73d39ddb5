"""Fine-grained mixtures: L(N, D, G) = c + (g / G^gamma + a) / N^alpha + b / D^beta.

N: all parameters but embeddings; G: granularity, how many times smaller than usual an expert is.
Source: krajewski-2024 (equation 9).
"""

from __future__ import annotations

from collections.abc import Mapping

from . import additive

CONSTANTS = ("a", "alpha", "b", "beta", "g", "gamma", "c")
TAKES = ("granularity",)


def at(c: Mapping[str, float], granularity: float) -> dict[str, float]:
    """The law for a granularity, as constants of additive.py."""
    a = c["g"] / granularity ** c["gamma"] + c["a"]
    return {"E": c["c"], "A": a, "alpha": c["alpha"], "B": c["b"], "beta": c["beta"]}


def loss(c: Mapping[str, float], params: float, tokens: float, granularity: float = 1) -> float:
    """Nats a token."""
    return additive.loss(at(c, granularity), params, tokens)


def optimum(c: Mapping[str, float], flops: float, granularity: float = 1) -> tuple[float, float]:
    """(parameters, tokens)."""
    return additive.optimum(at(c, granularity), flops)
