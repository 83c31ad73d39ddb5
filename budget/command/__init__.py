"""Commands: one file each with `HELP`, `EXAMPLES`, `flags(parser)` and `run(args) -> status`.

A command whose parser is `open` takes models and flags of architectures, too: `run(args, rest)`.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from ..found import modules


def names() -> tuple[str, ...]:
    """All commands, sorted; a file's `_` is a `-`."""
    return tuple(name.replace("_", "-") for name in modules(__path__[0]))


def load(name: str) -> ModuleType:
    """The module of one command."""
    return import_module(f"{__name__}.{name.replace('-', '_')}")
