"""SAM's image encoder: a vision transformer within windows, each query's positions relative, and a neck.

Most layers attend within square windows, padded at the edges; a few attend to the whole image. Source:
transformers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..config import Settings, Workload, at_most, divides, setting
from ..errors import InputError, wrong
from ..ir import EMBED, OUTPUT, QKV, Model, Node, model, op
from ..size import Size, any_of, ceil_div, exact_div, floor_div, is_number, is_zero, or_else
from ._attention import Attention, mix
from ._conv import Features, Piece, conv, each_element
from ._layers import ACTIVATIONS, ATTENTION_DROPOUT, mlp, norm, sized
from ._periods import period, stack

if TYPE_CHECKING:
    from ..ir import Op

TAKES = ("batch", "image")
RELATIVE = "relative: b h r s t"


class Config(Settings):
    """The encoder of SAM's ViT-B."""

    layers: int = setting(12, "layers")
    d_model: int = setting(768, "width of the residual stream")
    heads: int = setting(12, "attention heads")
    d_ff: int = setting(3072, "hidden width of the MLPs")
    patch: int = setting(16, "side of a patch, in pixels")
    image: int = setting(1024, "side of the image, in pixels")
    channels: int = setting(3, "channels of the image")
    window: int = setting(
        14, "patches along a side of the windows that layers attend within; 0: all", least=0
    )
    full_layers: tuple[int, ...] = setting((2, 5, 8, 11), "layers that attend to everything", least=0)
    qkv_bias: bool = setting(True, "queries, keys and values have a bias")
    positions: bool = setting(True, "a learned position is added to each patch")
    relative: bool = setting(True, "scores depend on how far apart rows and columns are, too")
    neck: int = setting(256, "channels that the neck makes")
    activation: str = setting("gelu", "of the MLPs", choices=ACTIVATIONS)
    attention_dropout: float = ATTENTION_DROPOUT

    def __post_init__(self) -> None:
        divides("heads", self.heads, "d_model", self.d_model)
        at_most("patch", self.patch, "image", self.image)
        if not is_number(self.layers):
            raise InputError("layers", "allowed: one number, as layers differ")


def build(c: Config, w: Workload) -> Model:
    """Images [b, c, y, x] to features [b, neck, patches along y, along x]."""
    check_image(c, w)
    return model("sam", c, w, encode(c, w), shape(c, w.batch), samples=w.batch, outputs=("features",))


def check_image(c: Config, w: Workload) -> None:
    """Raises InputError for an image of another size than its positions are for."""
    if any_of(or_else(w.image, c.image) != c.image):
        raise wrong("image", w.image, f"as its positions, {c.image}")


def shape(c: Config, batch: Size) -> dict[str, Size]:
    """The dimensions' sizes."""
    across = patches(c)
    return {
        "b": batch, "c": c.channels, "y": across, "x": across, "y+i": c.image, "x+j": c.image, "i": c.patch,
        "j": c.patch, "s": across * across, "t": across * across, "d": c.d_model, "h": c.heads, "r": 1,
        "k": exact_div(c.d_model, c.heads), "f": c.d_ff,
    }  # fmt: skip


def patches(c: Config) -> Size:
    """Patches along a side of the image."""
    return floor_div(c.image, c.patch)


def encode(c: Config, w: Workload) -> Iterator[Node]:
    """From `image: b c y+i x+j` to `features: b c y x`."""
    yield from embedding(c, "image")
    yield from layers(c, w, 0, c.layers)
    yield from neck(c, "neck", "features")


def embedding(c: Config, image: str) -> Iterator[Node]:
    """From `{image}: b c y+i x+j` to `x: b s d`."""
    yield op("embed.patches", f"!{image}: b c y+i x+j, *d c i j, +*d -> x: b d y x", tag=EMBED)
    yield op("embed.flatten", "x: b d y x -> x: b s d", "view")
    if c.positions:
        yield op("embed.positions", "x: b s d, *s d -> x: b s d", "add")


def layers(c: Config, w: Workload, start: int, count: int) -> Iterator[Node]:
    """So many layers on `x: b s d`, from layer `start` on."""
    if not count:
        return
    kinds = tuple(0 if i in c.full_layers else c.window for i in range(start, start + count))
    yield from stack(f"layers{start}", period(kinds), count, lambda window: _layer(c, w, window))


