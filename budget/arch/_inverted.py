"""Inverted residual blocks: wide inside, narrow outside (MobileNet, MNASNet, EfficientNet)."""

from __future__ import annotations

from ..config import Settings
from ..errors import wrong
from ..ir import op
from ..named import NamedTuple
from ..size import Size
from ._conv import Features, Piece, add, conv_norm, each_element, mean, resize


def stage(values: tuple[int, ...], i: int) -> int:
    """A field's value for a stage: the field has one value for each stage, or one for all."""
    return values[i % len(values)]


def check(c: Settings, *fields: str) -> None:
    """Raise an InputError for fields of stages with neither one value nor as many as channels, and for even
    kernels.
    """
    values = vars(c)
    n = len(values["channels"])
    for field in fields:
        if len(values[field]) not in (1, n):
            raise wrong(field, values[field], f"one value, or {n} as in channels")
    if any(k % 2 == 0 for k in values["kernels"]):
        raise wrong("kernels", values["kernels"], "odd numbers")


class Squeeze(NamedTuple):
    """The hidden units of squeeze and excite, and its activations."""

    width: Size
    act: str = "relu"
    gate: str = "sigmoid"


def squeeze_excite(x: Features, squeeze: Squeeze) -> Piece:
    """Squeeze and excite: a small network turns the channels' averages into a scale for each channel."""
    s = yield from mean("squeeze.pool", x)
    yield op("squeeze.down", f"{s.name}: b c, *f c, +*f -> s: b f", c=x.c, f=squeeze.width)
    yield op("squeeze.act", "s: -> s:", squeeze.act)
    yield op("squeeze.up", "s: b c, *f c, +*f -> s: b f", c=squeeze.width, f=x.c)
    yield op("squeeze.gate", "s: -> s:", squeeze.gate)
    return (yield from each_element("squeeze.scale", x, "mul", ", s: b c"))


def inverted_residual(
    x: Features,
    f: Size,
    expanded: Size,
    kernel: int,
    stride: int,
    *,
    act: str,
    squeeze: Squeeze | None,
    add_kind: str = "add",
    pad: int = 0,
    same: bool = False,
    expands: bool = False,
) -> Piece:
    """Expand, depthwise convolution, squeeze and excite, project; add the input where the shapes agree.

    pad: zeros along each axis, added by an operator of its own instead of the convolution's padding; same:
    such an operator before each convolution. expands: there is an expanding convolution even where it does
    not widen.
    """
    y = x
    if expands or expanded != x.c:
        y = yield from conv_norm("expand", y, expanded, 1, act=act, same=same)
    if pad:
        y = yield from resize("pad", "pad", y, tuple(extent + pad for extent in y.extents))
    padding = 0 if pad else None
    y = yield from conv_norm(
        "depthwise", y, expanded, kernel, stride, padding, groups=expanded, act=act, same=same
    )
    if squeeze is not None:
        y = yield from squeeze_excite(y, squeeze)
    return (yield from project(x, y, f, stride, add_kind, same))


def fused_residual(
    x: Features, f: Size, expanded: Size, kernel: int, stride: int, *, act: str, add_kind: str = "add_"
) -> Piece:
    """An inverted residual with one full convolution in place of the expansion and the depthwise one."""
    if expanded != x.c:
        y = yield from conv_norm("expand", x, expanded, kernel, stride, act=act)
        return (yield from project(x, y, f, stride, add_kind))
    y = yield from conv_norm("conv", x, f, kernel, stride, act=act, to="" if residual(x, f, stride) else "x")
    return (yield from add("add", y, x, add_kind, to="x")) if residual(x, f, stride) else y


def project(x: Features, y: Features, f: Size, stride: int, add_kind: str, same: bool = False) -> Piece:
    """A 1 x 1 convolution to f channels, and the residual where the shapes agree."""
    if not residual(x, f, stride):
        return (yield from conv_norm("project", y, f, 1, same=same, to="x"))
    y = yield from conv_norm("project", y, f, 1, same=same)
    return (yield from add("add", y, x, add_kind, to="x"))


def residual(x: Features, f: Size, stride: int) -> bool:
    """Whether a block's output can be added to its input."""
    return stride == 1 and bool(x.c == f)
