"""Formats: one file each with `render(estimate, by) -> str`, found by its file name."""

from __future__ import annotations

from importlib import import_module

from ..errors import unknown
from ..found import modules
from ..named import TYPE_CHECKING

if TYPE_CHECKING:
    from ..estimate import Estimate


def names() -> tuple[str, ...]:
    """All formats, sorted."""
    return modules(__path__[0])


def render(estimate: Estimate, form: str, by: str = "") -> str:
    """An estimate as text. Raises InputError for an unknown format."""
    if form not in names():
        raise unknown("format", form, names())
    text: str = import_module(f"{__name__}.{form}").render(estimate, by)
    return text
