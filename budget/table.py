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
    with open(os.path.join(DATA, *path), encoding="utf-8") as file:
        table: dict[str, Any] = json.load(file)
    return table


@cache
def files(folder: str) -> tuple[str, ...]:
    """The names of a folder's files, without `.json`, sorted."""
    return tuple(
        sorted(name[:-5] for name in os.listdir(os.path.join(DATA, folder)) if name.endswith(".json"))
    )
