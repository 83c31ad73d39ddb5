"""Vision transformer: an image cut into patches, an encoder over them, and a head on the class token."""

from __future__ import annotations

from collections.abc import Iterator

from ..config import Settings, Workload, at_most, divides, setting
from ..errors import InputError
from ..ir import EMBED, HEAD, Model, Node, model, op
from ..size import Size, exact_div, floor_div, is_number, is_zero, or_else
from ._attention import Attention, attention, causal_mask, rotary
from ._heads import pooled
from ._layers import ACTIVATIONS, ATTENTION_DROPOUT, DROPOUT, NORMS, RMS_NORMS, dropout, mlp, norm, sized
from ._loss import cross_entropy
from ._periods import period, stack
from ._stacks import Layer, encoder, layer_of


class Config(Settings):
    """ViT-B/16."""

    layers: int = setting(12, "layers")
    d_model: int = setting(768, "width of the residual stream")
    heads: int = setting(12, "attention heads")
    kv_heads: int = setting(0, "key-value heads; 0: as many as heads", least=0)
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
    patch_frames: int = setting(1, "frames that a patch spans: an image is shown in each (Qwen2-VL: 2)")
    positions: str = setting("learned", "how positions enter", choices=("learned", "rotary", "both", "none"))
    blended: int = setting(
        0, "rows of a table of positions that is interpolated to the image's patches; 0: none", least=0
    )
    resampled: bool = setting(False, "in one kernel: not by gathering four rows for each patch")
    axis_positions: int = setting(
        0, "rows of two tables of positions, for columns and rows of patches (Gemma 4); 0: none", least=0
    )
    norm: str = setting("layer_norm", "kind of all norms", choices=NORMS)
    sandwich: bool = setting(False, "norms behind attention and MLP, too (Gemma 4)")
    value_norm: str = setting("", "kind of a norm of each head's values", choices=("", *NORMS))
    scale_scores: bool = setting(True, "scores are divided by the root of the width of a head")
    patch_norm: bool = setting(False, "a norm of the patches, before positions enter (GLM-4.1V)")
    final_norm: bool = setting(True, "a norm behind the last layer")
    qk_norm: bool = setting(False, "an RMS norm of all heads' queries and keys (InternVL)")
    qk_norm_shared: bool = setting(False, "of each head's, with weights that heads share (GLM-OCR)")
    linear_bias: bool = setting(True, "attention's output and the MLPs have biases")
    packed: bool = setting(False, "images are one sequence, and a mask divides them (Pixtral's code)")
    fused_qkv: bool = setting(False, "queries, keys and values are one projection")
    softmax_float32: bool = setting(True, "attention's softmax is computed in float32")
    window: int = setting(0, "patches along a side of the windows that layers attend within; 0: all", least=0)
    full_layers: tuple[int, ...] = setting((0,), "layers that attend to everything all the same", least=0)
    embed_norm: bool = setting(False, "a norm before the layers (CLIP)")
    pooling: str = setting(
        "",
        "what is made of all tokens: the class token, alone in its norm (CLIP), or what a learned query "
        "attends to, through a norm and an MLP (SigLIP)",
        choices=("", "class_norm", "attention"),
    )
    projection: int = setting(0, "width of what is pooled, projected; 0: it is not", least=0)
    dropout: float = DROPOUT
    attention_dropout: float = ATTENTION_DROPOUT

    def __post_init__(self) -> None:
        if is_zero(self.head_dim):
            divides("heads", self.heads, "d_model", self.d_model)
        divides("kv_heads", or_else(self.kv_heads, self.heads), "heads", self.heads)
        if self.pooling == "attention" and not is_zero(self.kv_heads):
            raise InputError("kv_heads", "allowed with pooling by attention: 0")
        at_most("patch", self.patch, "image", self.image)
        if self.pooling and not self.final_norm:
            raise InputError("final_norm", "got false; allowed without pooling")
        if self.packed and not is_zero(self.window + self.extra_tokens + self.registers):
            raise InputError("packed", "got true; allowed without windows and further tokens")
        if self.qk_norm_shared and not self.qk_norm:
            raise InputError("qk_norm_shared", "got true; allowed with qk_norm")
        if self.resampled and is_zero(self.blended):
            raise InputError("blended", "got 0; allowed with resampled: a number of rows")
        if self.pooling == "class_norm" and is_zero(self.extra_tokens):
            raise InputError("pooling", "got class_norm; allowed without extra_tokens: attention")
        if not is_zero(self.window) and not is_number(self.layers):
            raise InputError("layers", "allowed: one number where layers differ")
        if not (is_zero(self.projection) or self.pooling):
            raise InputError("projection", "allowed with pooling: a width")


