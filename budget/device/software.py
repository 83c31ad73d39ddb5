"""The profile of a software stack on a device, from data/kernels.json and the stack's own file.

The rate of a class of kernels is what the stack's kernels reach alone on this generation of devices, times a
factor of the stack that is fitted to published runs (bench/published/fit.py). A pair of stack and generation
that nobody measured takes the stack's factors on other generations, with a wider interval.
"""

from __future__ import annotations

import math

from .. import table
from ..dtype import BYTES, full_name, short_name
from ..stack import SEVERAL, Stack
from . import Device, clock
from .generation import interval_on, nearest
from .kernel_class import Dispatch, KernelClass, Profile, complete
from .peaks import accumulated, attention, halved, products, sixteen, sustained

# The largest fraction of a peak rate or bandwidth that anything reaches, but for products that were measured
# to reach more. Derived: above every figure of data/kernels.json for boards that run at their full rate.
MOST = 0.96
# The edge of convolutions whose groups are separate products, inferred from RegNets with 24 to 232 channels a
# group on an RTX 3090 and a 5090. Source: timm.
APART = 100.0
# The rate of their gradients, over that of the forward pass: in three RegNets that timm trained on an RTX
# 3090, channels first, they take 1.8 to 2.2 times as long. Source: timm.
APART_GRADIENTS = 0.5
# The fraction of the ordinary units' rate that torch's kernel for groups of one channel reaches in float32
# and tf32, without overlap with its traffic: for 3 to 31 taps a side on an RTX 2080 Ti. It uses no tensor
# units. In 16 bits cuDNN's kernels are bound by memory instead. Sources: replknet, aten-depthwise.
DEPTHWISE = 0.115
# The same for the gradients of their weights. A block makes one number of them, and for each multiplication
# computes where its two operands lie: some 60 instructions with a division. Inferred from MobileNet-V2,
# EfficientNet-B0 and ConvNeXt-T as a whole on an A100. Source: aten-depthwise.
DEPTHWISE_WEIGHTS = 0.015
# The side of convolutions' output tiles. Libraries do not split their K, so units idle where there are few
# pictures; K of a weight's gradient has all pictures and is split. The smallest usual tile, assumed; ResNets
# at batch 1 on a V100 and a T4 agree. Source: cutlass-convolution.
WHOLE = 64.0
# Seconds to start a kernel from a recurrent layer's own loop: half a step of an LSTM of 40 units. Source:
# cudnn-rnn.
LOOP_S = 3.3e-6
# Generations that have no tensor units and multiply float16 in pairs, at twice float32's rate, with sums in
# float16. Sources: techpowerup, aten-cudnn.
PAIRS = ("sm53", "sm60", "sm62")
COPIES = 25 / 31.5  # the fraction of a host link's rate that copies reach. Source: pcie


def profile(
    base: Profile,
    device: Device,
    stack: Stack,
    dtype: str,
    *,
    several: bool = False,
    mode: str = "forward",
) -> Profile:
    """The profile of a stack on a device that was not measured here, computing in a dtype.

    base: what all stacks share (convolutions, memory-bound kernels, launches). several: one batch is on
    several devices. mode: a training run (train) lasts for hours, so that a board limited by its power is
    slower than in a short benchmark; a prompt's time (prefill) is less sure than a token's.
    """
    generation = device.generation
    factors = stack.reached_on(generation)
    memory = nearest(table.load("kernels.json")["bandwidth"], generation)
    stream = min(memory * factors["stream"], MOST)
    pointwise = base.forms["pointwise"]
    traffic = stream / min(memory / pointwise.traffic * factors["pointwise"], MOST)
    held = sustained(device, dtype) if mode == "train" else 1.0
    kinds = (_as_tf32(base, device, stack, dtype, kind) for kind in ("matmul", "conv"))
    matmul, conv = (of_kind._replace(share=of_kind.share * held) for of_kind in kinds)
    reaches = base.forms["attention"].share * factors["attention"] * _units(stack, device, dtype)
    if matmul.units:
        reaches *= device.rate(matmul.units) / device.rate(dtype)
    forms = {
        **_matmuls(base, matmul, min(factors["weight_only"], MOST / stream), stack, device, dtype),
        **_convolutions(base.forms["conv"], conv, traffic, dtype),
        "pointwise": pointwise._replace(traffic=traffic),
        **_attention(stack, device, reaches, matmul.units),
        "state": KernelClass(traffic=stack.states),
        "recurrent": matmul._replace(loop_s=LOOP_S),
    }
    host = table.load("kernels.json")["hosts"].get(generation) or clock.host(device.year)
    measured = generation != "" and generation in stack.intervals
    low, high = interval_on(stack.intervals, generation) or (base.low, base.high)
    if several:  # no surer than one
        least, most = stack.intervals.get(SEVERAL, (low, high))
        low, high = min(low, least), max(high, most)
    if mode == "prefill":
        low, high = low**base.prompt, high**base.prompt
    return base._replace(
        name=f"{stack.name} on {generation}" if measured else stack.like or stack.name,
        provenance="published" if measured else "datasheet",
        forms=complete(forms),
        memory=stream,
        launch_s=clock.start(base.launch_s, device.hertz) * factors["launch"],
        dispatch=_dispatch(base.dispatch, factors["host"] * host, stack.dispatch),
        turn=(base.turn[0] * factors["turn"] * host, base.turn[1] * factors["sequence"] * host),
        low=low,
        high=high,
        calls=stack.calls,
        fp4=stack.fp4,
    )


