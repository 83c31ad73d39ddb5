"""Software stacks: what runs a network on a device, as data (data/stacks/, one file each).

A device's datasheet says what is possible; the software decides what of it is reached, which kernels are
chosen, what a launch costs and which dtypes the tensors have. Nobody runs "a model on a GPU": they run
transformers, Megatron or vLLM on it.
"""

from __future__ import annotations

import os
from functools import cache

from .. import files, table
from ..errors import unknown
from ._fields import AllReduce
from ._names import names, spelled
from ._parse import FIELDS, parse
from ._stack import AXES, BESIDES, BY_GENERATION, CALLS, CLASSES, SEVERAL, Stack

__all__ = [
    "AXES", "BESIDES", "BY_GENERATION", "CALLS", "CLASSES", "ENGINES", "FIELDS", "HERE", "SEVERAL",
    "AllReduce", "Stack", "all_stacks", "load", "names", "of_vendors", "parse", "usual",
]  # fmt: skip

# The stack where nobody names one, by mode and vendor: what most people train and serve with. `older`: on
# NVIDIA's generations before `older_than`, for which neither torch.compile nor vLLM has kernels.
USUAL = "usual_stacks.json"
HERE = "this machine"  # vendor of the processor that is asked about itself
ENGINES = ("prefill", "decode")  # what engines serve


def all_stacks() -> tuple[Stack, ...]:
    """All stacks of the data."""
    return tuple(map(load, names()))


def usual(mode: str, vendor: str = "", form: str = "", generation: str = "") -> Stack:
    """The stack of a mode, on a vendor's devices of a generation, where none is named.

    form: a format of weights (`gguf`, `mlx`) that is one engine's own, which then serves them.
    """
    about = table.load(USUAL)
    if form and mode in ENGINES:
        return load(about["formats"][form])
    by_vendor, of_nvidia = about[mode], generation.startswith("sm")
    older = of_nvidia and int(generation[2:]) < about["older_than"]
    return load(by_vendor["older"] if older else by_vendor.get(vendor, by_vendor[""]))


def of_vendors(mode: str) -> dict[str, str]:
    """The stacks that are usual on some vendors' devices alone, by vendor."""
    return {vendor: name for vendor, name in table.load(USUAL)[mode].items() if vendor not in ("", "older")}


def load(name: str) -> Stack:
    """A stack by its name, or by the path of a file of one's own. Raises InputError."""
    if table.has("stacks", name):
        return _shipped(name)
    if name.endswith(".json"):
        return parse(files.table("stack", name), os.path.basename(name))
    if stack := spelled(name):
        return _shipped(stack)
    raise unknown("stack", name, names(), "`budget list stacks` has the names")


@cache
def _shipped(name: str) -> Stack:
    return parse(table.load("stacks", f"{name}.json"), f"{name}.json")
