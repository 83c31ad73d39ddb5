"""Tables of parameters and FLOPs (params_flops.csv)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from budget.answer import Estimate

from .networks import network
from .rows import Asked, NotCoveredError, Part, measured, stack, whole
from .table import Row

COLUMNS = ("id", "source", "model", "family", "params", "params_m", "gmacs", "input_size")
TELLS = ("gmacs", "params_m")
NUMBERS = ("params", "params_m", "gmacs", "gflops_2x", "input_size")
WORDS = ()


def asked(row: Row) -> Iterator[Asked]:
    """What a row counts, and what predicts it. Raises NotCoveredError.

    A network for images is run on one of the row's size. Multiply-adds are two FLOPs.
    """
    if "quantized" in row["model"].lower():
        raise NotCoveredError("a quantized network")
    model, config = network(row, stack(row, ""), 0)
    image = {"image": whole(row, "input_size")} if row["input_size"] else {}
    part = Part(model, {"mode": "forward", "config": config, **image})
    known = measured(row, "params")
    yield Asked("params", "", known or measured(row, "params_m", 1e6), (part,), of=params)
    if row["gmacs"]:
        yield Asked("flops", "FLOP", measured(row, "gmacs", 2e9), (part,), of=flops)


def params(estimates: Sequence[Estimate]) -> float:
    """Elements of the weights."""
    return float(estimates[0].params.total)


def flops(estimates: Sequence[Estimate]) -> float:
    """FLOPs of one forward pass."""
    return float(estimates[0].flops.forward)