def _attention(stack: Stack, device: Device, reaches: float, units: str) -> dict[str, KernelClass]:
    """The classes of a stack's attention, which may unpack a cache in few bits for each query."""
    classes = attention(stack.attention_on(device.generation), device, reaches, units)
    return {kind: kernel._replace(blocks=stack.blocks) for kind, kernel in classes.items()}


def _dispatch(base: Dispatch, host: float, share: float) -> Dispatch:
    """The host's seconds for a stack's operators, which it may compile; an optimizer's are never compiled."""
    eager = Dispatch(*(seconds * host for seconds in base))
    return eager._replace(forward=eager.forward * share, backward=eager.backward * share)


def _matmul(base: Profile, device: Device, stack: Stack, dtype: str) -> KernelClass:
    """A stack's matrix products: the rate that they reach alone, times the common factor and the stack's."""
    factors, shared = stack.reached_on(device.generation), base.forms["matmul"].share
    wide, narrow = (
        min(share * shared * factors["ordinary" if ordinary else "product"], max(MOST, share))
        for share, ordinary in (products(device, kind) for kind in (_kind(stack, device, dtype), "fp8"))
    )
    if stack.accumulate == "fp16":
        wide *= accumulated(device, dtype)
    return KernelClass(wide * _units(stack, device, dtype), narrow, unaligned=stack.unaligned)


def _as_tf32(base: Profile, device: Device, stack: Stack, dtype: str, kind: str) -> KernelClass:
    """Products of a kind; those of float32 in tf32 where the stack does that and NVIDIA's units can.
    Sources: torch-tf32, onnxruntime-tf32, tensorflow-tf32, tensorrt-tf32.
    """
    has = device.vendor == "NVIDIA" and "tf32" in device.flops
    if short_name(dtype) != "fp32" or kind not in stack.tf32 or not has:
        return _matmul(base, device, stack, dtype)
    fast = _matmul(base, device, stack, "tf32")
    return fast._replace(share=fast.share * device.rate("tf32") / device.rate("fp32"), units="tf32")


def _kind(stack: Stack, device: Device, dtype: str) -> str:
    """The format of the units that compute a stack's products: fp32 on ordinary units."""
    return "fp32" if _ordinary(stack, device, dtype) else dtype


def _units(stack: Stack, device: Device, dtype: str) -> float:
    """The rate of the units that compute a stack's products, over the peak in a dtype."""
    kind = short_name(dtype)
    return device.rate("vector" if _ordinary(stack, device, dtype) else kind) / device.rate(kind)


def _ordinary(stack: Stack, device: Device, dtype: str) -> bool:
    """Whether a stack's products are computed as float32's: where it leaves tensor units alone, and torch's
    where only pairs are faster that add up in float16, as torch asks for sums in float32.
    """
    pairs = device.generation in PAIRS and short_name(dtype) == "fp16" and stack.allocator == "torch"
    return pairs or not stack.tensor_units_on(device.generation)


