"""Commands: one file each with `HELP`, `EXAMPLES`, `flags(parser)` and `run(args, rest) -> status`."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType


def names() -> tuple[str, ...]:
    """All commands, sorted."""
    return tuple(sorted(m.name for m in iter_modules(__path__) if not m.name.startswith("_")))


def load(name: str) -> ModuleType:
    """The module of one command."""
    return import_module(f"{__name__}.{name}")
