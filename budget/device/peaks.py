"""The fractions of a device's peak rates that kernels reach when measured alone (data/kernels.json): products
by format, and fused attention.
"""

from __future__ import annotations

import math

from .. import table
from ..dtype import short_name
from . import Device
from .generation import nearest
from .kernel_class import KernelClass

WIDE = ("bf16", "fp16", "tf32")  # formats whose products were measured as bf16's


def accumulated(device: Device, dtype: str) -> float:
    """How much faster 16-bit products are that accumulate in float16 instead of float32. GeForce's tensor
    cores accumulate in float32 at half their rate; all of NVIDIA's multiply int8 at twice the rate of float16
    that accumulates in float16. Source: fp16-accumulate.
    """
    kind = short_name(dtype)
    if kind not in ("bf16", "fp16") or device.vendor != "NVIDIA" or "int8" not in device.flops:
        return 1.0
    return max(1.0, device.flops["int8"] / 2 / device.rate(kind))


def halved(device: Device) -> bool:
    """Whether its tensor units accumulate in float32 at half their rate, as GeForce's do."""
    return accumulated(device, "fp16") > 1.5


def products(device: Device, dtype: str) -> tuple[float, bool]:
    """The fraction of the peak that large products reach, and whether ordinary units compute them.

    The fraction is the device's, else its generation's (or GeForce's), else that of its datasheet's measured
    rate, else the usual one.
    """
    kind = short_name(dtype)
    shares = table.load("kernels.json")["products"]
    of_device, others = shares.get(device.id, {}), shares.get(device.generation, {})
    tensor_units = kind == "tf32" and kind in device.flops
    if device.rate(kind) == device.rate("vector") and not tensor_units:
        return of_device.get("fp32", others.get("fp32", 1.0)), True
    if halved(device):
        others = shares["half"]
    for reached in (of_device, others):
        for key in (kind, "bf16") if kind in WIDE else (kind,):
            if key in reached:
                return float(reached[key]), False
    return device.reached(kind), False


def sustained(device: Device, dtype: str) -> float:
    """The rate of products in training over that in a short benchmark, on a board that is limited by its
    power: training multiplies for hours, with few kernels in between that let the board cool.
    """
    rates = table.load("kernels.json")["sustained"].get(device.id, {})
    return float(rates.get(short_name(dtype), 1.0))


def four_bits(device: Device) -> float:
    """How much faster large products in NVFP4 are than in float8, where both were measured; else 1."""
    shares = table.load("kernels.json")["products"].get(device.generation, {})
    fast, usual = (shares.get(kind, 0) * device.flops.get(kind, 0) for kind in ("fp4", "fp8"))
    return fast / usual if fast and usual else 1.0


def widening(device: Device) -> float:
    """Units of an A100 that widen weights as fast as all of a device's, where a kernel does so anew for each
    tile of rows.
    """
    rate: float = table.load("kernels.json")["widened"].get(device.generation, 1.0)
    return (device.sms or 1) * rate


def attention(kernel: str, device: Device, factor: float, units: str = "") -> dict[str, KernelClass]:
    """The classes of a fused attention kernel; none for attention that writes its scores, as separate
    products.
    """
    kernels = table.load("kernels.json")["attention"]
    about = kernels[kernels[kernel].get("like", kernel)]
    if "ordinary" in about:
        small = about.get("small", (0.0, 1.0))
        classes = KernelClass(
            ordinary=about["ordinary"] * factor, small=(small[0], small[1] * factor), vector=math.inf
        )
        return {"attention": classes}
    if not about["share"]:
        return {}
    share, edge, tail = (nearest(about[figure], device.generation) for figure in ("share", "edge", "tail"))
    if halved(device):
        share = 1 / (1 / products(device, "fp16")[0] + _beside(share, device.generation) / 2)
    # The share was measured with the softmax, so no other arithmetic is counted.
    forward = KernelClass(
        share * factor,
        edge=(0.0, edge, 0.0),
        tail=tail,
        heads=about.get("heads", 0),
        vector=math.inf,
        units=units,
    )
    return {
        "attention": forward,
        "attention_backward": forward._replace(share=forward.share * about["backward"]),
    }


def _beside(share: float, generation: str) -> float:
    """The time of an attention kernel that is not its products' (exponentials, memory on chip), over the
    products' time at the peak of a generation's boards that run at their full rate; at half the rate it is
    half. Derived.
    """
    return 1 / share - 1 / sixteen(generation)


def sixteen(generation: str) -> float:
    """The fraction of the peak that 16-bit products reach on a generation's boards that run at their full
    rate.
    """
    shares = table.load("kernels.json")["products"]
    return float(nearest({g: row["bf16"] for g, row in shares.items() if "bf16" in row}, generation))
