"""How far off a time may be, with what nobody says of a machine: the power mode of a board that has several,
the power of a notebook's, and how fast its host is.
"""

from __future__ import annotations

from ..device import Device, load
from ..device.kernel_class import Dispatch, Profile
from ..device.peaks import halved
from ..fold.time import time, waiting
from ..named import TYPE_CHECKING
from ..size import Size, maximum, minimum

if TYPE_CHECKING:
    from . import Estimate

# A GeForce board stands in a rented server, whose host is taken, or in a desktop of its year, which takes so
# much of that host's seconds for an operator: inferred from encoders of one query on an RTX 4080 SUPER beside
# a Core Ultra 9 285K. Source: desktop-encodings.
DESKTOP = 0.4


def interval(e: Estimate) -> tuple[Size, Size]:
    """The factors of its time within which nine of ten measured ones lie."""
    power = unsure(e)
    own = e.profile.low**power * faster(e), e.profile.high**power * slower(e)
    if e.spread is None or e.cluster is None:
        return own
    from ..device.generation import together  # not for one device
    from ..fold import doubt

    trains = e.task.workload.mode == "train"
    other = together(e.stack.same or e.stack.name, e.device.generation) if trains else 1.0
    return doubt.interval(own, e.times.step, e.spread, e.ran, e.cluster, e.stack.overlap, other)


def slower(e: Estimate) -> Size:
    """How many times as long it takes in the mode in which the board is shipped. 1 where that is the highest,
    or a mode was named, or it was measured as it runs.
    """
    if not e.device.shipped or _is_known(e):
        return 1.0
    device = load(e.device.shipped)
    starts = e.profile.launch_s * (e.device.hertz or 1.0) / (device.hertz or 1.0)
    profile = e.profile._replace(launch_s=starts)  # a kernel's start takes cycles
    return maximum(_times(e, device, profile), 1.0)


def faster(e: Estimate) -> Size:
    """The part of its time beside a desktop's host, in a notebook at its highest clock, too: 1 but for
    GeForce boards, and others of which that clock is known.
    """
    if not (halved(e.device) or e.device.highest) or _is_known(e):
        return 1.0
    device, times = quickest(e.device)
    dispatch = Dispatch(*(DESKTOP * seconds for seconds in e.profile.dispatch))
    profile = e.profile._replace(dispatch=dispatch, launch_s=e.profile.launch_s / times)
    return minimum(_times(e, device, profile), 1.0)


def quickest(device: Device) -> tuple[Device, float]:
    """It at the highest clock to which makers of notebooks set it, and how many times its own that is; the
    memory's stays. Itself and 1 where no such clock is known.
    """
    if not (device.highest and device.hertz):
        return device, 1.0
    times = device.highest / device.hertz
    rates = {kind: times * rate for kind, rate in device.flops.items()}
    return device._replace(flops=rates, hertz=device.highest), times


def unsure(e: Estimate) -> Size:
    """The power of both ends of its interval: the longer the device waits for a host of which nobody says how
    fast it is, or for the starts of small kernels, the less sure the time is.
    """
    return 1 + (e.profile.host - 1) * waiting(e.times)


def _is_known(e: Estimate) -> bool:
    """Whether its machine was measured as it runs, or is one of several, whose intervals are their own."""
    return e.spread is not None or e.profile.provenance == "measured"


def _times(e: Estimate, device: Device, profile: Profile) -> Size:
    """How many times as long it takes on another device, or by another profile."""
    return time(e.program, device, profile, e.task.dtype, e.task.execution).step / e.times.step
