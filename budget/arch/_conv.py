"""What convolutional networks share: convolutions, norms, pooling, and the shapes that they produce.

A piece is a generator: it yields its operators and returns the resulting features, so that a network
reads `x = yield from conv("stem", x, 64, 7, stride=2)`. Kernels, strides and paddings
are one number for all axes, or one for each.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable

from ..config import Workload
from ..errors import InputError
from ..ir import HEAD, LOSS, Node, block, op
from ..named import NamedTuple
from ..size import Size, any_of, ceil_div, floor_div, is_number, is_zero, maximum, minimum, or_else
from ._loss import cross_entropy

AXES, WINDOW = ("z", "y", "x"), ("l", "i", "j")
Each = int | tuple[int, ...]


class Features(NamedTuple):
    """A tensor of channels on a grid: its name, its channels, its extent along (z,) y, x."""

    name: str
    c: Size
    extents: tuple[Size, ...]

    @property
    def axes(self) -> tuple[str, ...]:
        return AXES[3 - len(self.extents) :]

    @property
    def dims(self) -> str:
        return " ".join(("b", "c", *self.axes))

    @property
    def sizes(self) -> dict[str, Size]:
        return {"c": self.c, **dict(zip(self.axes, self.extents, strict=True))}


Piece = Generator[Node, None, Features]


def image(w: Workload, channels: Size, side: Size, axes: int = 2) -> Features:
    """The network's input: square images, or cubes; the workload's size if it has one."""
    return Features("!image", channels, (or_else(w.image, side),) * axes)


def conv(
    name: str,
    x: Features,
    f: Size,
    kernel: Each,
    stride: Each = 1,
    padding: Each | None = None,
    *,
    groups: Size = 1,
    bias: bool = False,
    to: str = "",
    tag: str = "",
    weight: str = "",
) -> Piece:
    """A convolution to f channels; its padding is half the kernel where none is given.

    weight: the weight's name, where two convolutions share it.
    """
    n = len(x.extents)
    window = dict(zip(WINDOW[-n:], each(kernel, n), strict=True))
    out = slide(name, x, kernel, stride, each(kernel, n, half=True) if padding is None else padding)
    y = Features(to or name, f, out)
    slid = _slid(x, x.extents)
    grouped = not (is_number(groups) and groups == 1)
    g = "g " if grouped else ""
    shape, grid, taps = f"b {g}c {' '.join(slid)}", f"b {g}f {' '.join(x.axes)}", " ".join(window)
    if grouped:
        window["g"] = groups
    kernels = f"*{weight}: {g}f c {taps}" if weight else f"*{g}f c {taps}"
    yield op(
        name,
        f"{x.name}: {shape}, {kernels}{f', +*{g}f' if bias else ''} -> {y.name}: {grid}",
        tag=tag,
        **{**y.sizes, **slid, **window, "c": floor_div(x.c, groups), "f": floor_div(f, groups)},
    )
    return y


def conv_transposed(name: str, x: Features, f: Size, kernel: int, *, bias: bool = True) -> Piece:
    """A transposed convolution whose stride is its kernel: every extent grows by that factor."""
    window = dict.fromkeys(WINDOW[-len(x.extents) :], kernel)
    y = Features(name, f, tuple(kernel * extent for extent in x.extents))
    slid = _slid(x, y.extents)
    yield op(
        name,
        f"{x.name}: {x.dims}, *c f {' '.join(window)}{', +*f' if bias else ''} -> b f {' '.join(slid)}",
        **{**x.sizes, **slid, **window, "f": f},
    )
    return y


def conv_norm(
    name: str,
    x: Features,
    f: Size,
    kernel: Each,
    stride: Each = 1,
    padding: Each | None = None,
    *,
    groups: Size = 1,
    act: str = "",
    same: bool = False,
    to: str = "",
) -> Piece:
    """A convolution without bias, batch norm, and an activation where one is named.

    same: a separate operator pads first, as TensorFlow's "SAME" does, even where there is nothing to add.
    """
    if same:
        n = len(x.extents)
        windows = zip(x.extents, each(kernel, n), each(stride, n), strict=True)
        around = tuple(extent + _spare(extent, *window) for extent, *window in windows)
        x, padding = (yield from resize("pad", f"{name}.pad", x, around)), 0
    y = yield from conv(f"{name}.conv", x, f, kernel, stride, padding, groups=groups)
    y = yield from batch_norm(f"{name}.norm", y, to="" if act else to)
    return (yield from each_element(f"{name}.act", y, act, to=to)) if act else y


def batch_norm(name: str, x: Features, to: str = "") -> Piece:
    """Batch norm: two weights per channel; its running statistics are not parameters."""
    return (yield from each_element(name, x, "batch_norm", ", *c, +*c", to=to))


def each_element(name: str, x: Features, kind: str, more: str = "", *, to: str = "") -> Piece:
    """An operator that keeps the shape: an activation, a norm; `more` are further operands."""
    y = x._replace(name=to or name)
    yield op(name, f"{x.name}: {x.dims}{more} -> {y.name}: {y.dims}", kind, **x.sizes)
    return y


def add(name: str, x: Features, other: Features, kind: str = "add_", *, to: str = "") -> Piece:
    """A residual connection: `add_` in place, into x; `add` into a new tensor."""
    return (yield from each_element(name, x, kind, f", {other.name}: {other.dims}", to=to))


def resize(kind: str, name: str, x: Features, extents: tuple[Size, ...]) -> Piece:
    """Change the spatial size: `pad` with zeros into a new tensor, or `slice`, a view of the centre."""
    before = {f"{axis}0": extent for axis, extent in zip(x.axes, x.extents, strict=True)}
    y = Features(name, x.c, extents)
    yield op(name, f"{x.name}: b c {' '.join(before)} -> {y.dims}", kind, **y.sizes, **before)
    return y


def concat(name: str, parts: Iterable[Features], to: str = "") -> Piece:
    """Concatenate features along the channels; the result is a copy."""
    parts = tuple(parts)
    first = parts[0]
    spatial = " ".join(first.axes)
    channels = {f"c{i}": part.c for i, part in enumerate(parts)}
    y = first._replace(name=to or name, c=sum(channels.values()))
    operands = ", ".join(f"{p.name}: b {c} {spatial}" for p, c in zip(parts, channels, strict=True))
    yield op(name, f"{operands} -> {y.name}: {y.dims}", "cat", **y.sizes, **channels)
    return y


def pool(
    kind: str,
    name: str,
    x: Features,
    kernel: Each,
    stride: Each,
    padding: Each = 0,
    *,
    ceil: bool = False,
    to: str = "",
) -> Piece:
    """max_pool or avg_pool; `ceil`: a last window that extends past the edge counts, too."""
    return (yield from _pooled(kind, name, x, slide(name, x, kernel, stride, padding, ceil), to))


def adaptive_pool(name: str, x: Features, side: int) -> Piece:
    """Average pooling to `side` outputs along each axis."""
    return (yield from _pooled("avg_pool", name, x, (side,) * len(x.extents), ""))


def _pooled(kind: str, name: str, x: Features, out: tuple[Size, ...], to: str) -> Piece:
    y = Features(to or name, x.c, out)
    slid = _slid(x, x.extents)
    yield op(name, f"{x.name}: b c {' '.join(slid)} -> {y.name}: {y.dims}", kind, **{**y.sizes, **slid})
    return y


def mean(name: str, x: Features) -> Piece:
    """The average over the whole grid."""
    y = Features(name, x.c, ())
    yield op(name, f"{x.name}: {x.dims} -> {y.dims}", "mean", **x.sizes)
    return y


def classifier(x: Features, classes: Size, w: Workload, branch: str = "") -> Generator[Node, None, None]:
    """Global average pooling if there is a grid, a linear layer to the classes, and the loss in training.

    Without classes there is only the average.
    branch: prefix of the names of an auxiliary head.
    """
    head = branch or "head."
    if x.extents:
        x = yield from mean(f"{head}pool", x)
    if is_zero(classes):
        return
    spec = f"{x.name}: b c, *f c, +*f -> {branch}logits: b f"
    yield op(f"{head}classifier", spec, tag=HEAD, c=x.c, f=classes)
    if w.mode == "train":
        yield from cross_entropy(f"{branch}logits", name=f"{branch}loss", tag="" if branch else LOSS)


def scope(name: str, piece: Piece, count: int = 1) -> Piece:
    """A piece repeated `count` times, with `name` as the prefix of its operators."""
    body: list[Node] = []
    try:
        while True:
            body.append(next(piece))
    except StopIteration as end:
        x: Features = end.value
    yield block(name, body, count)
    return x


def slide(
    name: str, x: Features, kernel: Each, stride: Each, padding: Each, ceil: bool = False
) -> tuple[Size, ...]:
    """Output sizes of a sliding window. Raises InputError if it does not fit into the image."""
    n = len(x.extents)
    windows = zip(x.extents, each(kernel, n), each(stride, n), each(padding, n), strict=True)
    out = tuple(_slide(*window, ceil=ceil) for window in windows)
    if any(any_of(extent < 1) for extent in out):
        raise InputError("image", f"too small: nothing is left of it at {name}; allowed: larger images")
    return out


def _slid(x: Features, extents: tuple[Size, ...]) -> dict[str, Size]:
    """The axes that a window slides over, `y+i`, with their extents."""
    windows = WINDOW[-len(extents) :]
    return {f"{y}+{i}": extent for y, i, extent in zip(x.axes, windows, extents, strict=True)}


def _slide(extent: Size, kernel: int, stride: int, padding: int, ceil: bool) -> Size:
    room = extent + 2 * padding - kernel
    if stride == 1:
        return room + 1
    if not ceil:
        return floor_div(room, stride) + 1
    # The last window must begin inside the image or in the padding before it, as in torch.
    return minimum(ceil_div(room, stride) + 1, ceil_div(extent + padding, stride))


def each(value: Each, n: int, half: bool = False) -> tuple[int, ...]:
    """One number for each of n axes; half of it, rounded down, where asked."""
    values = value if isinstance(value, tuple) else (value,) * n
    return tuple(v // 2 for v in values) if half else values


def _spare(extent: Size, kernel: int, stride: int) -> Size:
    """How much an extent must grow for the strides to cover all of it."""
    return maximum((ceil_div(extent, stride) - 1) * stride + kernel - extent, 0)
