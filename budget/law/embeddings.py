"""From parameters without embeddings to all: N_total = N + omega N^(1/3). Source: pearce-song-2024."""

from __future__ import annotations

from collections.abc import Mapping

CONSTANTS = ("omega",)
TAKES = ()


def total(c: Mapping[str, float], params: float) -> float:
    """All parameters of a network with so many outside its embeddings."""
    return float(params + c["omega"] * params ** (1 / 3))
