"""JSON: what scripts rely on. Keys may be added, never renamed; units in the keys."""

from __future__ import annotations

from json import dumps

from ._answer import Answer


def render(answer: Answer) -> str:
    """One JSON object or list, with a line for each of its members: people find their way, and the encoder
    that is written in C does the work.
    """
    data = answer.data()
    if isinstance(data, list):
        return "[\n" + ",\n".join(map(dumps, data)) + "\n]"
    return "{\n" + ",\n".join(f"{dumps(key)}: {dumps(value)}" for key, value in data.items()) + "\n}"
