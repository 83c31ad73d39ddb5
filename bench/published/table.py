"""Tables of published measurements: read and checked, and told apart by their columns."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping
from importlib import import_module
from types import ModuleType

from budget.errors import InputError, shown
from budget.found import modules

Row = Mapping[str, str]


def read(path: str) -> tuple[ModuleType, list[dict[str, str]]]:
    """The kind of a table, and its rows. Raises InputError that names the file, and its row and column."""
    name = os.path.basename(path)
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            columns, rows = tuple(reader.fieldnames or ()), list(reader)
    except (OSError, ValueError, csv.Error) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError("table", f"cannot read {path}: {why}") from None
    kind = _kind(name, columns)
    for i, row in enumerate(rows):
        if None in row or None in row.values():
            raise InputError("table", f"{name}: row {i + 2} does not have {len(columns)} columns")
        for column in kind.NUMBERS:
            _check(f"{name}: row {i + 2}, column {column}", row.get(column, ""), kind.WORDS)
    return kind, rows


def _check(where: str, text: str, words: tuple[str, ...]) -> None:
    if not text or text in words:
        return
    try:
        right = 0 <= float(text) < 1e30
    except ValueError:
        right = False
    if not right:
        raise InputError("table", f"{where}: got {shown(text)}; allowed: a number from 0 on, or nothing")


def kinds() -> Iterator[ModuleType]:
    """The kinds of tables: the files of this folder that have COLUMNS."""
    folder = os.path.dirname(os.path.abspath(__file__))
    found = (import_module(f"budget.bench.published.{name}") for name in modules(folder))
    return (module for module in found if hasattr(module, "TELLS"))


def _kind(name: str, columns: tuple[str, ...]) -> ModuleType:
    """The kind whose own columns a table has. Raises InputError for none, and for a missing column."""
    known = [kind for kind in kinds() if set(kind.TELLS) <= set(columns)]
    if not known:
        some = "; ".join(", ".join(kind.TELLS) for kind in kinds())
        raise InputError("table", f"{name}: no known kind of table; allowed: one with the columns {some}")
    missing = [column for column in known[0].COLUMNS if column not in columns]
    if missing:
        raise InputError("table", f"{name}: column {missing[0]} is missing")
    return known[0]
