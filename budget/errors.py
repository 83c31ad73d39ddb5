"""Errors in a user's input: one line that names the field and what is allowed."""

from __future__ import annotations

from collections.abc import Iterable

LONGEST = 300  # characters of a message
ROOM = 200  # of them, for the names that would do


class InputError(ValueError):
    """Bad usage or bad input; the command prints it on one line and exits with status 2."""

    def __init__(self, field: str, problem: str):
        text = f"{field}: {problem}"
        super().__init__(text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}...")
        self.field = field


def unknown(field: str, name: object, known: Iterable[str]) -> InputError:
    """The error for an unknown name, with the nearest known one, or a few known ones."""
    return InputError(field, f"unknown name {str(name)[:60]!r}; {hint(name, known)}")


def hint(name: object, known: Iterable[str]) -> str:
    """The known name that is nearest to this one where one is near, else some known names."""
    from difflib import get_close_matches

    known = sorted(known)
    near = get_close_matches(str(name), known, n=1, cutoff=0.65)
    return f"did you mean {near[0]!r}?" if near else f"known: {some(known)}"


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
        text = ascii(value).replace("\n", " ")  # an array of arrays has a line for each
    except (ValueError, RecursionError):  # an integer of thousands of digits, a list too deep
        text = f"a very large {type(value).__name__}"
    return text if len(text) <= width else text[: width - 3] + "..."