def _layer(c: Config, w: Workload, window: Size) -> Iterator[Node]:
    """Attention within windows of one side, or everywhere (0), and an MLP."""
    across = patches(c)
    side = or_else(window, across)
    windows = ceil_div(across, side)
    padded = {"z": (windows * side) ** 2}
    inside: dict[str, Size] = {"b": w.batch * windows * windows, "s": side * side, "t": side * side}
    a = Attention(
        scale=False, causal=False, position=RELATIVE if c.relative else "",
        dropout=w.mode == "train" and c.attention_dropout > 0,
    )  # fmt: skip
    yield norm("attn.norm", "layer_norm")
    if not is_zero(window):
        yield op("attn.pad", "n: b s d -> n: b z d", "copy", **padded)
        yield op("attn.windows", "n: b z d -> n: b z d", "copy", **padded)
    yield from sized(_attention(c, a, side), **inside)
    if not is_zero(window):
        yield op("attn.unwindows", "a: b z d -> a: b z d", "copy", **padded)
        yield op("attn.crop", "a: b z d -> a: b s d", "copy", **padded)
    yield op("attn.residual", "x: b s d, a: b s d -> x: b s d", "add")
    yield norm("mlp.norm", "layer_norm")
    yield from mlp("mlp", c.activation)
    yield op("mlp.residual", "x:, m: -> x:", "add")


def _attention(c: Config, a: Attention, side: Size) -> Iterator[Node]:
    """From `n: b s d` to `a: b s d`, s the side x side tokens of a window."""
    bias = ", +*j h k" if c.qkv_bias else ""
    yield op("attn.qkv", f"n: b s d, *d j h k{bias} -> qkv: b s j h k", tag=QKV, j=3)
    yield op("attn.lay", "qkv: b s j h k -> qkv: b s j h k", "copy", j=3)
    yield op("attn.split", "qkv: b s j h k -> q: b s h r k, k: b s h k, v: b s h k", "view", j=3)
    if c.relative:
        yield from sized(_relative(), y=side, x=side, u=side, w=side, p=2 * side - 1)
    yield op("attn.q_scale", "q: -> q:", "scale")
    yield from mix("attn", a)
    yield op("attn.o", "y: b s h r k, *h r k d, +*d -> a: b s d", tag=OUTPUT)


def _relative() -> Iterator[Op]:
    """Each query with a vector for each distance along rows, and one along columns: to `relative`."""
    yield op("attn.grid", "q: b s h r k -> query: b y x h r k", "view")
    for name, line, key in (("rows", "y u", "u"), ("columns", "x w", "w")):
        yield op(f"attn.{name}.resize", "*p k -> table: p k", "interpolate")
        yield op(f"attn.{name}.pick", f"!{name}/int64: {line}, table: ~p k -> near: {line} k", "gather")
        yield op(f"attn.{name}", f"query: b y x h r k, near: {line} k -> {name}_bias: b y x h r {key}")
    yield op("attn.both", "rows_bias: b y x h r u, columns_bias: b y x h r w -> bias: b y x h r u w", "add")
    yield op("attn.relative", f"bias: b y x h r u w -> {RELATIVE}", "view")


def neck(c: Config, name: str, out: str) -> Iterator[Node]:
    """From `x: b s d` to `{out}: b c y x`: two convolutions, each with a norm of its channels."""
    across = patches(c)
    x = Features(f"{name}.grid", c.d_model, (across, across))
    yield op(x.name, f"x: b s d -> {x.name}: {x.dims}", "view", **x.sizes)
    for i, kernel in enumerate((1, 3)):
        x = yield from conv(f"{name}.conv{i}", x, c.neck, kernel)
        x = yield from each_element(f"{name}.norm{i}", x, "layer_norm", ", *c, +*c", to=out if i else "")


def features(c: Config, name: str = "features") -> Features:
    """The neck's output."""
    across = patches(c)
    return Features(name, c.neck, (across, across))


def halved(name: str, x: Features, *widths: Size, weight: str = "") -> Piece:
    """Convolutions of stride 2, each to other channels. weight: the name of another convolution's weights."""
    for i, width in enumerate(widths):
        x = yield from conv(f"{name}{i}", x, width, 3, 2, weight=f"{weight}{i}" if weight else "")
    return x
