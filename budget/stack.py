"""Software stacks: what runs a network on a device, as data (data/stacks/, one file each).

A device's datasheet says what is possible; the software decides what of it is reached, which kernels are
chosen, what a launch costs and which dtypes the tensors have. Nobody runs "a model on a GPU": they run
transformers, Megatron or vLLM on it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cache

from . import table
from .errors import InputError, shown, unknown
from .named import Any, NamedTuple

AXES = ("dp", "tp", "pp", "ep", "cp")
# What `--stack` is where nobody says: what most people train with, and what they serve with.
USUAL = {"train": "torch-compile", "forward": "torch-compile", "prefill": "vllm", "decode": "vllm"}


class Stack(NamedTuple):
    """What a stack decides, for all networks alike.

    train, serve: its defaults of the workload's settings, by their names in `estimate`; None where it does
    not train, or only trains. overlap: by a mesh's axis, the fraction of its collectives' seconds that
    other kernels hide, where these take as long. source: keys of references.json.
    """

    name: str
    about: str
    source: tuple[str, ...]
    train: Mapping[str, Any] | None
    serve: Mapping[str, Any] | None
    overlap: Mapping[str, float]
    notes: str = ""

    def settings(self, mode: str) -> Mapping[str, Any]:
        """Its defaults of the settings in a mode. Raises InputError for a mode that it does not have."""
        found = self.train if mode == "train" else self.serve
        if found is None:
            others = ", ".join(sorted(s.name for s in all_stacks() if s.has(mode)))
            raise InputError("stack", f"{self.name} has no mode {mode}; allowed: {others}")
        return found

    @property
    def modes(self) -> str:
        """What it does: `train`, `serve`, or both."""
        return ", ".join(m for m in ("train", "serve") if getattr(self, m) is not None)

    def has(self, mode: str) -> bool:
        """Whether it runs this mode."""
        return (self.train if mode == "train" else self.serve) is not None


def names() -> tuple[str, ...]:
    """All stacks of the data, sorted."""
    return table.files("stacks")


def all_stacks() -> tuple[Stack, ...]:
    """All stacks of the data."""
    return tuple(map(load, names()))


def usual(mode: str) -> Stack:
    """The stack of a mode where none is named."""
    return load(USUAL[mode])


def load(name: str) -> Stack:
    """A stack by its name, or by the path of a file of one's own. Raises InputError."""
    if name in table.files("stacks"):
        return _shipped(name)
    if name.endswith(".json"):
        return _own(name)
    raise unknown("stack", name, names())


@cache
def _shipped(name: str) -> Stack:
    return parse(table.load("stacks", f"{name}.json"), f"{name}.json")


def _own(path: str) -> Stack:
    try:
        with open(path, encoding="utf-8") as file:
            return parse(json.load(file), os.path.basename(path))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        why = getattr(error, "strerror", None) or error
        raise InputError("stack", f"cannot read {path}: {why}") from None


def parse(about: Any, file: str) -> Stack:
    """A stack from its table. Raises InputError that names the file and the field."""
    if not isinstance(about, Mapping):
        raise InputError("stack", f"{file}: got {shown(about)}; allowed: a table")
    for field in about:
        if field not in ("about", "source", "train", "serve", "overlap", "notes"):
            raise _wrong(file, field, "is no field of a stack")
    for field in ("about", "source"):
        if not about.get(field):
            raise _wrong(file, field, "is missing")
    for mode in ("train", "serve"):
        if not isinstance(about.get(mode, {}), Mapping):
            raise _wrong(file, mode, f"got {shown(about[mode])}; allowed: a table of settings")
    source = about["source"]
    keys = (source,) if isinstance(source, str) else tuple(source) if isinstance(source, list) else (None,)
    if not all(isinstance(key, str) for key in keys):
        raise _wrong(file, "source", f"got {shown(source)}; allowed: keys of references.json")
    overlap = _numbers(about.get("overlap", {}), AXES, f"{file}: overlap", most=1)
    return Stack(
        file.removesuffix(".json"),
        str(about["about"]),
        keys,
        about.get("train"),
        about.get("serve"),
        {**dict.fromkeys(AXES, 0.0), **overlap},
        str(about.get("notes", "")),
    )


def _numbers(values: Any, allowed: tuple[str, ...], where: str, most: float) -> dict[str, float]:
    """A checked table of numbers from 0 on."""
    if not isinstance(values, Mapping):
        raise InputError("stack", f"{where}: got {shown(values)}; allowed: a table of numbers")
    for name, value in values.items():
        if name not in allowed:
            raise InputError("stack", f"{where}.{name[:40]} is unknown; allowed: {', '.join(allowed)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
            raise InputError("stack", f"{where}.{name}: got {shown(value)}; allowed: 0 to {most:g}")
    return {name: float(value) for name, value in values.items()}


def _wrong(file: str, field: str, problem: str) -> InputError:
    return InputError("stack", f"{file}: {field} {problem}")
