"""Output formats: one file each with `render(answer) -> str`, found by its file name, for every command.

A command builds an Answer (_answer.py); a format renders the parts of it that it supports, and raises an
InputError if it supports none.
"""

from __future__ import annotations

from importlib import import_module

from ..answer import Estimate
from ..errors import unknown
from ..found import modules
from ..named import TYPE_CHECKING

if TYPE_CHECKING:
    from ._answer import Answer


def names() -> tuple[str, ...]:
    """The names of all formats, sorted."""
    return modules(__path__[0])


def render(found: Answer | Estimate, name: str, by: str = "") -> str:
    """An answer, or an estimate with a breakdown, in a format. Raises InputError for an unknown format."""
    if name not in names():
        raise unknown("format", name, names())
    if isinstance(found, Estimate):
        from ._estimate import answer

        found = answer(found, by)
    text: str = import_module(f"{__name__}.{name}").render(found)
    return text
