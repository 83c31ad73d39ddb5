"""Checks of a stack's table. Each raises an InputError that names the file, the field and what is allowed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..errors import InputError, shown
from ..named import Any


def tabled(values: Any, where: str) -> Mapping[str, Any]:
    """A table."""
    if not isinstance(values, Mapping):
        raise InputError("stack", f"{where}: got {shown(values)}; allowed: a table")
    return values


def each(about: Mapping[str, Any], field: str, file: str, check: Callable[[Any, str], Any]) -> dict[str, Any]:
    """A field's values by generation of devices, checked."""
    values = tabled(about.get(field, {}), f"{file}: {field}")
    return {name: check(of, f"{file}: {field}.{name[:20]}") for name, of in values.items()}


def words(value: Any, where: str) -> str:
    """A text."""
    if not isinstance(value, str):
        raise InputError("stack", f"{where}: got {shown(value)}; allowed: text")
    return value


def one_of(value: Any, allowed: tuple[str, ...], where: str) -> str:
    """A word."""
    if not isinstance(value, str) or value not in allowed:
        raise InputError("stack", f"{where}: got {shown(value)}; allowed: {', '.join(allowed)}")
    return value


def some(about: Mapping[str, Any], field: str, allowed: tuple[str, ...], file: str) -> tuple[str, ...]:
    """A list of words."""
    value = about.get(field, [])
    if not isinstance(value, list) or any(name not in allowed for name in value):
        raise InputError(
            "stack", f"{file}: {field}: got {shown(value)}; allowed: a list of {', '.join(allowed)}"
        )
    return tuple(value)


def flag(value: Any, where: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise InputError("stack", f"{where}: got {shown(value)}; allowed: true, false")
    return value


def interval(value: Any, where: str) -> tuple[float, float]:
    """A low and a high multiple of a time."""
    if isinstance(value, list) and len(value) == 2:
        low, high = (number(x, where, 0.01, 100) for x in value)
        if low <= high:
            return low, high
    raise InputError("stack", f"{where}: got {shown(value)}; allowed: a low and a high multiple of the time")


def numbers(values: Any, allowed: tuple[str, ...], where: str, least: float, most: float) -> dict[str, float]:
    """A table of numbers."""
    for name in tabled(values, where):
        if name not in allowed:
            raise InputError("stack", f"{where}.{name[:40]} is unknown; allowed: {', '.join(allowed)}")
    return {name: number(value, f"{where}.{name}", least, most) for name, value in values.items()}


def stated(
    values: Any, names: tuple[str, ...], where: str, least: float, most: float, others: tuple[str, ...] = ()
) -> dict[str, float]:
    """A table of numbers that has each of these, and may have others."""
    found = numbers(values, (*names, *others), where, least, most)
    for name in names:
        if name not in found:
            raise InputError("stack", f"{where}.{name} is missing")
    return found


def number(value: Any, where: str, least: float, most: float) -> float:
    """A number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise InputError("stack", f"{where}: got {shown(value)}; allowed: {least:g} to {most:g}")
    return float(value)
