"""The lines that a campaign has left: records.jsonl, or the journal of an interrupted `pytest bench/`."""

from __future__ import annotations

import json
import os
from typing import Any

from .refused import RefusedError

NAMES = ("records.jsonl", "unfinished-full.jsonl", "unfinished-quick.jsonl")


def read(path: str) -> list[dict[str, Any]]:
    """The lines of a file, or of the file of that kind in a folder; a last one that was cut off is left out.

    Raises RefusedError for a place without such a file, and for a line inside that cannot be read.
    """
    files = [path] if os.path.isfile(path) else [os.path.join(path, name) for name in NAMES]
    found = next((f for f in files if os.path.isfile(f)), None)
    if found is None:
        raise RefusedError(f"{path}: there is no {' and no '.join(NAMES)}")
    try:
        with open(found, encoding="utf-8") as file:
            texts = [text for text in file.read().split("\n") if text.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise RefusedError(f"cannot read {found}: {error}") from None
    lines = []
    for number, text in enumerate(texts, 1):
        try:
            line = json.loads(text)
        except ValueError:
            if number == len(texts):
                break  # it was being written when the run ended
            raise RefusedError(f"{found}, line {number}: truncated or no JSON") from None
        if not isinstance(line, dict):
            raise RefusedError(f"{found}, line {number}: {str(line)[:40]!r}; allowed: a table")
        lines.append(line)
    return lines
