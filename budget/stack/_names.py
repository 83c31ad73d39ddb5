"""What stacks are called."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from .. import table


def names() -> tuple[str, ...]:
    """All stacks of the data, sorted."""
    return table.files("stacks")


def spelled(name: str) -> str:
    """The stack that people mean by a name as they spell it (`vLLM`, `llama cpp`, `ollama`); '' for none."""
    return _by_key().get(_key(name), "")


@cache
def _by_key() -> Mapping[str, str]:
    called = {name: (name, *table.load("stacks", f"{name}.json").get("aliases", ())) for name in names()}
    return {_key(alias): name for name, aliases in called.items() for alias in aliases}


def _key(name: str) -> str:
    """Without capitals, spaces and marks."""
    return name.lower().translate(dict.fromkeys(map(ord, " -_.")))
