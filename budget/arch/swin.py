"""Swin: a vision transformer whose attention stays within windows, shifted in every second block.

Swin-v2 is a setting of it: norms behind attention and MLP, cosine attention, positions from an MLP.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..config import Settings, Workload, as_many, at_most, divides, setting
from ..ir import HEAD, Model, Node, Op, block, model, op
from ..size import Size, ceil_div, floor_div, is_zero, minimum, or_else
from ._attention import Attention, attention
from ._layers import mlp, norm, sized
from ._loss import cross_entropy
from ._windows import relative_bias, window_sizes


class Config(Settings):
    """Swin-T."""

    depths: tuple[int, ...] = setting((2, 2, 6, 2), "blocks in each stage")
    heads: tuple[int, ...] = setting((3, 6, 12, 24), "attention heads in each stage")
    d_model: int = setting(96, "width of the first stage; each further one is twice as wide")
    window: int = setting(7, "side of a window, in patches")
    patch: int = setting(4, "side of a patch, in pixels")
    mlp_ratio: float = setting(4.0, "hidden width of the MLPs, as a multiple of the stage's", least=0.01)
    qkv_bias: bool = setting(True, "projections to queries, keys and values have a bias")
    key_bias: bool = setting(
        True, "and that to keys too (Swin-v2's is always zero; only torchvision stores it)"
    )
    post_norm: bool = setting(False, "norms come behind attention, MLPs and mergers, not before them")
    cosine: bool = setting(False, "attention compares directions only, by a learned scale for each head")
    position_mlp: int = setting(
        0, "hidden width of an MLP that makes the positions' biases; 0: they are a table", least=0
    )
    shrink: bool = setting(False, "a window is no larger than its stage's grid, which else is padded")
    positions: bool = setting(False, "a learned position is added to each patch")
    activation: str = setting("gelu", "of the MLPs", choices=("gelu", "gelu_tanh", "relu", "silu"))
    spare_positions: int = setting(
        0, "rows of its table that no patch uses (transformers' Swin-v2: 1)", least=0
    )
    floored: bool = setting(False, "windows shrink, and positions are, by whole patches only (transformers)")
    classes: int = setting(1000, "outputs; 0: no head", least=0)
    in_channels: int = setting(3, "channels of the image")
    image: int = setting(224, "side of the image")

    def __post_init__(self) -> None:
        at_most("patch", self.patch, "image", self.image)
        as_many("heads", self.heads, "depths", self.depths)
        for i, heads in enumerate(self.heads):
            divides("heads", heads, "d_model", self.d_model * 2**i)


def build(c: Config, w: Workload) -> Model:
    """Images to logits [b, classes], with a cross-entropy loss in training."""
    return model("swin", c, w, _nodes(c, w), {"b": w.batch}, samples=w.batch)


def _nodes(c: Config, w: Workload) -> Iterator[Node]:
    pixels = or_else(w.image, c.image)
    side, whole = ceil_div(pixels, c.patch), floor_div(c.image, c.patch) if c.floored else None
    d: Size = c.d_model
    grid = floor_div(c.image, c.patch) if c.floored else side
    rows = grid * grid + c.spare_positions
    yield from sized(_embedding(c), d=d, p=side * side, q=rows, **_patches(c, side))
    for i, (depth, heads) in enumerate(zip(c.depths, c.heads, strict=True)):
        if i:
            half = ceil_div(side, 2)
            yield from sized(_merge(c, f"merge{i}"), y=side, x=side, d=d, f=2 * d, c=4 * d, s=half * half)
            side, d = half, 2 * d
            whole = floor_div(whole, 2) if c.floored else None
        sizes = _sizes(c, w, side, d, heads, side if whole is None else whole)
        pair = (*_layer(c, "plain", sizes), *_layer(c, "shifted", sizes))
        if depth > 1:
            yield block(f"stage{i}", pair, depth // 2)
        if depth % 2:
            yield block(f"stage{i}.last", _layer(c, "plain", sizes))
    yield from sized(_head(c, w), s=side * side, d=d, v=c.classes)


def _patches(c: Config, side: Size) -> dict[str, Size]:
    pixels = side * c.patch
    window = {"y+i": pixels, "x+j": pixels, "i": c.patch, "j": c.patch}
    return {"c": c.in_channels, "y": side, "x": side, **window}


def _sizes(c: Config, w: Workload, side: Size, d: Size, heads: Size, most: Size) -> dict[str, Size]:
    """Sizes of a stage's blocks: m tokens of its grid, and over all images n windows of s tokens."""
    window = minimum(c.window, most) if c.shrink else c.window
    across = ceil_div(side, window)
    padded = across * window
    grid = {"m": side * side, "z": padded * padded, "n": w.batch * across * across}
    return {**grid, **window_sizes(window, d, heads), "f": int(c.mlp_ratio * d)}


