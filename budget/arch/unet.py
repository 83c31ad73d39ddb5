"""U-Net for images and volumes: down by pooling, up by transposed convolutions, skips between."""

from __future__ import annotations

from collections.abc import Generator

from ..config import Settings, Workload, setting
from ..errors import wrong
from ..ir import HEAD, Model, Node, model
from ._conv import Features, Piece, concat, conv, conv_transposed, each_element, image, pool, resize
from ._loss import cross_entropy


class Config(Settings):
    """A padded 2-D U-Net with batch norm for 256 x 256 images of one channel."""

    axes: int = setting(2, "2 for images, 3 for volumes")
    in_channels: int = setting(1, "channels of the image: modalities")
    classes: int = setting(2, "outputs for each pixel")
    width: int = setting(64, "channels of the first level; each level below has twice as many")
    depth: int = setting(4, "times that the image is halved")
    norm: str = setting("batch", "behind each convolution", choices=("none", "batch", "instance"))
    affine: bool = setting(True, "norms have weights")
    bias: bool = setting(False, "convolutions have a bias")
    up_bias: bool = setting(True, "transposed convolutions have a bias")
    padding: bool = setting(True, "convolutions keep the image's size; else the skips are cropped")
    widen_late: bool = setting(False, "a level's second convolution widens, not its first (3-D U-Net)")
    image: int = setting(256, "side of the image or volume")

    def __post_init__(self) -> None:
        if self.axes not in (2, 3):
            raise wrong("axes", self.axes, "2, 3")


def build(c: Config, w: Workload) -> Model:
    """Images to a logit for each class and pixel, with a cross-entropy loss in training."""
    return model("unet", c, w, _nodes(c, w), {"b": w.batch}, samples=w.batch)


def _nodes(c: Config, w: Workload) -> Generator[Node, None, None]:
    x = image(w, c.in_channels, c.image, c.axes)
    skips: list[Features] = []
    for level in range(c.depth):
        f = c.width * 2**level
        x = yield from _double(c, f"down{level}", x, f if not c.widen_late else f // 2, f)
        skips.append(x)
        x = yield from pool("max_pool", f"down{level}.pool", x, 2, stride=2)
    f = c.width * 2**c.depth
    x = yield from _double(c, "bottom", x, f if not c.widen_late else f // 2, f)
    for level in reversed(range(c.depth)):
        f = c.width * 2**level
        x = yield from conv_transposed(f"up{level}.grow", x, x.c if c.widen_late else f, 2, bias=c.up_bias)
        x = yield from _joined(c, f"up{level}", x, skips.pop())
        x = yield from _double(c, f"up{level}", x, f, f)
    x = yield from conv("head", x, c.classes, 1, bias=True, tag=HEAD)
    if w.mode == "train":
        yield from cross_entropy()


def _double(c: Config, name: str, x: Features, inner: int, f: int) -> Piece:
    for i, width in enumerate((inner, f)):
        x = yield from conv(f"{name}.conv{i}", x, width, 3, padding=None if c.padding else 0, bias=c.bias)
        if c.norm != "none":
            x = yield from each_element(
                f"{name}.norm{i}", x, f"{c.norm}_norm", ", *c, +*c" if c.affine else ""
            )
        x = yield from each_element(f"{name}.relu{i}", x, "relu_")
    return x


def _joined(c: Config, name: str, x: Features, skip: Features) -> Piece:
    """Concatenate the skip and the upsampled features, padded or cropped to one size."""
    if c.padding:
        x = yield from resize("pad", f"{name}.pad", x, skip.extents)
    else:
        skip = yield from resize("slice", f"{name}.crop", skip, x.extents)
    return (yield from concat(f"{name}.cat", (skip, x)))
