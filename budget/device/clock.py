"""The clock of a device, as its table tells it, and the age of its host: what starts cost there.

What all stacks share is an H100's. A kernel's start takes cycles, not seconds: its blocks are handed out, and
the first of them wait for memory. A host that is not on the device's chip is taken to be as old as it, and a
core to be a tenth faster each year. Assumptions that pairs which no fit has seen bear out
(docs/record/fit.md).
Source: single-thread-trend.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..named import Any

HERTZ, YEAR, YEARLY = 1.98e9, 2022, 1.1
# Multiply-adds of float32 that a unit starts in a cycle, by generation; of no others is the clock known.
# Sources: cuda-throughput, apple-cores, rocm-mi300.
LANES = {
    **dict.fromkeys(("sm30", "sm35", "sm37"), 192),
    **dict.fromkeys(("sm60", "sm70", "sm72", "sm75", "sm80"), 64),
    **dict.fromkeys(("sm50", "sm52", "sm53", "sm61", "sm62", "sm86", "sm87", "sm89", "sm90"), 128),
    **dict.fromkeys(("sm100", "sm103", "sm110", "sm120", "sm121"), 128),
    **dict.fromkeys(("apple7", "apple8", "apple9", "apple10", "gfx942"), 128),
}


def hertz(table: Mapping[str, Any]) -> float | None:
    """The clock that a table's rate of float32 is for: two FLOPs from each lane of each unit in a cycle."""
    units, lanes = table.get("sms") or table.get("cores"), LANES.get(table.get("generation", ""))
    if not (units and lanes and "fp32_tflops" in table):
        return None
    return float(table["fp32_tflops"] * 1e12 / (2 * lanes * units))


def start(seconds: float, clock: float | None) -> float:
    """A kernel's start that takes so many seconds on an H100: the same cycles where the clock is known."""
    return seconds * HERTZ / (clock or HERTZ)


def host(year: int | None) -> float:
    """The seconds of a host as old as a device of a year, to an H100's."""
    return YEARLY ** (YEAR - (year or YEAR))
