"""A concrete decoder of so many parameters, in the proportions of the nearest preset."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from math import gcd, log

from ..estimate import estimate
from ..named import Any, NamedTuple

# Dense decoders of one family, from small to large: sizes between them are scaled from the nearest one.
PRESETS = (
    "smollm2-135m",
    "smollm2-360m",
    "llama-3.2-1b",
    "llama-3.2-3b",
    "llama-3-8b",
    "llama-3-70b",
    "llama-3.1-405b",
)
SLENDER = (
    0.2  # an error of 1 % in parameters is worth as much as one of 5 % in width over depth; a convention
)
DEEP = 8  # layers from which on their number is even


class Shape(NamedTuple):
    """A preset with other sizes. params: exactly, embeddings among them."""

    preset: str
    config: dict[str, int]
    params: int


@cache
def shape(params: float, tp: int = 1) -> Shape:
    """The decoder whose parameters are nearest to those asked for, and whose width over depth to the
    preset's.

    tp: must divide its heads.
    """
    preset = min(PRESETS, key=lambda name: abs(log(_count(name) / params)))
    usual = estimate(preset, mode="forward", batch=1, seq=1).model.config
    aspect = usual["d_model"] / usual["layers"]

    def miss(near: Shape) -> float:
        ratio = near.config["d_model"] / near.config["layers"]
        return abs(log(near.params / params)) + SLENDER * abs(log(ratio / aspect))

    return min(_candidates(preset, usual, params, tp), key=miss)


def _candidates(preset: str, usual: Any, params: float, tp: int) -> Iterator[Shape]:
    """Widths near the one with the preset's proportions, each with depths near the one that fits."""
    head_dim = usual["d_model"] // usual["heads"]
    queries = usual["heads"] // usual["kv_heads"]
    grown = (params / _count(preset)) ** (1 / 3)
    kv_heads = usual["kv_heads"] if tp > 1 else max(1, round(usual["kv_heads"] * min(grown, 1)))
    middle = max(1, round(usual["heads"] * grown / kv_heads))
    each = tp // gcd(tp, kv_heads)  # groups of queries
    middle = max(1, round(middle / each)) * each
    for groups in range(max(each, middle - 3 * each), middle + 4 * each, each):
        heads = groups * kv_heads if grown != 1 else queries * kv_heads
        d_ff = max(64, round(usual["d_ff"] / usual["d_model"] * heads * head_dim / 64) * 64)
        config = {"d_model": heads * head_dim, "heads": heads, "kv_heads": kv_heads, "d_ff": d_ff}
        one, two = (_count(preset, layers=n, **config) for n in (1, 2))
        exact = (params - one) / (two - one) + 1
        by = 2 if exact >= DEEP else 1  # all these presets have an even number, which pipelines divide
        least = int(exact / by) * by
        for layers in {max(1, least), max(1, least + by)}:
            yield Shape(preset, {"layers": layers, **config}, one + (layers - 1) * (two - one))


def _count(preset: str, **config: int) -> int:
    counted: int = estimate(preset, mode="forward", batch=1, seq=1, config=config).params.total
    return counted
