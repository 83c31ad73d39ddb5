"""JSON, for scripts: keys may be added but are never renamed; keys include units."""

from __future__ import annotations

from json import dumps

from ._answer import Answer


def render(answer: Answer) -> str:
    """One JSON object or list, with a line per member: readable, and json's indentation would be slow."""
    data = answer.data()
    if isinstance(data, list):
        return "[\n" + ",\n".join(map(dumps, data)) + "\n]"
    return "{\n" + ",\n".join(f"{dumps(key)}: {dumps(value)}" for key, value in data.items()) + "\n}"
