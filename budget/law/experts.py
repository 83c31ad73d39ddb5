"""Mixtures: L(N, D, E) = a E'^delta N^(alpha + gamma ln E') + b E'^omega D^(beta + zeta ln E') + c.

N: active parameters; E' is the number of experts, bent at both ends. Source: ludziejewski-2025 (equation 6).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log

from . import additive

CONSTANTS = ("a", "alpha", "delta", "gamma", "b", "beta", "omega", "zeta", "E_start", "E_max", "c")
TAKES = ("experts",)


def at(c: Mapping[str, float], experts: float) -> dict[str, float]:
    """The law for a number of experts, as constants of additive.py."""
    bent = 1 / (1 / (experts - 1 + 1 / (1 / c["E_start"] - 1 / c["E_max"])) + 1 / c["E_max"])
    return {
        "E": c["c"],
        "A": c["a"] * bent ** c["delta"],
        "alpha": -(c["alpha"] + c["gamma"] * log(bent)),
        "B": c["b"] * bent ** c["omega"],
        "beta": -(c["beta"] + c["zeta"] * log(bent)),
    }


def loss(c: Mapping[str, float], params: float, tokens: float, experts: float = 1) -> float:
    """Nats a token."""
    return additive.loss(at(c, experts), params, tokens)


def optimum(c: Mapping[str, float], flops: float, experts: float = 1) -> tuple[float, float]:
    """(active parameters, tokens)."""
    return additive.optimum(at(c, experts), flops)
