"""The classes of the time model: which numbers of a profile a kernel's time is made of."""

from __future__ import annotations

from ..dtype import BYTES
from ..ir import WEIGHTS, Op, gemm, is_convolution, picked
from ..size import is_number

NARROW = {"float8": "fp8", "float4": "fp4", "nvfp4": "nvfp4"}
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
        own = "conv_apart" if kind == "conv" and apart(first) else kind
        return f"{own}_backward" if first.phase == "backward" else own
    if kind == "matmul":
        of = "grouped" if experts(first) else "matmul"
        return f"weight_only_{of}" if any(map(_few_bits, ops)) else of
    if fused:
        return "matmul"  # which is as fast as alone
    if kind != "pointwise":
        return "pointwise"
    if first.phase == "optimizer":
        return "optimizer"
    rule = first.rule
    if rule.looks_up:
        return "gather"
    reduces = rule.reduces or rule.walks in ("in", "first") or rule.passes
    return "reduction" if reduces else "pointwise"


def apart(o: Op) -> bool:
    """Whether each group of a convolution is a product of its own: of several channels, but not of as few as
    libraries' kernels take together.
    """
    g = gemm(o)
    if g is None or not all(map(is_number, g)):
        return False
    width = min(g.m, g.n, g.k)
    return bool(g.batch > 1 and width > 1 and width not in TOGETHER)


def _few_bits(o: Op) -> bool:
    """Whether it reads weights of few bits, which are widened before they are multiplied."""
    return any(t.role in WEIGHTS and t.dtype not in NARROW and BYTES.get(t.dtype, 2) < 2 for t in o.ins)
