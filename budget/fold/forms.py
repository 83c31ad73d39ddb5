"""Forms: for each kernel, the class of the time model whose numbers in a profile it takes."""

from __future__ import annotations

from ..device.kernel_class import BACKWARD
from ..dtype import BYTES
from ..ir import CACHE, CHANNELS_FIRST, KEY_SEQ, SEQ, WEIGHTS, Gemm, Op, gemm, is_convolution, picked, window
from ..size import Size, all_of, is_number, is_zero, minimum

NARROW = {"float8": "fp8", "float4": "fp4", "nvfp4": "nvfp4"}  # dtypes of products in few bits
WHOLE = {"w8a8": "int8"}  # the same in integers, whose weights are read as fast as other weights in few bits
PRODUCTS = ("matmul", "conv", "attention")
# Channels of a group for which libraries' kernels take several groups at once. Inferred: ResNeXts' grouped
# convolutions cost what they move, RegNets' (24 to 232 channels) as much as separate products. Source: timm.
TOGETHER = (4, 8, 16, 32)


def experts(o: Op) -> str:
    """The dimension of a weight that counts experts, of which each row picks some; "" where there is none."""
    return next((axis for t in o.ins if (axis := picked(t))), "")


def kind_of(o: Op) -> str:
    """An operator's class in a breakdown, unless a fused kernel runs it."""
    if o.kind != "contract":
        return "pointwise"
    return "conv" if is_convolution(o) else "matmul"


def form(ops: list[Op], kind: str, *, fused: bool) -> str:
    """The class of the time model: finer than in a breakdown. fused: the kernel contains a product."""
    first = ops[0]
    if kind in ("conv", "attention"):
        if first.tag == CHANNELS_FIRST:
            return "conv_depthwise_weights"
        of_conv = _convolution(first) if kind == "conv" else kind
        return of_conv + BACKWARD * (first.phase == "backward")
    if kind == "matmul":
        kernel = "grouped" if experts(first) else "matmul"
        return f"weight_only_{kernel}" if any(map(_few_bits, ops)) else kernel
    if fused:
        return "matmul"  # as fast as the product alone
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
    """Whether a convolution's groups have one channel each, so that they are no matrix products."""
    g = gemm(o)
    return g is not None and _grouped(g) and 1 in _numbers(g.m, g.n)


def apart(o: Op) -> bool:
    """Whether each group of a convolution runs as a product of its own: it has several channels, but not as
    few as those of TOGETHER.
    """
    g = gemm(o)
    if g is None or not _grouped(g):
        return False
    width = min(_numbers(g.m, g.n, g.k), default=1)
    return width > 1 and width not in TOGETHER


def _grouped(g: Gemm) -> bool:
    return is_number(g.batch) and bool(g.batch > 1)


def _numbers(*sizes: Size) -> list[Size]:
    """The sizes that are plain numbers: a convolution's channels and taps, whatever its batch."""
    return [x for x in sizes if is_number(x)]


def spared(o: Op) -> float:
    """The fraction of a convolution's multiplications that Winograd's algorithm spares in float32: it needs
    16 instead of 36, for dense 3 x 3 taps with stride 1. Source: lavin-gray-2016.
    """
    g = gemm(o) if o.kind == "contract" and is_convolution(o) else None
    if g is None or not is_number(g.batch) or g.batch > 1:
        return 0.0
    axes = [axis for t in (*o.ins, o.out) for axis in t.dims if len(window(axis)) > 1]
    sides = [[o.sizes[d] for d in (axis, *window(axis))] for axis in axes]
    close = (is_number(s[2]) and s[2] == 3 and all_of(s[0] - s[1] < 3) for s in sides if len(s) == 3)
    return 1 - 16 / 36 if len(sides) == 2 and all(close) else 0.0


def computed(o: Op) -> Size:
    """The fraction of all query-key pairs that an attention kernel computes, of the last s of t positions as
    queries and t keys. Derived.

    Causal: the queries see t - s + 1, ..., t keys. A window of w keys to each side: w t - w^2 / 2 pairs on a
    side. Devices that divide the queries each take pieces from both ends, and so the mean. Source:
    llama-3-parallelism.
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
    """Whether it reads weights in few bits that are widened before they are multiplied."""
    return any(t.role in WEIGHTS and t.dtype not in NARROW and BYTES.get(t.dtype, 2) < 2 for t in o.ins)