def build(c: Config, w: Workload) -> Model:
    """Images [b, c, y, x] to logits [b, v], or to hidden states [b, s, d] where there is no head.

    The position table has one row per token of the image.
    """
    sizes = shape(c, w)
    pooled = ("pooled" if is_zero(c.projection) else "embeds",) if c.pooling else ()
    ends = ("x", *pooled) if is_zero(c.classes) else ()
    tokens = w.batch * sizes["s"]
    return model("vit", c, w, _nodes(c, w), sizes, samples=w.batch, tokens=tokens, outputs=ends)


def shape(c: Config, w: Workload) -> dict[str, Size]:
    """The dimensions' sizes. Raises InputError for an image that no patch fits into."""
    side = or_else(w.image, c.image)
    at_most("patch", c.patch, "image", side)
    across = floor_div(side, c.patch)
    s = across * across + c.extra_tokens + c.registers
    groups = 1 if is_zero(c.kv_heads) else exact_div(c.heads, c.kv_heads)
    return {
        "b": w.batch, "c": c.channels * c.patch_frames, "y": across, "x": across, "y+i": side, "x+j": side,
        "i": c.patch, "j": c.patch, "p": across * across, "a": c.extra_tokens, "s": s, "t": s, "d": c.d_model,
        "h": or_else(c.kv_heads, c.heads), "r": groups,
        "k": or_else(c.head_dim, exact_div(c.d_model, c.heads)), "f": or_else(c.d_ff, 4 * c.d_model),
        "q": across * across + c.extra_tokens, "u": c.registers, "v": c.classes,
        "z": (1 + c.patch_mean) * c.d_model,
    }  # fmt: skip


def _nodes(c: Config, w: Workload) -> Iterator[Node]:
    yield from embedding(c, w.mode)
    yield from layers(c, w, "layers", c.layers)
    yield from pooling(c)
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


def embedding(c: Config, mode: str) -> Iterator[Node]:
    """From `image: b c y+i x+j` to `x: b s d`: the patches, and tokens beside them."""
    bias = ", +*d" if c.patch_bias else ""
    yield op("embed.patches", f"!image: b c y+i x+j, *d c i j{bias} -> x: b d y x", tag=EMBED)
    yield op("embed.flatten", "x: b d y x -> x: b p d", "view")
    if c.patch_norm:
        yield norm("embed.patch_norm", c.norm, "x", "x")
    if c.mask_token:
        yield op("embed.mask", "*d -> mask: d", "resident")
    placed = "s" if is_zero(c.registers) else "q"  # what has a position
    if not is_zero(c.extra_tokens):
        yield op("embed.class", f"x: b p d, *a d -> x: b {placed} d", "cat")
    if c.positions in ("learned", "both"):
        yield op("embed.positions", f"x: b {placed} d, *{placed} d -> x: b {placed} d", "add")
    for axis in () if is_zero(c.axis_positions) else ("columns", "rows"):
        line = f"!{axis}/int64: b s, *~u d -> {axis}: b s d"
        yield op(f"embed.{axis}", line, "gather", u=c.axis_positions)
    if not is_zero(c.axis_positions):
        yield op("embed.places", "columns: b s d, rows: b s d -> places: b s d", "add")
        yield op("embed.placed", "x: b s d, places: b s d -> x: b s d", "add")
    if c.resampled:
        yield op("embed.resample", "*u d -> places: b s d", "interpolate", u=c.blended)
        yield op("embed.blended", "x: b s d, places: b s d -> x: b s d", "add")
    elif not is_zero(c.blended):  # of the four rows around a patch
        yield op(
            "embed.corners", "!corners/int64: b s e, *~u d -> corners: b s e d", "gather", u=c.blended, e=4
        )
        yield op("embed.weigh", "corners: b s e d, !shares: b s e -> corners: b s e d", "mul", e=4)
        yield op("embed.blend", "corners: b s e d -> places: b s d", "reduce", e=4)
        yield op("embed.blended", "x: b s d, places: b s d -> x: b s d", "add")
    if not is_zero(c.registers):
        yield op("embed.registers", "x: b q d, *u d -> x: b s d", "cat")
    yield from dropout("embed", c.dropout, mode, "x")
    if c.embed_norm:
        yield norm("embed.norm", c.norm, "x", "x")
    if _rotates(c):
        yield rotary()


