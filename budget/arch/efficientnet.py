"""EfficientNet B0 to B7 and EfficientNet-v2: inverted residuals scaled in width and depth together."""

from __future__ import annotations

from collections.abc import Generator
from math import ceil

from ..config import Settings, Workload, setting
from ..ir import Model, Node, model
from ..size import divisible
from ._conv import Features, Piece, classifier, conv_norm, image, resize, scope
from ._inverted import Squeeze, check, fused_residual, inverted_residual, stage


class Config(Settings):
    """EfficientNet-B0. Fields that describe stages have one value for each, or one for all."""

    channels: tuple[int, ...] = setting(
        (16, 24, 40, 80, 112, 192, 320), "outputs of each stage, before `width`"
    )
    repeats: tuple[int, ...] = setting((1, 2, 2, 3, 3, 4, 1), "blocks in each stage, before `depth`")
    strides: tuple[int, ...] = setting((1, 2, 2, 2, 1, 2, 1), "stride of each stage's first block")
    kernels: tuple[int, ...] = setting((3, 3, 5, 3, 5, 5, 3), "side of the depthwise kernels")
    expand: tuple[int, ...] = setting(
        (1, 6, 6, 6, 6, 6, 6), "width inside a block, as a multiple of its input's"
    )
    fused: tuple[int, ...] = setting((0,), "1: full convolutions, no squeeze and excite (v2)", least=0)
    width: float = setting(
        1.0, "multiplies all channels, which are then rounded to multiples of 8", least=0.01
    )
    depth: float = setting(1.0, "multiplies all repeats, which are then rounded up", least=0.01)
    squeeze: float = setting(0.25, "width of squeeze and excite, as a part of the block's input", least=0)
    stem: int = setting(32, "channels of the first convolution, before `width`")
    head: int = setting(1280, "channels of the last convolution, before `width`")
    padding: str = setting(
        "even",
        "of strided convolutions: even, or by an operator of its own with one zero less (transformers)",
        choices=("even", "uneven"),
    )
    even_blocks: tuple[int, ...] = setting((0,), "blocks that uneven padding spares, from 0", least=0)
    inplace: bool = setting(
        True, "activations overwrite their input (torchvision does, transformers doesn't)"
    )
    classes: int = setting(1000, "outputs; 0: no head", least=0)
    in_channels: int = setting(3, "channels of the image")
    image: int = setting(224, "side of the image")

    def __post_init__(self) -> None:
        check(self, "repeats", "strides", "kernels", "expand", "fused")

    def pad(self, kernel: int, stride: int, block: int = -1) -> int:
        """Zeros that an operator adds along an axis; 0 where the convolution does."""
        if stride == 1 or self.padding == "even":
            return 0
        return kernel // 2 * 2 - (block not in self.even_blocks)

    @property
    def act(self) -> str:
        """Kind of the activations."""
        return "silu_" if self.inplace else "silu"

    @property
    def add(self) -> str:
        """Kind of the residual additions."""
        return "add_" if self.inplace else "add"


def build(c: Config, w: Workload) -> Model:
    """Images to logits [b, classes], with a cross-entropy loss in training."""
    return model("efficientnet", c, w, _nodes(c, w), {"b": w.batch}, samples=w.batch)


def _nodes(c: Config, w: Workload) -> Generator[Node, None, None]:
    x = image(w, c.in_channels, c.image)
    padding = None
    if pad := c.pad(3, 2):
        padding = 0
        x = yield from resize("pad", "stem.pad", x, tuple(extent + pad for extent in x.extents))
    x = yield from conv_norm("stem", x, divisible(c.stem * c.width), 3, 2, padding, act=c.act, to="x")
    blocks = 0
    for i, channels in enumerate(c.channels):
        f, repeats = divisible(channels * c.width), ceil(stage(c.repeats, i) * c.depth)
        x = yield from scope(f"stage{i}.0", _block(c, x, i, f, stage(c.strides, i), blocks))
        x = yield from scope(f"stage{i}", _block(c, x, i, f, 1), repeats - 1)
        blocks += repeats
    x = yield from conv_norm("head", x, divisible(c.head * c.width), 1, act=c.act)
    yield from classifier(x, c.classes, w)


def _block(c: Config, x: Features, i: int, f: int, stride: int, block: int = -1) -> Piece:
    expanded, kernel = divisible(x.c * stage(c.expand, i)), stage(c.kernels, i)
    if stage(c.fused, i):
        return fused_residual(x, f, expanded, kernel, stride, act=c.act, add_kind=c.add)
    squeeze = Squeeze(max(1, int(x.c * c.squeeze)), c.act) if c.squeeze else None
    return inverted_residual(
        x,
        f,
        expanded,
        kernel,
        stride,
        act=c.act,
        squeeze=squeeze,
        add_kind=c.add,
        pad=c.pad(kernel, stride, block),
    )
