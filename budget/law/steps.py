"""The best batch and learning rate for a compute C: tokens a step batch C^batch_power, rate C^rate_power."""

from __future__ import annotations

from collections.abc import Mapping

CONSTANTS = ("batch", "batch_power", "rate", "rate_power")
TAKES = ()


def batch(c: Mapping[str, float], flops: float) -> float:
    """Tokens of a step."""
    return c["batch"] * float(flops ** c["batch_power"])


def rate(c: Mapping[str, float], flops: float) -> float:
    """The learning rate."""
    return c["rate"] * float(flops ** c["rate_power"])
