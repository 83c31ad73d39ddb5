"""The clock of a device, as its table tells it: a kernel's start takes cycles, not seconds."""

from __future__ import annotations

from collections.abc import Mapping

from ..named import Any

# Multiply-adds of float32 that a unit starts in a cycle, by generation; of no others is the clock known.
# Sources: cuda-throughput, apple-cores.
LANES = {
    **dict.fromkeys(("sm30", "sm35", "sm37"), 192),
    **dict.fromkeys(("sm60", "sm70", "sm72", "sm75", "sm80"), 64),
    **dict.fromkeys(("sm50", "sm52", "sm53", "sm61", "sm62", "sm86", "sm87", "sm89", "sm90"), 128),
    **dict.fromkeys(("sm100", "sm103", "sm110", "sm120", "sm121"), 128),
    **dict.fromkeys(("apple7", "apple8", "apple9", "apple10"), 128),
}


def hertz(table: Mapping[str, Any]) -> float | None:
    """The clock that a table's rate of float32 is for: two FLOPs from each lane of each unit in a cycle."""
    units, lanes = table.get("sms") or table.get("cores"), LANES.get(table.get("generation", ""))
    if not (units and lanes and "fp32_tflops" in table):
        return None
    return float(table["fp32_tflops"] * 1e12 / (2 * lanes * units))
