"""L(N, D) = E + A / N^alpha + B / D^beta."""

from __future__ import annotations

from collections.abc import Mapping

CONSTANTS = ("E", "A", "B", "alpha", "beta")
TAKES = ()


def loss(c: Mapping[str, float], params: float, tokens: float) -> float:
    """Nats a token."""
    value: float = c["E"] + c["A"] / params ** c["alpha"] + c["B"] / tokens ** c["beta"]
    return value


def optimum(c: Mapping[str, float], flops: float) -> tuple[float, float]:
    """In closed form, where the two terms fall equally fast: alpha A / N^alpha = beta B / D^beta.

    Source: hoffmann-2022 (equation 4).
    """
    alpha, beta = c["alpha"], c["beta"]
    both = flops / 6
    params = (alpha * c["A"] / (beta * c["B"])) ** (1 / (alpha + beta)) * both ** (beta / (alpha + beta))
    return params, both / params
