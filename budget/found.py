"""What is found by its file name: an architecture, a command, a format is one new file."""

from __future__ import annotations

import os
from functools import cache


@cache
def modules(folder: str) -> tuple[str, ...]:
    """The modules in a package's folder, sorted; those that start with an underscore are shared pieces."""
    return tuple(sorted(name[:-3] for name in os.listdir(folder) if name.endswith(".py") and name[0] != "_"))
