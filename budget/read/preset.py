"""Presets: named configurations, data with sources in data/presets/.

A table has either `arch` and that architecture's settings, or `model_type` and a Hugging Face
family's own fields; `workload.batch` and the like where a preset is also a worked example. A table
with `same_as` is another name.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from functools import lru_cache

from ..errors import unknown
from ..named import Any

FOLDER = os.path.join(os.path.dirname(os.path.dirname(__file__)), "data", "presets")


def find(name: str) -> Mapping[str, Any]:
    """One preset's table. Raises InputError."""
    return look_up(name)[1]


@lru_cache(maxsize=256)
def look_up(name: str) -> tuple[str, Mapping[str, Any]]:
    """A preset's own name and its table, for a name as people tell it (`GPT-2 XL`, `resnet-50`).

    Raises InputError that says the nearest known name.
    """
    for path in _files():
        with open(path, encoding="utf-8") as file:
            text = file.read()
        # TOML is parsed in Python, slowly: find the table and read it alone.
        heading = _spelled(name, _headings(text))
        if heading is not None:
            start = max(("\n" + text).find(f"\n[{key}]\n") for key in (heading, f'"{heading}"'))
            end = text.find("\n[", start + 1)
            table: dict[str, Any] = tomllib.loads(text[start : end if end >= 0 else None])[heading]
            return look_up(table["same_as"]) if "same_as" in table else (heading, table)
    raise unknown("preset", name, names())


def names() -> tuple[str, ...]:
    """All presets, by file and in the files' order."""
    found: list[str] = []
    for path in _files():
        with open(path, encoding="utf-8") as file:
            found += _headings(file.read())
    return tuple(found)


def _files() -> list[str]:
    return [os.path.join(FOLDER, name) for name in sorted(os.listdir(FOLDER))]


def _headings(text: str) -> list[str]:
    lines = text.splitlines()
    return [line[1:-1].strip('"') for line in lines if line.startswith("[") and line.endswith("]")]


def _spelled(name: str, headings: list[str]) -> str | None:
    """The heading that a name means.

    Which mark divides a name's parts never counts; whether one does, only where that tells two
    headings apart (RegNet-Y-1.6GF and 16GF).
    """
    for spelling in (_dashed, _squeeze):
        found = [h for h in headings if spelling(h) == spelling(name)]
        if len(found) == 1:
            return found[0]
    return None


def _dashed(name: str) -> str:
    return name.lower().translate({ord(c): "-" for c in " _."})


def _squeeze(name: str) -> str:
    return name.lower().translate({ord(c): None for c in " -_."})
