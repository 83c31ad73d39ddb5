"""Architectures: one file each, Config -> Model, found by its file name.

A file has a `Config` (its fields become flags) and `build(config, workload) -> Model`.
Files whose names start with an underscore hold pieces that several share.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import ModuleType

from ..errors import unknown
from ..found import modules


@cache
def names() -> tuple[str, ...]:
    """All architectures, sorted."""
    return modules(__path__[0])


def load(name: str) -> ModuleType:
    """The module of one architecture. Raises InputError."""
    if name not in names():
        raise unknown("arch", name, names())
    return import_module(f"{__name__}.{name}")
