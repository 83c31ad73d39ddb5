"""Errors in a user's input: one line that names the field and what is allowed."""

from __future__ import annotations

from collections.abc import Iterable

MANY = 40  # names are told before a message gets too long


class InputError(ValueError):
    """Bad usage or bad input; the command prints it on one line and exits with status 2."""

    def __init__(self, field: str, problem: str):
        super().__init__(f"{field}: {problem}")
        self.field = field


def unknown(field: str, name: object, known: Iterable[str]) -> InputError:
    """The error for an unknown name, with the nearest known one, or a few known ones."""
    from difflib import get_close_matches

    known = sorted(known)
    near = get_close_matches(str(name), known, n=1, cutoff=0.5)
    more = f", and {len(known) - MANY} more" if len(known) > MANY else ""
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known[:MANY])}{more}"
    return InputError(field, f"unknown name {str(name)[:80]!r}; {hint}")


def shown(value: object, width: int = 60) -> str:
    """Any value as one short line for a message."""
    try:
        text = ascii(value).replace("\n", " ")  # an array of arrays has a line for each
    except (ValueError, RecursionError):  # an integer of thousands of digits, a list too deep
        text = f"a very large {type(value).__name__}"
    return text if len(text) <= width else text[: width - 3] + "..."