def _matmuls(
    base: Profile, matmul: KernelClass, packed: float, stack: Stack, device: Device, dtype: str
) -> dict[str, KernelClass]:
    """The classes of products: dense ones, experts', and both with weights in few bits.

    packed: the fraction of the bandwidth at which weights in few bits are read.
    """
    generation = device.generation
    usual, way = base.forms["grouped"], stack.experts_on(generation)
    start, widens = _fused(device, clock.start(base.launch_s, device.hertz)) if way == "fused" else (0.0, 0.0)
    data = table.load("kernels.json")
    share = 1.0 if way == "loop" else data["grouped"] * usual.share
    bandwidth = usual.bandwidth * stack.reached_on(generation)["experts"]
    grouped = KernelClass(
        matmul.share * share,
        matmul.narrow * share,
        bandwidth=bandwidth,
        waits=stack.counts_experts,
        apart=way not in ("grouped", "fused"),
        start_s=start,
    )
    few = stack.few_bits_on(generation)
    packs = (_packed(base, device, stack, dtype) if few else 0.0) or matmul.share
    kernels = {"marlin": stack.marlin, "awq": stack.awq}
    most = min((data[k].get(generation, math.inf) for k, runs in kernels.items() if runs), default=math.inf)
    whole = _whole(device, matmul.share)
    late = 0.0 if few else data["few_bits_start_s"].get(generation, 0.0)  # `few`: of vectors, made for each
    return {
        "matmul": matmul,
        "grouped": grouped,
        "weight_only_matmul": matmul._replace(
            share=min(packs, most), narrow=whole, bandwidth=packed, start_s=late, **few
        ),
        "weight_only_grouped": grouped._replace(
            share=packs * share,
            narrow=whole * share,
            bandwidth=bandwidth * packed,
            widens=widens,
            overlap=few.get("overlap", 1.0),
            formats=few.get("formats", ()),
        ),
    }


def _whole(device: Device, share: float) -> float:
    """The fraction of int8's peak that products of int8 by int8 reach, where 16-bit products reach a share of
    theirs (on GeForce, of half their rate).
    """
    known = table.load("kernels.json")
    if halved(device):
        share *= sixteen(device.generation) / known["products"]["half"]["bf16"]
    return share * float(nearest(known["int8"], device.generation))


def _packed(base: Profile, device: Device, stack: Stack, dtype: str) -> float:
    """The fraction of the peak in a dtype that products of integers with weights in few bits reach.

    Their rate is a number of FLOPs a clock for each multiprocessor, whatever its tensor units could do; or
    else half of the rate at which ordinary units multiply bytes, four at a time. 0: neither is known of the
    device, or the stack has no such products. Sources: llama-cpp-cdna, llama-cpp-mmq.
    """
    generation = device.generation
    data = table.load("kernels.json")
    clocked = data["mmq"].get(generation, 0.0) if stack.mmq else 0.0
    most = clocked * (device.sms or 0) * (device.hertz or 0.0)
    if not most and stack.tensor_units_on(generation):
        most = data["bytes"].get(generation, 0.0) / 2 * device.rate("vector")
    share = base.forms["matmul"].share * stack.reached_on(generation)["product"]
    return float(most * share / device.rate(short_name(dtype)))


def _fused(device: Device, launch: float) -> tuple[float, float]:
    """An engine's fused operator of experts: more seconds to start each of its two products, and bytes/s at
    which it widens weights in few bits. It starts four kernels: the products, what is between them, and the
    sum. 0: not measured, so no later and without a limit.
    """
    known, generation = table.load("kernels.json")["fused_experts"], device.generation
    late = known["start_s"].get(generation, 0.0) / 2 - 2 * launch
    return max(late, 0.0), known["widened"].get(generation, 0.0) * (device.sms or 0)


def _convolutions(
    conv: KernelClass, products: KernelClass, traffic: float, dtype: str
) -> dict[str, KernelClass]:
    """The classes of convolutions, with the bandwidth of pointwise kernels: dense, in groups that are
    separate products, and in groups of one channel.
    """
    usual = conv._replace(share=conv.share * products.share, bandwidth=1 / traffic, units=products.units)
    apart = usual._replace(edge=(APART,) * 3)
    in_float32 = BYTES[full_name(dtype)] >= BYTES["float32"]
    alone = usual._replace(ordinary=DEPTHWISE, overlap=0.0) if in_float32 else usual
    weights = alone._replace(ordinary=DEPTHWISE_WEIGHTS) if in_float32 else usual
    return {
        "conv": usual._replace(whole=WHOLE),
        "conv_backward": usual,
        "conv_apart": apart._replace(whole=WHOLE),
        "conv_apart_backward": apart._replace(share=apart.share * APART_GRADIENTS),
        "conv_depthwise": alone,
        "conv_depthwise_backward": alone,
        "conv_depthwise_weights": weights,
    }


def host_bandwidth(device: Device) -> float:
    """Bytes/s of copies to or from the host, one way. Where the data has no link to the host: 16 lanes of
    PCIe, of the fifth generation from 2022 on. Source: pcie.
    """
    rate = device.host.bandwidth if device.host else 63e9 if (device.year or 0) >= 2022 else 31.5e9
    return COPIES * rate
