"""What nobody says of a machine: the power mode of a board that has several, and how fast its host is."""

from __future__ import annotations

from ..device import load
from ..device.kernel_class import Dispatch
from ..device.peaks import halved
from ..fold.time import time
from ..named import TYPE_CHECKING
from ..size import Size, maximum, minimum

if TYPE_CHECKING:
    from . import Estimate

# A GeForce board stands in a rented server, whose host is taken, or in a desktop of its year, which takes so
# much of that host's seconds for an operator: inferred from encoders of one query on an RTX 4080 SUPER beside
# a Core Ultra 9 285K. Source: desktop-encodings.
DESKTOP = 0.4


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


def faster(e: Estimate) -> Size:
    """The part of its time beside a desktop's host: 1 but for GeForce boards that wait for theirs."""
    if not halved(e.device) or e.spread is not None or e.profile.provenance == "measured":
        return 1.0
    dispatch = Dispatch(*(DESKTOP * seconds for seconds in e.profile.dispatch))
    profile, task = e.profile._replace(dispatch=dispatch), e.task
    took = time(e.program, e.device, profile, task.dtype, task.execution).step
    return minimum(took / e.times.step, 1.0)
