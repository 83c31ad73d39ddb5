"""Architectures: one file each, Config -> Model, found by its file name.

A file has a `Config` (its fields become flags) and `build(config, workload) -> Model`. Unless it is an image
network, `TAKES` names the sizes of the workload that it reads; `MODES` names the modes that it can run in.
Files whose names start with an underscore hold what several architectures share.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib import import_module
from types import ModuleType

from ..errors import InputError, unknown
from ..found import modules

TAKES = ("batch", "image")
MODES = ("train", "forward")


@cache
def names() -> tuple[str, ...]:
    """All architectures, sorted."""
    return modules(__path__[0])


def load(name: str) -> ModuleType:
    """The module of one architecture. Raises InputError."""
    if name not in names():
        raise unknown("arch", name, names(), "`budget list architectures` has the names")
    return import_module(f"{__name__}.{name}")


def takes_of(module: ModuleType) -> tuple[str, ...]:
    """The sizes of a workload that an architecture reads."""
    takes: tuple[str, ...] = getattr(module, "TAKES", TAKES)
    return takes


def check(module: ModuleType, name: str, mode: str, sizes: Iterable[str]) -> None:
    """Raise an InputError for a mode that a network does not have, or a size that it would ignore."""
    modes, takes = getattr(module, "MODES", MODES), takes_of(module)
    if mode not in modes:
        why = f"{name} has no {mode}{', since it generates no tokens' if mode == 'decode' else ''}"
        raise InputError("mode", f"{why}; allowed: {', '.join(modes)}")
    for size in sizes:
        if size not in takes:
            raise InputError(size, f"{name} has no {size}; allowed: {', '.join(takes)}")
