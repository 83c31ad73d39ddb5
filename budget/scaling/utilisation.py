"""MFU of 6 N D: of one device, of a layout, and of whole runs on many devices as they were reported."""

from __future__ import annotations

from .. import table
from ..answer import Estimate
from ..law import FLOPS
from ..runs.cost import Stated
from ..runs.failures import goodput


def one_device(network: Estimate) -> Stated:
    """The MFU while a device computes forward and backward: no optimizer, communication or restarts."""
    mfu = _mfu(network, network.times.forward + network.times.backward)
    what = f"predicted: one device, no communication or restarts; {network.profile.provenance}"
    return _with_interval(network, mfu, what)


def laid_out(network: Estimate) -> Stated:
    """The MFU on a layout: with communication, bubbles, the optimizer, and failures."""
    kept = goodput(network.devices).fraction
    mfu = _mfu(network, network.times.step * network.devices) * kept
    what = f"predicted on the layout, communication and bubbles in it; goodput {kept:.1%}"
    return _with_interval(network, mfu, what)


def whole_run(network: Estimate) -> Stated:
    """The MFU of a whole run on many devices: one device's, over the factor that published runs took
    longer.
    """
    one, lost = one_device(network).value, table.load("utilisation.json")
    what = (
        f"{one:.0%} on one device, predicted, over {lost['median']:g} ({lost['low']:g} to {lost['high']:g}): "
        f"what {lost['runs']} published runs lost to communication and stops"
    )
    return Stated(one / lost["median"], one / lost["high"], one / lost["low"], what, tuple(lost["source"]))


def _mfu(network: Estimate, device_seconds: float) -> float:
    """The MFU of a step that takes so many seconds of a device."""
    peak = network.device.rate(network.task.dtype)
    return float(FLOPS * network.params.total * network.model.tokens / device_seconds / peak)


def _with_interval(network: Estimate, mfu: float, what: str) -> Stated:
    low, high = network.interval
    return Stated(mfu, mfu / high, min(mfu / low, 1.0), what)
