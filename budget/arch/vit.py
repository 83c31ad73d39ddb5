"""Vision transformer: an image cut into patches, an encoder over them, and a head on the class token."""

from __future__ import annotations

from collections.abc import Iterator

from ..config import Settings, Workload, at_most, divides, setting
from ..errors import InputError
from ..ir import EMBED, HEAD, Model, Node, model, op
from ..size import exact_div, floor_div, is_zero, or_else
from ._attention import Attention, attention
from ._heads import pooled
from ._layers import ACTIVATIONS, dropout, mlp, norm, sized
from ._loss import cross_entropy
from ._stacks import Layer, encoder


class Config(Settings):
    """ViT-B/16."""

    layers: int = setting(12, "layers")
    d_model: int = setting(768, "width of the residual stream")
    heads: int = setting(12, "attention heads")
    head_dim: int = setting(0, "width of a head; 0: d_model / heads", least=0)
    d_ff: int = setting(0, "hidden width of the MLPs; 0: 4 x d_model", least=0)
    patch: int = setting(16, "side of a patch, in pixels")
    image: int = setting(224, "side of the image, unless the workload has another")
    channels: int = setting(3, "channels of the image")
    classes: int = setting(1000, "classes; 0: no head", least=0)
    extra_tokens: int = setting(
        1, "tokens before the patches: the class, and distillation (DeiT: 2)", least=0
    )
    registers: int = setting(0, "further tokens without a position (DINOv2 with registers)", least=0)
    qkv_bias: bool = setting(True, "queries, keys and values have a bias")
    activation: str = setting("gelu", "of the MLPs", choices=ACTIVATIONS)
    gated: bool = setting(False, "the MLPs multiply two projections, one of them activated")
    layer_scale: bool = setting(False, "what attention and MLP add is weighed, channel by channel (DINOv2)")
    mask_token: bool = setting(False, "a token that stands for hidden patches, of use in pretraining only")
    patch_mean: bool = setting(False, "the head reads the mean of the patches beside the class")
    distilled: bool = setting(False, "the second extra token has a head of its own (DeiT)")
    pooler: bool = setting(False, "a dense layer on the class token")
    pooler_width: int = setting(0, "its width; 0: d_model", least=0)
    patch_bias: bool = setting(True, "the projection of patches has a bias")
    embed_norm: bool = setting(False, "a norm before the layers (CLIP)")
    pooling: str = setting(
        "",
        "what is made of all tokens: the class token, alone in its norm (CLIP), or what a learned query "
        "attends to, through a norm and an MLP (SigLIP)",
        choices=("", "class_norm", "attention"),
    )
    projection: int = setting(0, "width of what is pooled, projected; 0: it is not", least=0)
    dropout: float = setting(0.0, "training: part of embeddings and of what is added, dropped", least=0)
    attention_dropout: float = setting(0.0, "training: part of attention's weights that is dropped", least=0)

    def __post_init__(self) -> None:
        if is_zero(self.head_dim):
            divides("heads", self.heads, "d_model", self.d_model)
        at_most("patch", self.patch, "image", self.image)
        if self.pooling == "class_norm" and is_zero(self.extra_tokens):
            raise InputError("pooling", "got class_norm; allowed without extra_tokens: attention")
        if not (is_zero(self.projection) or self.pooling):
            raise InputError("projection", "allowed with pooling: a width")


def build(c: Config, w: Workload) -> Model:
    """Images [b, c, y, x] to logits [b, v], or to hidden states [b, s, d] where there is no head.

    The position table has one row per token of the image.
    """
    side = or_else(w.image, c.image)
    at_most("patch", c.patch, "image", side)
    across = floor_div(side, c.patch)
    s = across * across + c.extra_tokens + c.registers
    sizes = {
        "b": w.batch, "c": c.channels, "y": across, "x": across, "y+i": side, "x+j": side, "i": c.patch,
        "j": c.patch, "p": across * across, "a": c.extra_tokens, "s": s, "t": s, "d": c.d_model,
        "h": c.heads, "r": 1, "k": or_else(c.head_dim, exact_div(c.d_model, c.heads)),
        "f": or_else(c.d_ff, 4 * c.d_model),
        "q": across * across + c.extra_tokens, "u": c.registers, "v": c.classes,
        "z": (1 + c.patch_mean) * c.d_model,
    }  # fmt: skip
    pooled = ("pooled" if is_zero(c.projection) else "embeds",) if c.pooling else ()
    ends = ("x", *pooled) if is_zero(c.classes) else ()
    return model("vit", c, w, _nodes(c, w), sizes, samples=w.batch, tokens=w.batch * s, outputs=ends)


