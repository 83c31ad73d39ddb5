"""SegFormer: overlapping patches, attention to fewer keys, convolutions within the MLPs, and a light decoder.

Source: transformers.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

from ..config import Settings, Workload, as_many, at_most, setting
from ..errors import InputError
from ..ir import DOWN, HEAD, UP, Model, Node, Op, block, model, op
from ..size import Size, floor_div, is_one, is_zero, or_else
from ._attention import Attention, attention
from ._conv import Features, Piece, classifier, concat, conv, conv_norm, each_element, image, slide
from ._layers import ACTIVATIONS, ATTENTION_DROPOUT, activate, dropout, norm, sized
from ._loss import cross_entropy


class Config(Settings):
    """SegFormer-B0 for ADE20K."""

    depths: tuple[int, ...] = setting((2, 2, 2, 2), "layers of each stage")
    widths: tuple[int, ...] = setting((32, 64, 160, 256), "channels of each stage")
    heads: tuple[int, ...] = setting((1, 2, 5, 8), "attention heads of each stage")
    d_ff: tuple[int, ...] = setting((128, 256, 640, 1024), "hidden width of each stage's MLPs")
    patches: tuple[int, ...] = setting((7, 3, 3, 3), "side of the patches that begin each stage")
    strides: tuple[int, ...] = setting((4, 2, 2, 2), "from one of them to the next")
    reductions: tuple[int, ...] = setting((8, 4, 2, 1), "side of the squares that are one key and value")
    activation: str = setting("gelu", "of the MLPs", choices=ACTIVATIONS)
    decoder: int = setting(256, "width of the decoder of all stages; 0: a classifier, or none", least=0)
    classes: int = setting(150, "outputs, for each fourth pixel if there is a decoder; 0: none", least=0)
    in_channels: int = setting(3, "channels of the image")
    image: int = setting(512, "side of the image")
    dropout: float = setting(0.0, "training: part of what layers add that is dropped", least=0, most=1)
    attention_dropout: float = ATTENTION_DROPOUT
    head_dropout: float = setting(
        0.1, "training: part of the decoder's channels that is dropped", least=0, most=1
    )

    def __post_init__(self) -> None:
        for name in ("widths", "heads", "d_ff", "patches", "strides", "reductions"):
            as_many(name, getattr(self, name), "depths", self.depths)
        for heads, width in zip(self.heads, self.widths, strict=True):
            at_most("heads", heads, "the stage's width", width)
        if not is_zero(self.decoder) and is_zero(self.classes):
            raise InputError("classes", "got 0; allowed with a decoder: 1 or more")


def build(c: Config, w: Workload) -> Model:
    """Images to logits [b, classes, y, x] of a quarter of their side, or [b, classes]."""
    return model("segformer", c, w, _nodes(c, w), {"b": w.batch}, samples=w.batch)


def _nodes(c: Config, w: Workload) -> Generator[Node, None, None]:
    x = image(w, c.in_channels, c.image)
    stages = []
    for i in range(len(c.depths)):
        x = yield from _stage(c, w, i, x)
        stages.append(x)
    if is_zero(c.decoder):
        yield from classifier(x, c.classes, w)
        return
    x = yield from _decoder(c, w, stages)
    if w.mode == "train":
        side = or_else(w.image, c.image)
        large = x._replace(name="large", extents=(side, side))
        yield _resized("loss.resize", x, large)
        yield from cross_entropy()


def _stage(c: Config, w: Workload, i: int, x: Features) -> Piece:
    """Smaller and wider features, and the stage's layers on their tokens."""
    at = f"stage{i}"
    x = yield from conv(f"{at}.patches", x, c.widths[i], c.patches[i], c.strides[i], bias=True)
    y = x._replace(name=at)
    sizes = {**_tokens(c, i, x), **x.sizes}
    tokens = (
        op(f"{at}.flatten", f"{x.name}: {x.dims} -> x: b s d", "view"),
        norm(f"{at}.norm1", "layer_norm", "x", "x"),
        block(f"{at}.layers", _layer(c, w, i, x), c.depths[i]),
        norm(f"{at}.norm2", "layer_norm", "x", "x"),
        op(f"{at}.grid", f"x: b s d -> {y.name}: {y.dims}", "copy"),
    )
    yield from sized(tokens, **sizes)
    return y


