"""A board whose power mode nobody names: its highest is assumed, but it may run as it was shipped."""

from __future__ import annotations

from ..device import load
from ..fold.time import time
from ..named import TYPE_CHECKING
from ..size import Size, maximum

if TYPE_CHECKING:
    from . import Estimate


def slower(e: Estimate) -> Size:
    """How many times as long it takes in the mode in which the board is shipped. 1 where that is the highest,
    or a mode was named, or it was measured as it runs.
    """
    if not e.device.shipped or e.spread is not None or e.profile.provenance == "measured":
        return 1.0
    device = load(e.device.shipped)
    starts = e.profile.launch_s * (e.device.hertz or 1.0) / (device.hertz or 1.0)
    profile = e.profile._replace(launch_s=starts)  # a kernel's start takes cycles
    task = e.task
    took = time(e.program, device, profile, task.dtype, task.execution).step
    return maximum(took / e.times.step, 1.0)
