"""YOLOv8 and YOLO11: features of three sizes, mixed down and up, and boxes and classes of each cell.

Ultralytics folds the batch norms into the convolutions before it predicts (`fuse batch_norm`).
Source: yolov8, yolo11, ultralytics-fuse. The tensors' order in the blocks is recalled from the published
models.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from math import ceil

from ..config import Settings, Workload, setting
from ..errors import wrong
from ..ir import HEAD, LOSS, Model, Node, Op, model, op
from ..size import Size, any_of
from ._conv import Features, Piece, add, concat, conv, conv_norm, image, pool

STRIDE = 32  # from the image to the smallest features
HEAD_WIDTH = 64  # an attention head's. Source: yolo11
SIDES = 4  # of a box


class Config(Settings):
    """YOLOv8n for COCO's classes: boxes and scores of all cells, before the choice among them."""

    version: int = setting(8, "8 or 11, which has smaller blocks, and attention on the smallest features")
    depth: float = setting(1 / 3, "multiplies the blocks' repeats, which are then rounded", least=0.01)
    width: float = setting(0.25, "multiplies all channels, rounded up to multiples of 8", least=0.01)
    most: int = setting(1024, "most channels, before `width`")
    nested: bool = setting(False, "version 11: blocks within the blocks of all sizes, not the smallest alone")
    bins: int = setting(16, "of the distance from a cell to each side of its box")
    classes: int = setting(80, "classes of what is found")
    in_channels: int = setting(3, "channels of the image")
    image: int = setting(640, "side of the image, a multiple of 32")

    def __post_init__(self) -> None:
        if self.version not in (8, 11):
            raise wrong("version", self.version, "8, 11")

    def channels(self, f: int) -> int:
        """This network's channels, from the largest one's."""
        return ceil(min(f, self.most) * self.width / 8) * 8

    def repeats(self, n: int) -> int:
        """This network's repeats, from the largest one's."""
        return max(round(n * self.depth), 1)


def build(c: Config, w: Workload) -> Model:
    """Images to boxes and scores of each cell, [b, 4 + classes, cells]; in training the losses of both."""
    train = w.mode == "train"
    outputs = ("loss", "loss.box") if train else ()
    left_out = ("the choice of the cells that answer for each labelled box",) if train else ()
    return model(
        "yolo", c, w, _nodes(c, w), {"b": w.batch}, samples=w.batch, outputs=outputs, uncounted=left_out
    )


def _nodes(c: Config, w: Workload) -> Generator[Node, None, None]:
    x = image(w, c.in_channels, c.image)
    if any_of(x.extents[0] % STRIDE != 0):
        raise wrong("image", x.extents[0], f"multiples of {STRIDE}")
    x = yield from _unit("stem", x, c.channels(64), 3, 2)
    large, middle, small = yield from _backbone(c, x)
    # Downwards to the larger features, and upwards again.
    middle = yield from _joined(c, "down1", (yield from _grown("down1", small, middle)), middle, 512)
    large = yield from _joined(c, "down2", (yield from _grown("down2", middle, large)), large, 256)
    x = yield from _unit("up1.half", large, large.c, 3, 2)
    middle = yield from _joined(c, "up1", x, middle, 512)
    x = yield from _unit("up2.half", middle, middle.c, 3, 2)
    small = yield from _joined(c, "up2", x, small, 1024, smallest=True)
    yield from _head(c, w, (large, middle, small))


def _unit(name: str, x: Features, f: Size, kernel: int, stride: int = 1, *, groups: Size = 1) -> Piece:
    """A convolution, batch norm and SiLU."""
    return (yield from conv_norm(name, x, f, kernel, stride, groups=groups, act="silu_"))


def _backbone(c: Config, x: Features) -> Generator[Node, None, list[Features]]:
    """Features an eighth, a sixteenth and a thirty-second of the image's side."""
    kept = []
    for i, (f, repeats) in enumerate(((128, 3), (256, 6), (512, 6), (1024, 3))):
        name = f"stage{i}"
        x = yield from _unit(f"{name}.half", x, c.channels(f), 3, 2)
        if c.version == 8:
            x = yield from _block8(c, name, x, f, repeats, shortcut=True)
        else:
            nested, slim = i > 1, i < 2
            x = yield from _block11(c, name, x, 2 * f if slim else f, nested=nested, part=4 if slim else 2)
        kept.append(x)
    x = yield from _pyramid("pyramid", x)
    if c.version == 11:
        x = yield from _attended(c, "attended", x)
    return [*kept[1:3], x]


def _joined(c: Config, name: str, x: Features, other: Features, f: int, *, smallest: bool = False) -> Piece:
    """Two features of one size, concatenated and mixed."""
    x = yield from concat(f"{name}.cat", (x, other))
    if c.version == 8:
        return (yield from _block8(c, name, x, f, 3, shortcut=False))
    return (yield from _block11(c, name, x, f, nested=smallest, part=2))


