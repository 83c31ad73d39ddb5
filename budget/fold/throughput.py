"""What a second of running brings, and what part of the device's peak that is: MFU and HFU. Source: palm."""

from __future__ import annotations

from ..named import NamedTuple
from ..size import Size, minimum
from .count import Flops


class Throughput(NamedTuple):
    """Per second and device; `mfu` and `hfu` are fractions of the peak rate of the dtype."""

    samples_per_s: Size
    tokens_per_s: Size
    tflops_per_device: Size  # of the model: nothing that is computed again
    mfu: Size  # model FLOPs utilization
    hfu: Size  # hardware FLOPs utilization, with what is computed again


def throughput(
    samples: Size, tokens: Size, model: Flops, hardware: Flops, seconds: Size, peak: float
) -> Throughput:
    """Of a step or pass that takes `seconds` on a device of `peak` FLOP/s."""
    per_second = 1 / seconds
    hardware_step = hardware.forward + hardware.backward
    # Where less runs than the model has (sparse products, absorbed ones), no more than that is used.
    model_step = minimum(model.forward + model.backward, hardware_step)
    return Throughput(
        samples * per_second,
        tokens * per_second,
        model_step * per_second / 1e12,
        model_step * per_second / peak,
        hardware_step * per_second / peak,
    )
