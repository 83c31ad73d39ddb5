"""Checks of a user's JSON. Each takes a value with the place where it stands, and returns it as the code uses
it.

Raises InputError that names the place, and what is allowed there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from .errors import InputError, hint, shown, wrong
from .named import Any


def table(where: str, value: Any, known: Iterable[str] = (), needed: Iterable[str] = ()) -> Mapping[str, Any]:
    """A table, of known fields alone where some are named, and with all that are needed."""
    if not isinstance(value, Mapping):
        raise wrong(where, value, "a table")
    for field in value if known else ():
        if field not in known:
            raise InputError(where, f"{field[:40]} is no field here; {hint(field, known, _allowed(known))}")
    for field in needed:
        if value.get(field) in (None, ""):
            raise InputError(where, f"{field} is missing")
    return value


def _allowed(names: Iterable[str]) -> str:
    return f"allowed: {', '.join(filter(None, names))}"


def each(where: str, values: Any, check: Callable[[str, Any], Any]) -> dict[str, Any]:
    """A table whose values are alike, as by generation of devices."""
    return {name: check(f"{where}.{name[:20]}", item) for name, item in table(where, values).items()}


def listed(where: str, value: Any) -> list[Any]:
    """A list."""
    if not isinstance(value, list):
        raise wrong(where, value, "a list")
    return value


def text(where: str, value: Any) -> str:
    """A text."""
    if not isinstance(value, str):
        raise wrong(where, value, "text")
    return value


def texts(where: str, value: Any) -> tuple[str, ...]:
    """A list of texts."""
    if not isinstance(value, list) or not all(isinstance(x, str) for x in value):
        raise wrong(where, value, "a list of texts")
    return tuple(value)


def word(where: str, value: Any, allowed: Iterable[str]) -> str:
    """One of some words."""
    if not isinstance(value, str) or value not in allowed:
        raise InputError(where, f"got {shown(value)}; {_allowed(allowed)}")
    return value


def words(where: str, value: Any, allowed: Iterable[str]) -> tuple[str, ...]:
    """A list of some words."""
    if not isinstance(value, list) or any(name not in allowed for name in value):
        raise wrong(where, value, f"a list of {', '.join(allowed)}")
    return tuple(value)


def sources(where: str, value: Any) -> tuple[str, ...]:
    """A key of references.json, or several."""
    keys = (value,) if isinstance(value, str) else texts(where, value)
    if not all(keys) or not keys:
        raise wrong(where, value, "a key of references.json, or several")
    return keys


def flag(where: str, value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise wrong(where, value, "true, false")
    return value


def number(where: str, value: Any, least: float, most: float) -> float:
    """A number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise wrong(where, value, f"{least:g} to {most:g}")
    return float(value)


def numbers(
    where: str, values: Any, known: Iterable[str], least: float, most: float, needed: Iterable[str] = ()
) -> dict[str, float]:
    """A table of numbers."""
    own = table(where, values, known, needed)
    return {name: number(f"{where}.{name}", value, least, most) for name, value in own.items()}


def pair(where: str, value: Any, least: float, most: float, what: str) -> tuple[float, float]:
    """A low and a high number. what: what they are."""
    if isinstance(value, list) and len(value) == 2:
        low, high = (number(where, x, least, most) for x in value)
        if low <= high:
            return low, high
    raise wrong(where, value, f"a low and a high {what}")
