"""What a stack has by generation of devices, checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from .. import checked
from ..dtype import UNPACKING
from ..errors import wrong
from ..named import Any, NamedTuple

ALL_REDUCE = ("one_shot_us", "two_shot_us", "gb_s")
FEW_BITS = ("rows", "dots", "unpacks")


class AllReduce(NamedTuple):
    """An engine's own all-reduce within a node: a device reads what all others have (one shot), or its part
    of that, and then the others' sums (two).

    one_shot_s, two_shot_s: seconds until the first byte; bandwidth: the most bytes/s that its kernel reads.
    """

    one_shot_s: float
    two_shot_s: float
    bandwidth: float


def few_bits(at: str, value: Any) -> Mapping[str, float]:
    return checked.numbers(at, value, (*FEW_BITS, "edge"), 0.01, 100, FEW_BITS)


def by_format(at: str, value: Any) -> Mapping[str, float]:
    return checked.numbers(at, value, UNPACKING, 0.01, 10)


def by_memory(at: str, value: Any) -> Mapping[float, int]:
    """Whole numbers by the GiB of memory from which on they count, the smallest first."""
    steps = {}
    for gib, most in checked.each(at, value, lambda at, most: checked.number(at, most, 1, 2**24)).items():
        if not gib.isdecimal():
            raise wrong(at, gib, 'whole GiB of memory, as in "70"')
        if most != int(most):
            raise wrong(f"{at}.{gib}", most, "whole numbers")
        steps[float(gib)] = int(most)
    if 0 not in steps:
        raise wrong(at, value, 'a table that begins at "0" GiB')
    return dict(sorted(steps.items()))


def one_of(allowed: Iterable[str]) -> Callable[[str, Any], str]:
    return lambda at, value: checked.word(at, value, allowed)


def tensor_units(at: str, value: Any) -> Mapping[str, bool]:
    return {"": True, **({"": value} if isinstance(value, bool) else checked.each(at, value, checked.flag))}


def interval(at: str, value: Any) -> tuple[float, float]:
    return checked.pair(at, value, 0.01, 100, "multiple of the time")


def all_reduce(at: str, value: Any) -> AllReduce:
    numbers = checked.numbers(at, value, ALL_REDUCE, 0.1, 1e6, ALL_REDUCE)
    return AllReduce(numbers["one_shot_us"] / 1e6, numbers["two_shot_us"] / 1e6, numbers["gb_s"] * 1e9)
