"""Which software words mean, what programs over it do, and how it differs from others (software.toml)."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from functools import cache

from budget.named import Any


def toml(name: str) -> Mapping[str, Any]:
    """A table of this folder."""
    with open(os.path.join(os.path.dirname(__file__), name), "rb") as file:
        return tomllib.load(file)


@cache
def facts() -> Mapping[str, Any]:
    """The stacks that words mean, by where they count (words, engines, frameworks), and what was `before`."""
    return toml("software.toml")


def programs(what: str, text: str) -> list[Any]:
    """What the programs over a stack that a text names have of their own, of one thing."""
    having = (own for own in facts()["programs"] if what in own)
    return [own[what] for own in having if re.search(rf"\b({own['words']})\b", text)]


@cache
def differs(software: str) -> Mapping[str, Any]:
    """How a stack differs from others, by all tables that name it; nothing where it does not."""
    return {
        fact: value for entry in facts()["of"] if software in entry["stacks"] for fact, value in entry.items()
    }
