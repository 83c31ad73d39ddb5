"""The classes of the time model: which numbers of a profile a kernel's time is made of."""

from __future__ import annotations

from ..device.kernel_class import BACKWARD
from ..dtype import BYTES
from ..ir import CACHE, CHANNELS_FIRST, KEY_SEQ, SEQ, WEIGHTS, Gemm, Op, gemm, is_convolution, picked, window
from ..size import Size, all_of, is_number, is_zero, minimum

NARROW = {"float8": "fp8", "float4": "fp4", "nvfp4": "nvfp4"}
WHOLE = {"w8a8": "int8"}  # read as fast as other weights of few bits
PRODUCTS = ("matmul", "conv", "attention")
# Channels of a group of which libraries' kernels take several at once, inferred: ResNeXts' cost what they
# move, and RegNets' (24 to 232 channels) are as products apart. Source: timm.
TOGETHER = (4, 8, 16, 32)


def experts(o: Op) -> str:
    """The dimension from which rows pick a weight, so that several are at work in one product; or nothing."""
    return next((axis for t in o.ins if (axis := picked(t))), "")


def kind_of(o: Op) -> str:
    """What an operator is called in a breakdown, where no kernel of its own runs it."""
    if o.kind != "contract":
        return "pointwise"
    return "conv" if is_convolution(o) else "matmul"


def form(ops: list[Op], kind: str, *, fused: bool) -> str:
    """The class of the time model: as in a breakdown, but finer. fused: around a product (plan/fused.py)."""
    first = ops[0]
    if kind in ("conv", "attention"):
        if first.tag == CHANNELS_FIRST:
            return "conv_depthwise_weights"
        own = _convolution(first) if kind == "conv" else kind
        return own + BACKWARD * (first.phase == "backward")
    if kind == "matmul":
        of = "grouped" if experts(first) else "matmul"
        return f"weight_only_{of}" if any(map(_few_bits, ops)) else of
    if fused:
        return "matmul"  # which is as fast as alone
    if _updates(ops):
        return "state"
    if kind != "pointwise":
        return "pointwise"
    if first.phase == "optimizer":
        return "optimizer"
    rule = first.rule
    if rule.looks_up:
        return "gather"
    reduces = rule.reduces or rule.walks in ("in", "first") or rule.passes
    return "reduction" if reduces else "pointwise"


def _updates(ops: list[Op]) -> bool:
    """Whether a fused kernel reads a recurrent state and replaces it."""
    cached = {t.name for o in ops for t in o.outs if t.role == CACHE}
    return any(o.kind == "copy_" and o.ins[0].name in cached for o in ops)


def _convolution(o: Op) -> str:
    """The class of a convolution: by its groups."""
    return "conv_depthwise" if depthwise(o) else "conv_apart" if apart(o) else "conv"


def depthwise(o: Op) -> bool:
    """Whether a convolution's groups have one channel each, so that they are no products of matrices."""
    g = gemm(o)
    return g is not None and _grouped(g) and 1 in _numbers(g.m, g.n)


def apart(o: Op) -> bool:
    """Whether each group of a convolution is a product of its own: of several channels, but not of as few as
    libraries' kernels take together.
    """
    g = gemm(o)
    if g is None or not _grouped(g):
        return False
    width = min(_numbers(g.m, g.n, g.k), default=1)
    return width > 1 and width not in TOGETHER


def _grouped(g: Gemm) -> bool:
    return is_number(g.batch) and bool(g.batch > 1)


def _numbers(*sizes: Size) -> list[Size]:
    """Those that are no arrays and no symbols: a convolution's channels and taps, whatever its pictures."""
    return [x for x in sizes if is_number(x)]


def spared(o: Op) -> float:
    """The fraction of a convolution's products that Winograd's algorithm spares in float32 (16 do for 36),
    of dense 3 x 3 taps that move one by one. Source: lavin-gray-2016.
    """
    g = gemm(o) if o.kind == "contract" and is_convolution(o) else None
    if g is None or not is_number(g.batch) or g.batch > 1:
        return 0.0
    axes = [axis for t in (*o.ins, o.out) for axis in t.dims if len(window(axis)) > 1]
    sides = [[o.sizes[d] for d in (axis, *window(axis))] for axis in axes]
    close = (is_number(s[2]) and s[2] == 3 and all_of(s[0] - s[1] < 3) for s in sides if len(s) == 3)
    return 1 - 16 / 36 if len(sides) == 2 and all(close) else 0.0


def computed(o: Op) -> Size:
    """The fraction of all pairs of s queries, the last of t, and t keys that a kernel computes. Derived.

    Causal: t - s + 1, ..., t keys. With a window of w keys to each side: w t - w^2 / 2 pairs on a side.
    Devices that share queries have pieces from both ends, and so the mean. Source: llama-3-parallelism.
    """
    if not o.kernel:
        return 1
    fraction: Size = 1
    if o.causal:
        fraction = 1 - (o.sizes[SEQ] * o.parts - 1) / (2 * o.sizes[KEY_SEQ])
    if is_zero(o.window):
        return fraction
    part = minimum(o.window, o.sizes[KEY_SEQ]) / o.sizes[KEY_SEQ]
    return fraction * part * (2 - part)


def _few_bits(o: Op) -> bool:
    """Whether it reads weights of few bits, which are widened before they are multiplied."""
    return any(t.role in WEIGHTS and t.dtype not in NARROW and BYTES.get(t.dtype, 2) < 2 for t in o.ins)
