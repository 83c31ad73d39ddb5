"""What is known by generation of devices, for a generation of which it is not known."""

from __future__ import annotations

from collections.abc import Mapping

from .. import table
from ..named import Any
from ..stack import SEVERAL


def nearest(values: Mapping[str, Any], generation: str) -> Any:
    """The value of a generation, else of the next one in order, older before newer; else the usual one."""
    if generation in values:
        return values[generation]
    order = table.load("kernels.json")["order"]
    generations = [g for g in values if g in order]
    if generation in order and generations:
        at = order.index(generation)
        return values[min(generations, key=lambda g: (abs(order.index(g) - at), order.index(g)))]
    return values[""] if "" in values else sorted(values.values())[len(values) // 2]


def interval_on(intervals: Mapping[str, tuple[float, float]], generation: str) -> tuple[float, float] | None:
    """A stack's interval on a generation of devices. Where nobody measured it there, the interval contains
    those of all generations where somebody did. None where there is none.
    """
    if generation and generation in intervals:
        return intervals[generation]
    ranges = [ends for name, ends in intervals.items() if name != SEVERAL]
    lows, highs = zip(*ranges, strict=True) if ranges else ((), ())
    return (min(lows), max(highs)) if ranges else None


def together(stack: str, generation: str) -> float:
    """The factor within which most steps of training lie for how several devices work together, by how many
    publications tell how they do with this stack on this generation.
    """
    known = table.load("together.json")
    publications = known["publications"].get(stack, {}).get(generation, 0)
    factor: float = [within for fewest, within in known["within"] if publications >= fewest][-1]
    return factor
