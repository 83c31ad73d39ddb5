"""The package's own data: tables in JSON, each read once (data/README.md).

Not TOML, whose parser takes as long to import as half an estimate. Of the standard library's json only the
scanner in C is imported, where there is one: the rest compiles six patterns, which takes a thirtieth of an
estimate.
"""

from __future__ import annotations

import os
from functools import cache
from types import SimpleNamespace

from .named import Any

DATA = os.path.join(os.path.dirname(__file__), "data")

_scan: Any  # (text, 0) -> (table, where it ends)
try:
    from _json import make_scanner

    # What it asks of its decoder, as json.loads has it.
    numbers = {"parse_float": float, "parse_int": int, "parse_constant": float}
    usual: Any = SimpleNamespace(strict=True, object_hook=None, object_pairs_hook=None, **numbers)
    _scan = make_scanner(usual)
except ImportError:  # another Python than CPython
    from json import JSONDecoder

    _scan = JSONDecoder().raw_decode


@cache
def load(*path: str) -> dict[str, Any]:
    """The table in a file below data/, as in `load("devices", "h100.json")`. Do not change it."""
    with open(os.path.join(DATA, *path), encoding="utf-8") as file:
        table: dict[str, Any]
        table, _ = _scan(file.read(), 0)
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
