"""What a process takes of a device's memory besides its tensors: context, workspaces, buffers, fragments.

Three sizes are called "memory used": what is allocated (tensors, torch's `max_memory_allocated`), what the
allocator has reserved for them (`max_memory_reserved`), and what the process holds (nvidia-smi).
The figures are data (data/reserve.json).
"""

from __future__ import annotations

import re

from .. import table
from ..config import HUGE
from ..errors import wrong
from ..named import Any, NamedTuple
from ..size import Size, ceil_div
from . import Device

UNITS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
SIZE = r"(?i)(\d+(?:\.\d+)?)\s*(%|([KMGT]?)(i?)B?)"
ALLOWED = "bytes as 2GiB or 500MB, or a share of the device's memory as 10%"


class Reserve(NamedTuple):
    """Memory besides the tensors. fragments: the fraction of the allocator's memory that it cannot use;
    bytes: the rest, context and workspaces. asked: as the user set it, all of it in `bytes`.
    """

    bytes: int
    fragments: float
    asked: bool = False

    def reserved(self, allocated: Size) -> Size:
        """What the allocator holds at the peak of what is allocated."""
        if not self.fragments:
            return allocated
        whole = ceil_div(allocated, 1 - self.fragments)
        return int(whole) if isinstance(whole, float) else whole

    @property
    def words(self) -> str:
        """What it is for, in a few words."""
        return "with --reserve" if self.asked else "with context, workspaces, fragments"


NOTHING = Reserve(0, 0.0)


def reserve(device: Device, groups: float, context_mib: float, value: Any = None) -> Reserve:
    """A reserve as the user says it, or a process's usual one for None. Raises InputError."""
    return usual(device, groups, context_mib) if value is None else asked(value, device)


def usual(device: Device, groups: float = 0, context_mib: float = 0) -> Reserve:
    """What a process of torch takes on a device, with as many process groups; nothing where none is known.
    context_mib: of another CUDA than data/reserve.json's.

    Sources: cuda-oom-messages, torch-cublas-workspace, nccl-memory.
    """
    about = table.load("reserve.json")
    if device.vendor not in about["vendors"]:
        return NOTHING
    workspace = about["workspace"]["generations"].get(device.generation, about["workspace"]["mib"])
    mib = (context_mib or about["context"]["mib"]) + workspace + groups * about["communicator"]["mib"]
    return Reserve(round(mib * 2**20), about["fragmentation"]["share"])


def asked(value: Any, device: Device) -> Reserve:
    """A reserve as the user says it: bytes, or a share of the device's memory. Raises InputError."""
    if isinstance(value, str) and (match := re.fullmatch(SIZE, value.strip())):
        number, percent, unit, binary = float(match[1]), match[2] == "%", match[3], match[4]
        if percent and number > 100:
            raise wrong("reserve", value, f"{ALLOWED}, at most 100%")
        scale = (
            device.usable_bytes / 100
            if percent
            else (1024 if binary else 1000) ** UNITS[(unit or "").upper()]
        )
        size = number * scale
    elif isinstance(value, int | float) and not isinstance(value, bool):
        size = value
    else:
        raise wrong("reserve", value, ALLOWED)
    if not 0 <= size <= HUGE:
        raise wrong("reserve", value, ALLOWED)
    return Reserve(round(size), 0.0, True)