def _nodes(c: Config, w: Workload) -> Iterator[Node]:
    bias = ", +*d" if c.patch_bias else ""
    yield op("embed.patches", f"!image: b c y+i x+j, *d c i j{bias} -> x: b d y x", tag=EMBED)
    yield op("embed.flatten", "x: b d y x -> x: b p d", "view")
    if c.mask_token:
        yield op("embed.mask", "*d -> mask: d", "resident")
    placed = "s" if is_zero(c.registers) else "q"  # what has a position
    if not is_zero(c.extra_tokens):
        yield op("embed.class", f"x: b p d, *a d -> x: b {placed} d", "cat")
    yield op("embed.positions", f"x: b {placed} d, *{placed} d -> x: b {placed} d", "add")
    if not is_zero(c.registers):
        yield op("embed.registers", "x: b q d, *u d -> x: b s d", "cat")
    yield from dropout("embed", c.dropout, w.mode, "x")
    if c.embed_norm:
        yield norm("embed.norm", "layer_norm", "x", "x")
    a = Attention(bias=c.qkv_bias, dropout=w.mode == "train" and c.attention_dropout > 0)
    dropped = c.dropout if w.mode == "train" else 0.0
    layer = Layer(a, c.activation, gated=c.gated, scale=c.layer_scale, dropout=dropped)
    yield encoder("layers", layer, c.layers)
    yield from _pooling(c)
    if c.pooler:
        yield from pooled(or_else(c.pooler_width, c.d_model))
    if is_zero(c.classes):
        return
    if is_zero(c.extra_tokens):
        yield op("head.mean", "x: b s d -> class: b d", "mean")
    else:
        yield op("head.class", "x: b s d -> class: b d", "slice")
    if c.patch_mean:
        yield op("head.patches", "x: b s d -> patches: b p d", "slice")
        yield op("head.mean", "patches: b p d -> mean: b d", "mean")
        yield op("head.cat", "class: b d, mean: b d -> class: b z", "cat")
    yield op("head", "class: b z, *v z, +*v -> logits: b v", tag=HEAD)
    if c.distilled:  # the logits are the mean of both heads'
        yield op("head.distilled", "x: b s d -> distilled: b d", "slice")
        yield op("head2", "distilled: b d, *v d, +*v -> logits2: b v", tag=HEAD)
        yield op("head.add", "logits: b v, logits2: b v -> logits: b v", "add")
        yield op("head.half", "logits: -> logits:", "scale")
    if w.mode == "train":
        yield from cross_entropy("logits")


def _pooling(c: Config) -> Iterator[Node]:
    """The last norm, and from `x: b s d` to `pooled: b d`, projected or not."""
    if c.pooling == "class_norm":
        yield op("pool.class", "x: b s d -> pooled: b d", "slice")
        yield norm("norm", "layer_norm", "pooled", "pooled")
    else:
        yield norm("norm", "layer_norm", "x", "x")
    if c.pooling == "attention":
        a = Attention(upcast=False, scale=False, scale_q=True)
        query = (
            op("pool.query", "*d -> query: b s d", "repeat"),
            *attention("pool.attn", a, "forward", x="query", memory="x"),
            norm("pool.norm", "layer_norm", "a"),
            *mlp("pool.mlp", c.activation),
            op("pool.residual", "m:, a: -> m:", "add"),
            op("pool.first", "m: b s d -> pooled: b d", "slice"),
        )
        yield from sized(query, s=1)
    if not is_zero(c.projection):
        yield op("pool.project", "pooled: b d, *d o -> embeds: b o", o=c.projection)
