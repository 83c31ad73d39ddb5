"""Presets: named configurations, data with sources in data/presets/.

A table has either `arch` and that architecture's settings, or `model_type` and a Hugging Face
family's own fields; `workload` where a preset is also a worked example. A table with `same_as` is
another name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache

from .. import table
from ..errors import unknown
from ..named import Any

FOLDER = "presets"
ABOUT = ("source", "note")  # for people: no settings


def find(name: str) -> Mapping[str, Any]:
    """One preset's table. Raises InputError."""
    return look_up(name)[1]


@lru_cache(maxsize=256)
def look_up(name: str) -> tuple[str, Mapping[str, Any]]:
    """A preset's own name and its table, for a name as people tell it (`GPT-2 XL`, `resnet-50`).

    Raises InputError that says the nearest known name.
    """
    for spelled in (_exact, _spelled, _on_the_hub):
        for presets in _files(name):
            heading = spelled(name, presets)
            if heading is not None:
                found = presets[heading]
                return look_up(found["same_as"]) if "same_as" in found else (heading, found)
    raise unknown("preset", name, names())


def names() -> tuple[str, ...]:
    """All presets by their own names, by file and in the files' order."""
    return tuple(name for presets in _files() for name, told in presets.items() if "same_as" not in told)


def _files(likely: str = "") -> Iterator[Mapping[str, Mapping[str, Any]]]:
    """All files' tables; a file that a name begins with is read first, and often alone."""
    files = sorted(table.files(FOLDER), key=lambda file: not likely.startswith(file))
    return (table.load(FOLDER, f"{file}.json") for file in files)


def _exact(name: str, headings: Mapping[str, object]) -> str | None:
    return name if name in headings else None


def _spelled(name: str, headings: Mapping[str, object]) -> str | None:
    """The heading that a name means.

    Which mark divides a name's parts never counts; whether one does, only where that tells two
    headings apart (RegNet-Y-1.6GF and 16GF).
    """
    for spelling in (_dashed, _squeeze):
        found = [h for h in headings if spelling(h) == spelling(name)]
        if len(found) == 1:
            return found[0]
    return None


def _on_the_hub(name: str, headings: Mapping[str, object]) -> str | None:
    """The hub's name, `owner/name`, of which this is the part behind the owner."""
    found = [h for h in headings if "/" in h and _dashed(h.partition("/")[2]) == _dashed(name)]
    return found[0] if found else None


def _dashed(name: str) -> str:
    return name.lower().translate({ord(c): "-" for c in " _."})


def _squeeze(name: str) -> str:
    return name.lower().translate({ord(c): None for c in " -_."})
