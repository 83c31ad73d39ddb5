"""Settings of an architecture: a dataclass whose fields become command-line flags and JSON keys."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from .errors import InputError, shown, unknown
from .size import Size

C = TypeVar("C")
HUGE = 10**15  # larger sizes are slips of the keyboard: no axis of any network comes near


class Workload(NamedTuple):
    """What a network is asked to do: sizes of its input, and the mode.

    batch: sequences, images or samples on one device; seq: tokens, time steps or frames (0: the
    architecture's default); image: pixels along a side (0: the default).
    mode: train, forward (one pass over a whole input), prefill (the same, filling a cache) or
    decode (one token for each sequence, `seq` tokens in the cache).
    """

    mode: str = "train"
    batch: Size = 1
    seq: Size = 0
    image: Size = 0


def setting(default: Any, help: str, *, least: float | None = 1, choices: tuple[str, ...] = ()) -> Any:
    """A dataclass field with its help text, its least value and its choices."""
    metadata = {"help": help, "least": least, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata)


def make(cls: type[C], values: Mapping[str, Any]) -> C:
    """A checked Config from a mapping. Raises InputError that names the field."""
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type] # a dataclass
    for name in values:
        if name not in fields:
            raise unknown(str(name), name, fields)
    return cls(**{name: check(fields[name], value) for name, value in values.items()})


def check(field: dataclasses.Field[Any], value: Any) -> Any:
    """One value of a Config's field, of the right type and range. Raises InputError."""
    least, choices = field.metadata["least"], field.metadata["choices"]
    kind = str(field.type)
    if kind == "bool":
        if not isinstance(value, bool):
            raise InputError(field.name, f"got {shown(value)}; allowed: true or false")
        return value
    if kind == "str":
        if value not in choices if choices else not isinstance(value, str):
            raise InputError(field.name, f"got {shown(value)}; allowed: {', '.join(choices) or 'text'}")
        return value
    if kind.startswith("tuple"):
        if not isinstance(value, tuple | list) or not value:
            raise InputError(field.name, f"got {shown(value)}; allowed: a list of whole numbers")
        return tuple(size(field.name, v, least) for v in value)
    if kind == "float":
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= HUGE:
            raise InputError(field.name, f"got {shown(value)}; allowed: a finite number")
        if least is not None and value < least:
            raise InputError(field.name, f"got {shown(value)}; allowed: {least} or more")
        return value
    return size(field.name, value, least)


def size(name: str, value: Any, least: float | None = 1) -> Size:
    """A whole number within range, or an array or symbol as it is. Raises InputError."""
    low = 0 if least is None else least
    allowed = f"whole numbers from {low:g} to {HUGE:,}"
    if hasattr(value, "free_symbols"):
        return value
    if hasattr(value, "dtype") and getattr(value, "ndim", 0) > 0:
        if value.dtype.kind not in "iuf" or not bool(((value >= low) & (value <= HUGE)).all()):
            raise InputError(name, f"an array with values out of range; allowed: {allowed}")
        if not bool((value == value // 1).all()):
            raise InputError(name, f"an array with fractions; allowed: {allowed}")
        return value.astype("float64")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= HUGE:
        raise InputError(name, f"got {shown(value)}; allowed: {allowed}")
    return value


def at_most(name: str, value: Size, bound: str, limit: Size) -> None:
    """Raise an InputError where a size is above another one; symbols pass."""
    if _any(value > limit):
        raise InputError(name, f"got {shown(value)}; allowed: at most {bound}, {shown(limit)}")


def divides(name: str, value: Size, of: str, whole: Size) -> None:
    """Raise an InputError where a size does not divide another one; symbols pass."""
    if not (hasattr(value, "free_symbols") or hasattr(whole, "free_symbols")) and _any(whole % value != 0):
        raise InputError(name, f"got {shown(value)}; allowed: divisors of {of}, {shown(whole)}")


def _any(condition: Any) -> bool:
    """Whether a comparison holds, for an array anywhere; of symbols nobody knows."""
    if isinstance(condition, bool):
        return condition
    return bool(condition.any()) if hasattr(condition, "any") else False
