"""Presets: named configurations, data with sources in data/presets/.

A table has either `arch` and that architecture's settings, or `model_type` and a Hugging Face
family's own fields; `workload.batch` and the like where a preset is also a worked example.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import unknown

FOLDER = Path(__file__).parent.parent / "data" / "presets"


@lru_cache(maxsize=256)
def find(name: str) -> Mapping[str, Any]:
    """One preset's table. Raises InputError that says the nearest known name."""
    for path in sorted(FOLDER.glob("*.toml")):
        text = path.read_text(encoding="utf-8")
        # A name with a dot is quoted, or TOML takes it for a table in a table.
        header = f'["{name}"]' if "." in name else f"[{name}]"
        start = ("\n" + text).find(f"\n{header}\n")
        if start >= 0 and name:
            # TOML is parsed in Python, slowly: read this table alone.
            end = text.find("\n[", start + 1)
            table = tomllib.loads(text[start : end if end >= 0 else None])
            return dict(table[name])
    raise unknown("preset", name, names())


def names() -> tuple[str, ...]:
    """All presets, by file and in the files' order."""
    found = []
    for path in sorted(FOLDER.glob("*.toml")):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("[") and line.endswith("]"):
                found.append(line[1:-1].strip('"'))
    return tuple(found)
