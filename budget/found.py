"""Modules found by their file names: an architecture, a technique, a format or a command is one new file."""

from __future__ import annotations

import os
from functools import cache


@cache
def modules(folder: str) -> tuple[str, ...]:
    """The modules in a package's folder, sorted, without those whose names start with an underscore."""
    return tuple(sorted(name[:-3] for name in os.listdir(folder) if name.endswith(".py") and name[0] != "_"))