def _embedding(c: Config) -> Iterator[Op]:
    yield op("embed.patches", "!image: b c y+i x+j, *d c i j, +*d -> x: b d y x")
    yield op("embed.flatten", "x: b d y x -> x: b p d", "view")
    yield norm("embed.norm", "layer_norm", "x", "x")
    if c.positions:
        yield op("embed.positions", "x:, *q d -> x:", "add")


def _layer(c: Config, name: str, sizes: dict[str, Size]) -> Iterator[Node]:
    """Cut the padded grid into windows, attend within each, join them again; then an MLP for each token."""
    outside = {k: sizes[k] for k in ("m", "z", "d", "f")}
    inside = {**sizes, "b": sizes["n"]}
    grid = {"s": sizes["m"], **outside}
    read = "x" if c.post_norm else "n"
    shift = ("shift",) if name == "shifted" else ()
    # transformers runs Swin-v2's softmax in the model's own dtype, Swin's in float32.
    a = Attention(c.qkv_bias, c.key_bias, cosine=c.cosine, position=_bias(name), upcast=not c.cosine)
    if not c.post_norm:
        yield op(f"{name}.norm1", "x: b m d, *d, +*d -> n: b m d", "layer_norm", **outside)
    yield op(f"{name}.pad", f"{read}: b m d -> n: b z d", "copy", **outside)
    for step in (*shift, "windows"):
        yield op(f"{name}.{step}", "n: b z d -> n: b z d", "copy", **outside)
    yield from sized(_positions(c, name), **inside)
    yield from sized(attention(f"{name}.attention", a, "train"), **inside)
    for step in ("windows", *shift):
        yield op(f"{name}.un{step}", "a: b z d -> a: b z d", "copy", **outside)
    yield op(f"{name}.crop", "a: b z d -> a: b m d", "slice", **outside)
    if c.post_norm:
        yield from sized([norm(f"{name}.norm1", "layer_norm", "a", "a")], **grid)
    yield op(f"{name}.add1", "x: b m d, a: b m d -> x: b m d", "add", **outside)
    if not c.post_norm:
        yield from sized([norm(f"{name}.norm2", "layer_norm")], **grid)
    yield from sized(mlp(f"{name}.mlp", c.activation, x=read), **grid)
    if c.post_norm:
        yield from sized([norm(f"{name}.norm2", "layer_norm", "m", "m")], **grid)
    yield op(f"{name}.add2", "x: b m d, m: b m d -> x: b m d", "add", **outside)


def _bias(name: str) -> str:
    return "relative: b h r s t" if name == "shifted" else "relative: h r s t"


def _positions(c: Config, name: str) -> Iterator[Op]:
    """A learned bias for each distance and head; in shifted windows, masked for each window."""
    table, f = "*", c.position_mlp
    if f:
        table = "biases:"
        yield op(f"{name}.position.up", "!distances: p c, *c f, +*f -> distant: p f", c=2, f=f)
        yield op(f"{name}.position.relu", "distant: -> distant:", "relu_", f=f)
        yield op(f"{name}.position.down", "distant: p f, *f h -> biases: p h", f=f)
    yield from relative_bias(name, table)
    if f:
        yield op(f"{name}.bound", "relative: -> relative:", "sigmoid")
        yield op(f"{name}.widen", "relative: -> relative:", "scale")
    if name == "shifted":
        yield op(f"{name}.mask", "relative: h r s t -> relative: b h r s t", "add")


def _merge(c: Config, name: str) -> Iterator[Op]:
    """Four neighbours become one token, twice as wide."""
    yield op(f"{name}.cat", "x: b y x d -> x: b s c", "copy")
    if not c.post_norm:
        yield norm(f"{name}.norm", "layer_norm", "x", "x", dim="c")
    yield op(f"{name}.reduce", "x: b s c, *f c -> x: b s f")
    if c.post_norm:
        yield norm(f"{name}.norm", "layer_norm", "x", "x", dim="f")


def _head(c: Config, w: Workload) -> Iterator[Op]:
    yield norm("head.norm", "layer_norm", "x", "x")
    yield op("head.pool", "x: b s d -> x: b d", "mean")
    if is_zero(c.classes):
        return
    yield op("head.classifier", "x: b d, *v d, +*v -> logits: b v", tag=HEAD)
    if w.mode == "train":
        yield from cross_entropy("logits")
