"""Formats: one file each with `render(estimate, by) -> str`, found by its file name."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from ..errors import unknown

if TYPE_CHECKING:
    from ..estimate import Estimate


def names() -> tuple[str, ...]:
    """All formats, sorted."""
    return tuple(sorted(m.name for m in iter_modules(__path__) if not m.name.startswith("_")))


def render(estimate: Estimate, form: str, by: str = "") -> str:
    """An estimate as text. Raises InputError for an unknown format."""
    if form not in names():
        raise unknown("format", form, names())
    text: str = import_module(f"{__name__}.{form}").render(estimate, by)
    return text