def _grown(name: str, x: Features, like: Features) -> Piece:
    """Each cell four times, as large as other features."""
    before = {f"{axis}0": extent for axis, extent in zip(x.axes, x.extents, strict=True)}
    y = x._replace(name=f"{name}.grown", extents=like.extents)
    yield op(y.name, f"{x.name}: b c {' '.join(before)} -> {y.name}: {y.dims}", "repeat", **y.sizes, **before)
    return y


Inner = Callable[[str, Features], Piece]


def _block8(c: Config, name: str, x: Features, f: int, repeats: int, *, shortcut: bool) -> Piece:
    """C2f: half of the channels go through `repeats` bottlenecks, whose outputs are all kept."""

    def inner(name: str, x: Features) -> Piece:
        return _bottleneck(name, x, x.c, shortcut=shortcut)

    return (yield from _split(name, x, c.channels(f), c.channels(f) // 2, c.repeats(repeats), inner))


def _block11(c: Config, name: str, x: Features, f: int, *, nested: bool, part: int) -> Piece:
    """C3k2: the same with narrow bottlenecks, or with two of them beside a convolution."""

    def inner(name: str, x: Features) -> Piece:
        if nested or c.nested:
            return _beside(name, x)
        return _bottleneck(name, x, x.c // 2, shortcut=True)

    return (yield from _split(name, x, c.channels(f), c.channels(f) // part, c.repeats(2), inner))


def _split(name: str, x: Features, f: int, half: int, repeats: int, inner: Inner) -> Piece:
    x = yield from _unit(f"{name}.in", x, 2 * half, 1)
    parts = yield from _halves(name, x)
    for i in range(repeats):
        parts.append((yield from inner(f"{name}.{i}", parts[-1])))
    x = yield from concat(f"{name}.parts", parts)
    return (yield from _unit(f"{name}.out", x, f, 1))


def _halves(name: str, x: Features) -> Generator[Node, None, list[Features]]:
    """Views of the first and of the last channels."""
    halves = [Features(f"{name}.{side}", x.c // 2, x.extents) for side in ("kept", "run")]
    outs = ", ".join(f"{half.name}: {half.dims.replace('c', 'f')}" for half in halves)
    line = f"{x.name}: {x.dims.replace('c', 'f|f')} -> {outs}"
    yield op(f"{name}.halves", line, "split", **{**x.sizes, "f": halves[0].c})
    return halves


def _bottleneck(name: str, x: Features, f: int, *, shortcut: bool) -> Piece:
    y = yield from _unit(f"{name}.conv0", x, f, 3)
    y = yield from _unit(f"{name}.conv1", y, x.c, 3)
    return (yield from add(f"{name}.add", x, y, "add")) if shortcut else y


def _beside(name: str, x: Features) -> Piece:
    """C3k: two bottlenecks of half the channels beside a convolution."""
    f = x.c // 2
    y = yield from _unit(f"{name}.in", x, f, 1)
    for i in range(2):
        y = yield from _bottleneck(f"{name}.{i}", y, f, shortcut=True)
    z = yield from _unit(f"{name}.beside", x, f, 1)
    y = yield from concat(f"{name}.cat", (y, z))
    return (yield from _unit(f"{name}.out", y, x.c, 1))


def _pyramid(name: str, x: Features) -> Piece:
    """SPPF: the maxima over larger and larger windows, next to their input."""
    parts = [(yield from _unit(f"{name}.in", x, x.c // 2, 1))]
    for i in range(3):
        parts.append((yield from pool("max_pool", f"{name}.pool{i}", parts[-1], 5, 1, 2)))
    y = yield from concat(f"{name}.cat", parts)
    return (yield from _unit(f"{name}.out", y, x.c, 1))


def _attended(c: Config, name: str, x: Features) -> Piece:
    """C2PSA: half of the channels go through attention and an MLP of single cells, `repeats` times."""
    f = x.c
    kept, x = yield from _halves(name, (yield from _unit(f"{name}.in", x, f, 1)))
    for i in range(c.repeats(2)):
        y = yield from _attention(f"{name}.{i}", x)
        x = yield from add(f"{name}.{i}.residual", x, y, "add")
        y = yield from _unit(f"{name}.{i}.up", x, 2 * x.c, 1)
        y = yield from conv_norm(f"{name}.{i}.down", y, x.c, 1)
        x = yield from add(f"{name}.{i}.residual2", x, y, "add")
    x = yield from concat(f"{name}.cat", (kept, x))
    return (yield from _unit(f"{name}.out", x, f, 1))


def _attention(name: str, x: Features) -> Piece:
    """Attention between all cells, with keys half as wide as values, and a convolution of the values."""
    heads = max(x.c // HEAD_WIDTH, 1)
    m = x.c // heads
    k = m // 2
    y, x_ = x.extents
    sizes: dict[str, Size] = {"h": heads, "m": m, "k": k, "s": y * x_, "t": y * x_}
    qkv = yield from conv_norm(f"{name}.qkv", x, x.c + 2 * k * heads, 1)
    v = x._replace(name=f"{name}.v")
    out = x._replace(name=f"{name}.mixed")
    yield op(f"{name}.heads", f"{qkv.name}: {qkv.dims} -> qkv: b h k|k|m s", "view", **qkv.sizes, **sizes)
    yield op(f"{name}.parts", "qkv: b h k|k|m s -> q: b h k s, k: b h k s, v: b h m s", "split", **sizes)
    yield op(f"{name}.scores", "q: b h k s, k: b h k t -> scores: b h s t", **sizes)
    yield op(f"{name}.scale", "scores: -> scores:", "scale")
    yield op(f"{name}.softmax", "scores: -> weights:", "softmax")
    yield op(f"{name}.mix", "v: b h m t, weights: b h s t -> y: b h m s", **sizes)
    yield op(f"{name}.grid", f"y: b h m s -> {out.name}: {out.dims}", "view", **sizes, **out.sizes)
    yield op(f"{name}.values", f"v: b h m s -> {v.name}: {v.dims}", "copy", **sizes, **v.sizes)
    near = yield from conv_norm(f"{name}.near", v, x.c, 3, groups=x.c)
    y_ = yield from add(f"{name}.both", out, near, "add")
    return (yield from conv_norm(f"{name}.project", y_, x.c, 1))


def _head(c: Config, w: Workload, levels: tuple[Features, ...]) -> Iterator[Node]:
    """Distances to the sides of a box and scores of the classes, for each cell of each size."""
    boxes, scores = [], []
    near = max(16, levels[0].c // 4, SIDES * c.bins)
    seen = max(levels[0].c, min(c.classes, 100))
    for i, x in enumerate(levels):
        y = yield from _unit(f"box{i}.0", x, near, 3)
        y = yield from _unit(f"box{i}.1", y, near, 3)
        boxes.append((yield from conv(f"box{i}.2", y, SIDES * c.bins, 1, bias=True)))
        y = x
        for j in range(2):
            if c.version == 8:
                y = yield from _unit(f"class{i}.{j}", y, seen, 3)
            else:
                y = yield from _unit(f"class{i}.{j}.depthwise", y, y.c, 3, groups=y.c)
                y = yield from _unit(f"class{i}.{j}", y, seen, 1)
        scores.append((yield from conv(f"class{i}.2", y, c.classes, 1, bias=True, tag=HEAD)))
    yield from _cells("boxes", "c", boxes)
    yield from _cells("scores", "v", scores)
    cells = sum(x.extents[0] * x.extents[1] for x in levels)
    sizes: dict[str, Size] = {"s": cells, "u": SIDES, "w": c.bins, "v": c.classes, "c": SIDES * c.bins}
    yield from (_loss if w.mode == "train" else _decoded)(sizes)


def _cells(name: str, letter: str, parts: list[Features]) -> Iterator[Op]:
    """Cells of all sizes in one row."""
    flat = [f"{name}{i}: b {letter} s{i}" for i in range(len(parts))]
    lengths = {f"s{i}": x.extents[0] * x.extents[1] for i, x in enumerate(parts)}
    for i, x in enumerate(parts):
        dims = x.dims.replace("c", letter)
        sizes = {letter: x.c, "y": x.extents[0], "x": x.extents[1], f"s{i}": lengths[f"s{i}"]}
        yield op(f"{name}.flat{i}", f"{x.name}: {dims} -> {flat[i]}", "view", **sizes)
    line = f"{', '.join(flat)} -> {name}: b {letter} s"
    yield op(name, line, "cat", **lengths, s=sum(lengths.values()), **{letter: parts[0].c})


def _decoded(sizes: dict[str, Size]) -> Iterator[Op]:
    """Boxes from the mean of each side's bins, beside the scores' probabilities."""
    yield op("decode.bins", "boxes: b c s -> bins: b u w s", "view", **sizes)
    yield op("decode.softmax", "bins: -> odds:", "softmax")
    yield op("decode.mean", "odds: b u w s, *w -> sides: b u s", **sizes)
    yield op("decode.corners", "sides: -> corners:", "pointwise")
    yield op("decode.scale", "corners: -> corners:", "scale")
    yield op("decode.sigmoid", "scores: -> probabilities:", "sigmoid")
    line = "corners: b u s, probabilities: b v s -> found: b o s"
    yield op("decode.found", line, "cat", **sizes, o=SIDES + sizes["v"])


def _loss(sizes: dict[str, Size]) -> Iterator[Op]:
    """The loss of the classes and boxes of all cells; the stored weights of bins are for inference alone."""
    yield op("decode.mean", "*w -> stored: w", "resident", **sizes)
    yield op("loss.scores", "scores: b v s -> chosen: b s v", "copy", LOSS, **sizes)
    yield op("loss.bins", "boxes: b c s -> bins: b s u w", "copy", LOSS, **sizes)
    yield op("loss.softmax", "bins: -> odds:", "softmax", LOSS)
    yield op("loss.mean", "odds: b s u w, !places: w -> sides: b s u", "contract", LOSS, **sizes)
    yield op("loss.box", "sides: -> loss.box: 1", "mse", LOSS)
    yield op("loss", "chosen: -> loss: 1", "binary_cross_entropy", LOSS)
