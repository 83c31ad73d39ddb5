"""Errors in a user's input: one line that names the field and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

LONGEST = 300  # characters of a message
A_NAME = 200  # characters at most: a longer text is no name
ROOM = 200  # of them, for the names that would do


class InputError(ValueError):
    """Bad usage or bad input; the command prints it on one line and exits with status 2."""

    def __init__(self, field: str, problem: str):
        text = f"{field}: {problem}"
        super().__init__(text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}...")
        self.field, self.problem = field, problem

    def __reduce__(self) -> tuple[type[InputError], tuple[str, str]]:
        """What makes it anew in another process."""
        return type(self), (self.field, self.problem)


def wrong(field: str, value: object, allowed: str) -> InputError:
    """The error for a value that is not allowed."""
    return InputError(field, f"got {shown(value)}; allowed: {allowed}")


def unknown(field: str, name: object, known: Iterable[str], where: str = "") -> InputError:
    """The error for an unknown name, with the nearest known ones; where none is near, with some known ones,
    or with `where`: how to see them all.
    """
    return InputError(field, f"unknown name {str(name)[:60]!r}; {hint(name, known, where)}")


def hint(name: object, known: Iterable[str], where: str = "") -> str:
    """The known names that are near this one, or what the table says of it; where nothing is, `where`, or
    some known names.
    """
    known = sorted(set(known))
    near = nearest(str(name), known)
    if isinstance(near, str):
        return near
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    return where or f"known: {some(known)}"


def nearest(name: str, known: Sequence[str], most: int = 3) -> list[str] | str:
    """The known names nearest to a name, `most` of them at most: its synonyms (data/synonyms.json); else
    names with the same words; else names that begin with it, the shortest first; else the one with the
    nearest spelling. For a flag of other tools that has no counterpart here, a text that says so.
    """
    from difflib import get_close_matches

    if len(name) > A_NAME:
        return []
    bare_name = name.lstrip("-")
    flag = "--" if bare_name != name else ""
    bare = re.sub("[_ ]", "-", bare_name.lower())
    same = _synonyms(bare, flag)
    if isinstance(same, str):
        return same
    others = [flag + (other if flag else other.split()[0]) for other in same]
    others += [] if flag else [other.replace("-", "_") for other in others]  # an argument's name in Python
    if near := list(dict.fromkeys(other for other in others if other.split()[0] in known)):
        return near
    names = {other.removeprefix(flag): other for other in known}
    words = set(bare.split("-"))
    having = sorted(
        (other for other in names if words <= set(re.split(r"[-/. _]+", other.lower()))), key=_size
    )
    alike = [other for other in names if abs(len(other) - len(bare)) <= max(1, len(bare) // 4)]
    close = get_close_matches(bare, alike, n=1, cutoff=0.74)
    begins = sorted((other for other in names if bare and not flag and _begins(bare, other)), key=_size)
    near = (having if len(words) > 1 else []) or begins or close or having
    return [names[other] for other in near[:most]]


def _synonyms(bare: str, flag: str) -> list[str] | str:
    """What the table has for a name, or for a flag without what switches it on or off."""
    from . import table

    synonyms: dict[str, list[str] | str] = table.load("synonyms.json")
    names = synonyms.get(bare, [])
    if not flag:
        return [] if isinstance(names, str) else names
    off, on = bare.removeprefix("no-").removeprefix("disable-"), re.sub("^(use|enable|with)-", "", bare)
    names = names or synonyms.get(on, [])
    if names or off == bare:
        return names
    names = synonyms.get(off, [])
    return names if isinstance(names, str) else [other.split()[0] for other in names]


def _size(name: str) -> tuple[int, str]:
    return len(name), name


def _begins(bare: str, other: str) -> bool:
    """Whether a name begins as another one does, and with whole numbers: llama3 begins llama-3-8b, no
    llama-33b.
    """
    letters = "[-/. _]*".join(map(re.escape, _letters(bare)))
    return (
        bool(letters)
        and re.match(letters + (r"(?!\d)" if bare[-1:].isdigit() else ""), other.lower()) is not None
    )


def _letters(name: str) -> str:
    return re.sub(r"[-/. _]", "", name.lower())


def some(names: Iterable[str]) -> str:
    """Names in one line, as many as there is room for."""
    names = tuple(names)
    n = 0
    while n < len(names) and len(", ".join(names[: n + 1])) <= ROOM:
        n += 1
    more = f" and {len(names) - n} more" if n < len(names) else ""
    return ", ".join(names[:n]) + more


def as_path(path: object) -> str:
    """A path in a message: its last 80 characters, those escaped that no terminal shows."""
    import os

    text = os.fspath(path).removeprefix(os.path.join(os.curdir, ""))  # type: ignore[call-overload] # str or PathLike
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)[-80:]


def shown(value: object, width: int = 60) -> str:
    """Any value as one short line for a message."""
    try:
        text = repr(value).replace("\n", " ")  # an array of arrays has a line for each
    except (ValueError, RecursionError):  # an integer of thousands of digits, a list too deep
        text = f"a very large {type(value).__name__}"
    return text if len(text) <= width else text[: width - 3] + "..."
