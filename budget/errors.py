"""Errors in a user's input: one line that names the field and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

LONGEST = 300  # characters of a message
ROOM = 200  # of them, for the names that would do


class InputError(ValueError):
    """Bad usage or bad input; the command prints it on one line and exits with status 2."""

    def __init__(self, field: str, problem: str):
        text = f"{field}: {problem}"
        super().__init__(text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}...")
        self.field = field


def unknown(field: str, name: object, known: Iterable[str], where: str = "") -> InputError:
    """The error for an unknown name, with the nearest known ones; where none is near, with some known ones,
    or with `where`: how to see them all.
    """
    return InputError(field, f"unknown name {str(name)[:60]!r}; {hint(name, known, where)}")


def hint(name: object, known: Iterable[str], where: str = "") -> str:
    """The known names that are near this one; where none is, `where`, or some known names."""
    known = sorted(set(known))
    near = nearest(str(name), known)
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    return where or f"known: {some(known)}"


def nearest(name: str, known: Sequence[str], most: int = 3) -> list[str]:
    """At most so many known names: those that mean the same (data/synonyms.json), else the one spelled
    nearly as it is, else those that have its words or begin with it, the shortest first.
    """
    from difflib import get_close_matches

    from . import table

    flag = "--" if name.startswith("--") else ""
    bare = name.removeprefix("--").lower().replace("_", "-")
    same = [flag + other for other in table.load("synonyms.json").get(bare, ())]
    if found := [other for other in same if other in known]:
        return found
    words = bare.split("-")
    having = [other for other in known if set(words) <= set(re.split(r"[-/. _]+", other.lower()))]
    alike = [other for other in known if abs(len(other) - len(name)) <= max(1, len(name) // 4)]
    close = get_close_matches(name.lower(), alike, n=1, cutoff=0.74)
    begins = [other for other in known if _letters(other).startswith(_letters(bare)) and bare and not flag]
    return close or sorted(having or begins, key=lambda other: (len(other), other))[:most]


def _letters(name: str) -> str:
    return re.sub(r"[-/. _]", "", name.lower())


def some(names: Iterable[str]) -> str:
    """Names in one line, as many as there is room for."""
    names = tuple(names)
    told = 0
    while told < len(names) and len(", ".join(names[: told + 1])) <= ROOM:
        told += 1
    more = f" and {len(names) - told} more (budget list)" if told < len(names) else ""
    return ", ".join(names[:told]) + more


def shown(value: object, width: int = 60) -> str:
    """Any value as one short line for a message."""
    try:
        text = repr(value).replace("\n", " ")  # an array of arrays has a line for each
    except (ValueError, RecursionError):  # an integer of thousands of digits, a list too deep
        text = f"a very large {type(value).__name__}"
    return text if len(text) <= width else text[: width - 3] + "..."