def layers(c: Config, w: Workload, name: str, count: Size, x: str = "x") -> Iterator[Node]:
    """So many layers on `x: b s d`."""
    train = w.mode == "train"
    kind = c.norm if c.norm in RMS_NORMS else "rms_norm"
    a = Attention(
        bias=c.qkv_bias, out_bias=c.linear_bias, fused=c.fused_qkv, upcast=c.softmax_float32,
        norm=kind if c.qk_norm else "", value_norm=c.value_norm, scale=c.scale_scores,
        norm_heads=c.qk_norm and not c.qk_norm_shared, heads_per_key=shape(c, w)["r"], rope=_rotates(c),
        mask="packed" if c.packed else "", causal=False,
        dropout=train and c.attention_dropout > 0,
    )  # fmt: skip
    dropped = c.dropout if train else 0.0
    layer = Layer(
        a, c.activation, c.norm, gated=c.gated, bias=c.linear_bias, out_norm=c.sandwich,
        scale=c.layer_scale, dropout=dropped,
    )  # fmt: skip
    if c.packed:
        tokens = shape(c, w)["s"]
        whole = {"b": 1, "s": w.batch * tokens, "t": w.batch * tokens}
        apart = {"p": tokens, "n": w.batch}
        yield op(f"{name}.pack", f"{x}: n p d -> {x}: b s d", "view", **whole, **apart)
        yield from sized((causal_mask("packed"), encoder(name, layer, count, x=x)), **whole)
        yield op(f"{name}.unpack", f"{x}: b s d -> {x}: n p d", "view", **whole, **apart)
        return
    if is_zero(c.window):
        yield encoder(name, layer, count, x=x)
        return
    near = layer._replace(attention=a._replace(windows=_windows(c, w)))
    kinds = tuple(layer if i in c.full_layers else near for i in range(count))
    yield from stack(name, period(kinds), count, lambda kind: layer_of(kind, x))


def _rotates(c: Config) -> bool:
    return c.positions in ("rotary", "both")


def _windows(c: Config, w: Workload) -> tuple[tuple[Size, Size, Size], ...]:
    """Windows and their tokens: whole ones, those at two edges, and the one in the corner."""
    whole, rest = divmod(floor_div(or_else(w.image, c.image), c.patch), c.window)
    windows = (whole * whole, c.window * c.window), (2 * whole, c.window * rest), (1, rest * rest)
    return tuple((n, n * w.batch, tokens) for n, tokens in windows if not is_zero(n * tokens))


def pooling(c: Config, x: str = "x") -> Iterator[Node]:
    """The last norm, and from `x: b s d` to `pooled: b d`, projected or not."""
    if not c.final_norm:
        return
    if c.pooling == "class_norm":
        yield op("pool.class", f"{x}: b s d -> pooled: b d", "slice")
        yield norm("norm", c.norm, "pooled", "pooled")
    else:
        yield norm("norm", c.norm, x, x)
    if c.pooling == "attention":
        a = Attention(upcast=False, scale=False, scale_q=True)
        query = (
            op("pool.query", "*d -> query: b s d", "repeat"),
            *attention("pool.attn", a, "forward", x="query", memory=x),
            norm("pool.norm", "layer_norm", "a"),
            *mlp("pool.mlp", c.activation),
            op("pool.residual", "m:, a: -> m:", "add"),
            op("pool.first", "m: b s d -> pooled: b d", "slice"),
        )
        yield from sized(query, s=1)
    if not is_zero(c.projection):
        yield op("pool.project", "pooled: b d, *d o -> embeds: b o", o=c.projection)