def _tokens(c: Config, i: int, x: Features) -> dict[str, Size]:
    """Sizes of a stage's layers."""
    y, x_ = x.extents
    width, heads = c.widths[i], c.heads[i]
    return {
        "d": width,
        "s": y * x_,
        "t": y * x_,
        "h": heads,
        "r": 1,
        "k": floor_div(width, heads),
        "f": c.d_ff[i],
    }


def _layer(c: Config, w: Workload, i: int, x: Features) -> Iterator[Node]:
    """Attention to keys of squares of tokens, and an MLP with a convolution over each token's neighbours."""
    train = w.mode == "train"
    a = Attention(dropout=train and c.attention_dropout > 0)
    yield norm("attn.norm", "layer_norm")
    if is_one(c.reductions[i]):
        yield from attention("attn", a, "forward")
    else:
        few = slide("reductions", x, c.reductions[i], c.reductions[i], 0)
        side: dict[str, Size] = dict(zip(("y", "x", "y+i", "x+j"), (*few, *x.extents), strict=True))
        square: dict[str, Size] = {**side, "i": c.reductions[i], "j": c.reductions[i]}
        t = few[0] * few[1]
        yield op("reduce.grid", "n: b s d -> g: b d y x", "view")
        yield op("reduce", "g: b c y+i x+j, *d c i j, +*d -> few: b d y x", **square, c=c.widths[i])
        yield op("reduce.flatten", "few: b d y x -> few: b t d", "view", **square, t=t)
        yield op("reduce.norm", "few: b t d, *d, +*d -> few: b t d", "layer_norm", t=t)
        yield from sized(attention("attn", a, "forward", memory="few"), t=t)
    yield from dropout("attn", c.dropout, w.mode, "a")
    yield op("attn.residual", "x:, a: -> x:", "add")
    yield norm("mlp.norm", "layer_norm")
    yield op("mlp.up", "n: b s d, *d f, +*f -> u: b s f", tag=UP)
    yield op("mlp.grid", "u: b s f -> u: b y x f", "view")
    window: dict[str, Size] = {"y+i": x.extents[0], "x+j": x.extents[1], "i": 3, "j": 3}
    yield op("mlp.depthwise", "u: b y+i x+j f, *f i j, +*f -> u: b y x f", **window)
    yield op("mlp.flatten", "u: b y x f -> u: b s f", "view")
    yield activate("mlp.act", c.activation, "u")
    yield from dropout("mlp.hidden", c.dropout, w.mode, "g")
    yield op("mlp.down", "g: b s f, *f d, +*d -> m: b s d", tag=DOWN)
    yield from dropout("mlp", c.dropout, w.mode, "m")
    yield op("mlp.residual", "m:, x: -> x:", "add")


def _decoder(c: Config, w: Workload, stages: list[Features]) -> Piece:
    """All stages as wide and as large as the first, side by side, and mixed pixel by pixel."""
    parts = []
    for i, x in enumerate(stages):
        y = x._replace(name=f"decoder.{i}", c=c.decoder)
        yield op(f"decoder.linear{i}", f"{x.name}: {x.dims}, *c f, +*f -> z: b y x f", **x.sizes, f=c.decoder)
        yield op(f"decoder.first{i}", f"z: b y x c -> {y.name}: {y.dims}", "view", **y.sizes)
        yield _resized(
            f"decoder.resize{i}", y, large := y._replace(name=f"large{i}", extents=stages[0].extents)
        )
        parts.append(large)
    x = yield from concat("decoder.cat", reversed(parts))
    x = yield from conv_norm("decoder.fuse", x, c.decoder, 1, act="relu")
    if c.head_dropout and w.mode == "train":
        x = yield from each_element("decoder.dropout", x, "dropout")
    return (yield from conv("head", x, c.classes, 1, bias=True, tag=HEAD))


def _resized(name: str, x: Features, y: Features) -> Op:
    """Interpolated to the size of y."""
    before = {f"{axis}0": extent for axis, extent in zip(x.axes, x.extents, strict=True)}
    line = f"{x.name}: b c {' '.join(before)} -> {y.name}: {y.dims}"
    return op(name, line, "interpolate", **y.sizes, **before)
