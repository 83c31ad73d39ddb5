"""Vision transformer: an image cut into patches, an encoder over them, a class token read at the end."""

from __future__ import annotations

from collections.abc import Iterator

from ..config import Settings, Workload, at_most, divides, setting
from ..ir import HEAD, Model, Node, model, op
from ..size import exact_div, floor_div, is_zero, or_else
from ._attention import Attention
from ._layers import norm
from ._loss import cross_entropy
from ._stacks import Layer, encoder

ACTIVATIONS = ("gelu", "gelu_tanh", "gelu_new", "quick_gelu", "silu")


class Config(Settings):
    """ViT-B/16."""

    layers: int = setting(12, "layers")
    d_model: int = setting(768, "width of the residual stream")
    heads: int = setting(12, "attention heads")
    d_ff: int = setting(0, "hidden width of the MLPs; 0: 4 x d_model", least=0)
    patch: int = setting(16, "side of a patch, in pixels")
    image: int = setting(224, "side of the image, unless the workload has another")
    channels: int = setting(3, "channels of the image")
    classes: int = setting(1000, "classes; 0: no head", least=0)
    extra_tokens: int = setting(1, "tokens before the patches: the class, and distillation (DeiT: 2)")
    qkv_bias: bool = setting(True, "queries, keys and values have a bias")
    activation: str = setting("gelu", "of the MLPs", choices=ACTIVATIONS)
    gated: bool = setting(False, "the MLPs multiply two projections, one of them activated")
    layer_scale: bool = setting(False, "what attention and MLP add is weighed, channel by channel (DINOv2)")
    mask_token: bool = setting(False, "a token that stands for hidden patches, of use in pretraining only")
    patch_mean: bool = setting(False, "the head reads the mean of the patches beside the class")

    def __post_init__(self) -> None:
        divides("heads", self.heads, "d_model", self.d_model)
        at_most("patch", self.patch, "image", self.image)


def build(c: Config, w: Workload) -> Model:
    """Images [b, c, y, x] to logits [b, v], or to hidden states [b, s, d] where there is no head.

    The table of positions is as long as the image needs.
    """
    side = or_else(w.image, c.image)
    at_most("patch", c.patch, "image", side)
    across = floor_div(side, c.patch)
    s = across * across + c.extra_tokens
    sizes = {
        "b": w.batch, "c": c.channels, "y": across, "x": across, "y+i": side, "x+j": side, "i": c.patch,
        "j": c.patch, "p": across * across, "a": c.extra_tokens, "s": s, "t": s, "d": c.d_model,
        "h": c.heads, "r": 1, "k": exact_div(c.d_model, c.heads), "f": or_else(c.d_ff, 4 * c.d_model),
        "v": c.classes, "z": (1 + c.patch_mean) * c.d_model,
    }  # fmt: skip
    return model("vit", c, w, _nodes(c, w), sizes, samples=w.batch, tokens=w.batch * s)


def _nodes(c: Config, w: Workload) -> Iterator[Node]:
    yield op("embed.patches", "!image: b c y+i x+j, *d c i j, +*d -> x: b d y x")
    yield op("embed.flatten", "x: b d y x -> x: b p d", "view")
    if c.mask_token:
        yield op("embed.mask", "*d -> mask: d", "resident")
    yield op("embed.class", "x: b p d, *a d -> x: b s d", "cat")
    yield op("embed.positions", "x:, *s d -> x:", "add")
    layer = Layer(Attention(bias=c.qkv_bias), c.activation, gated=c.gated, scale=c.layer_scale)
    yield encoder("layers", layer, c.layers)
    yield norm("norm", "layer_norm", "x", "x")
    if is_zero(c.classes):
        return
    yield op("head.class", "x: b s d -> class: b d", "slice")
    if c.patch_mean:
        yield op("head.patches", "x: b s d -> patches: b p d", "slice")
        yield op("head.mean", "patches: b p d -> mean: b d", "mean")
        yield op("head.cat", "class: b d, mean: b d -> class: b z", "cat")
    yield op("head", "class: b z, *v z, +*v -> logits: b v", tag=HEAD)
    if w.mode == "train":
        yield from cross_entropy("logits")
