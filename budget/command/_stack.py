"""Stacks in words, as `budget list stacks` has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from textwrap import wrap

from ..named import Any
from ..stack import BY_GENERATION, SEVERAL, AllReduce, Stack

ON = {"": " elsewhere", SEVERAL: ", one batch on several devices"}


def stack_lines(rows: Sequence[tuple[str, str, str]]) -> list[str]:
    """A line for each stack with its name, its modes and a description, which may go on below."""
    width = 2 + max(len(name) for name, *_ in rows)
    heads = [(f"{name:<{width}}{modes:<13}", about) for name, modes, about in rows]
    return [
        line for head, about in heads for line in wrap(head + about, 79, subsequent_indent=" " * len(head))
    ]


def stack_fields(stack: Stack) -> Iterator[tuple[str, str]]:
    """Each field and its value; what it has by generation of devices, each by itself."""
    for field, value in stack._asdict().items():
        if field in BY_GENERATION:
            for where, part in value.items():
                yield f"{field}{ON.get(where, f' on {where}')}", _words(part)
        elif words := _words(value or ""):
            yield field, words


def _words(value: Any) -> str:
    if isinstance(value, AllReduce):
        value = value._asdict()
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(part)}" for key, part in value.items() if part != 0)
    if isinstance(value, tuple):
        return (" to " if all(isinstance(x, float) for x in value) else ", ").join(map(_words, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
