"""Throughput, and the fraction of the device's peak that it is: MFU and HFU. Source: palm."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..device import Device
from ..device.kernel_class import KernelClass
from ..named import NamedTuple
from ..size import Size, is_zero, minimum
from .count import Flops
from .time import Timed


class Throughput(NamedTuple):
    """Per second and device; `mfu` and `hfu` are fractions of the peak rate (`peak`)."""

    samples_per_s: Size
    tokens_per_s: Size
    tflops_per_device: Size  # of the model: recomputation not counted
    mfu: Size  # model FLOPs utilization
    hfu: Size  # hardware FLOPs utilization: recomputation counted


def throughput(
    samples: Size, tokens: Size, model: Flops, hardware: Flops, seconds: Size, peak: float
) -> Throughput:
    """The throughput of a step or pass that takes `seconds` on a device with `peak` FLOP/s."""
    per_second = 1 / seconds
    hardware_step = hardware.forward + hardware.backward
    # Sparse or absorbed products compute less than the model has: only what runs counts.
    model_step = minimum(model.forward + model.backward, hardware_step)
    return Throughput(
        samples * per_second,
        tokens * per_second,
        model_step * per_second / 1e12,
        model_step * per_second / peak,
        hardware_step * per_second / peak,
    )


def peak(kernels: Iterable[Timed], forms: Mapping[str, KernelClass], device: Device, dtype: str) -> Size:
    """The peak FLOP/s of a program's products: the dtype's, or that of another format for products in its
    `units`. For a program with both: all FLOPs over the seconds that they take at their own peaks. Derived.
    """
    usual = device.rate(dtype)
    if not any(form.units for form in forms.values()):
        return usual
    flops: dict[str, Size] = {}
    for w in (k.work for k in kernels):
        units = "" if forms[w.form].ordinary else forms[w.form].units
        flops[units] = flops.get(units, 0) + w.contraction * w.times
    longest = sum(n / device.rate(units or dtype) for units, n in flops.items())
    return usual if is_zero(longest) else sum(flops.values()) / longest


def over(devices: Size, all_together: Throughput) -> Throughput:
    """The throughput of several devices: samples and tokens of all together, the other figures of each."""
    t = all_together
    return t._replace(
        tflops_per_device=t.tflops_per_device / devices, mfu=t.mfu / devices, hfu=t.hfu / devices
    )
