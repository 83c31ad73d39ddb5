"""The package's own data: tables in JSON, each read once (data/README.md).

Not TOML, whose parser takes as long to import as half an estimate.
"""

from __future__ import annotations

import json
import os
from functools import cache

from .named import Any

DATA = os.path.join(os.path.dirname(__file__), "data")


@cache
def load(*path: str) -> dict[str, Any]:
    """The table in a file below data/, as in `load("devices", "h100.json")`. Do not change it."""
    with open(os.path.join(DATA, *path), "rb") as file:
        table: dict[str, Any] = json.loads(file.read())
    return table


@cache
def has(folder: str, name: str) -> bool:
    """Whether a folder has a file of this name, which is quicker to ask than the names of all."""
    path = os.path.join(DATA, folder, f"{name}.json")
    # All are in small letters, which not every file system tells from capitals.
    return name == os.path.basename(name).lower() and os.path.isfile(path)


@cache
def files(folder: str) -> tuple[str, ...]:
    """The names of a folder's files, without `.json`, sorted."""
    return tuple(
        sorted(name[:-5] for name in os.listdir(os.path.join(DATA, folder)) if name.endswith(".json"))
    )
