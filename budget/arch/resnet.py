"""Residual networks: ResNet, ResNeXt (groups), Wide ResNet (wider bottlenecks), SE-ResNet (squeeze)."""

from __future__ import annotations

from collections.abc import Generator

from ..config import Settings, Workload, as_many, setting
from ..errors import InputError, wrong
from ..ir import Model, Node, model
from ..size import divisible
from ._conv import Features, Piece, add, classifier, conv_norm, each_element, image, pool, scope
from ._inverted import Squeeze, squeeze_excite


class Config(Settings):
    """ResNet-50 as torchvision has it (the stride is in the 3 x 3 convolution)."""

    depths: tuple[int, ...] = setting((3, 4, 6, 3), "blocks in each stage")
    widths: tuple[int, ...] = setting((256, 512, 1024, 2048), "output channels of each stage")
    block: str = setting(
        "bottleneck", "two 3 x 3 convolutions, or 1 x 1, 3 x 3, 1 x 1", choices=("basic", "bottleneck")
    )
    groups: int = setting(1, "groups of the bottleneck's 3 x 3 convolution (ResNeXt's cardinality)")
    width_per_group: int = setting(64, "its channels in each group, for a stage of 256 outputs")
    squeeze: int = setting(
        0, "behind each block's convolutions, squeeze and excite with f / squeeze channels; 0: none", least=0
    )
    stem: int = setting(64, "channels of the first convolution")
    stride_first: bool = setting(False, "the stride is in the bottleneck's first convolution")
    first_stage_stride: int = setting(1, "stride of the first stage")
    activation: str = setting("relu", "behind the norms", choices=("relu", "gelu", "silu"))
    inplace: bool = setting(True, "relu overwrites its input (torchvision does, transformers doesn't)")
    classes: int = setting(1000, "outputs; 0: no head", least=0)
    in_channels: int = setting(3, "channels of the image")
    image: int = setting(224, "side of the image")

    def __post_init__(self) -> None:
        as_many("widths", self.widths, "depths", self.depths)
        if self.block == "basic" and (self.groups, self.width_per_group) != (1, 64):
            raise InputError("groups", "a basic block has none; allowed: groups 1 and width_per_group 64")
        if self.block == "bottleneck" and any(self.inner(f) < 1 for f in self.widths):
            raise wrong("widths", self.widths, "4 x 64 / width_per_group or more")

    @property
    def act(self) -> str:
        """Kind of the activations."""
        return "relu_" if self.activation == "relu" and self.inplace else self.activation

    def inner(self, f: int) -> int:
        """Channels inside a bottleneck with f outputs."""
        return f // 4 * self.width_per_group // 64 * self.groups


def build(c: Config, w: Workload) -> Model:
    """Images to logits [b, classes], with a cross-entropy loss in training."""
    return model("resnet", c, w, _nodes(c, w), {"b": w.batch}, samples=w.batch)


def _nodes(c: Config, w: Workload) -> Generator[Node, None, None]:
    x = image(w, c.in_channels, c.image)
    x = yield from conv_norm("stem", x, c.stem, 7, stride=2, act=c.act)
    x = yield from pool("max_pool", "stem.pool", x, 3, stride=2, padding=1, to="x")
    for i, (depth, width) in enumerate(zip(c.depths, c.widths, strict=True), 1):
        stride = 2 if i > 1 else c.first_stage_stride
        x = yield from scope(f"stage{i}.0", _block(c, x, width, stride))
        x = yield from scope(f"stage{i}", _block(c, x, width, 1), depth - 1)
    yield from classifier(x, c.classes, w)


def _block(c: Config, x: Features, f: int, stride: int) -> Piece:
    if c.block == "basic":
        y = yield from conv_norm("conv1", x, f, 3, stride, act=c.act)
        y = yield from conv_norm("conv2", y, f, 3)
    else:
        first, second = (stride, 1) if c.stride_first else (1, stride)
        y = yield from conv_norm("conv1", x, c.inner(f), 1, first, act=c.act)
        y = yield from conv_norm("conv2", y, c.inner(f), 3, second, groups=c.groups, act=c.act)
        y = yield from conv_norm("conv3", y, f, 1)
    if c.squeeze:
        y = yield from squeeze_excite(y, Squeeze(divisible(f / c.squeeze), "relu_"))
    if stride > 1 or x.c != f:
        x = yield from conv_norm("shortcut", x, f, 1, stride)
    y = yield from add("add", y, x)
    return (yield from each_element("act", y, c.act, to="x"))
