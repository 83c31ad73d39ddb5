"""Gemma 4's language model: heads of other widths in layers without a window, keys and values that later
layers share, experts beside the MLP, and an embedding for each layer. Source: transformers.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from ..config import Settings, Workload, at_most, divides, setting
from ..errors import InputError
from ..ir import EMBED, KEY, MOE, OUTPUT, QUERY, ROUTER, VALUE, Model, Node, block, model, op
from ..named import NamedTuple
from ..size import Size, exact_div, is_number, is_zero, minimum, or_else
from ._attention import Attention, cache, mask_name, mix, window_masks
from ._heads import vocabulary
from ._layers import ACTIVATIONS, ATTENTION_DROPOUT, Experts, activate, chosen, mlp, norm, part, sized
from ._loss import cross_entropy

TAKES = ("batch", "seq")
MODES = ("train", "forward", "prefill", "decode")

SEQ = 4096
NORM = "rms_norm_float32"


class Config(Settings):
    """The defaults of transformers' Gemma4TextConfig."""

    layers: int = setting(30, "layers")
    d_model: int = setting(2304, "width of the residual stream")
    full_layers: tuple[int, ...] = setting((5, 11, 17, 23, 29), "layers without a window, from 0", least=0)
    window: int = setting(512, "positions that the other layers see")
    heads: int = setting(8, "query heads")
    kv_heads: int = setting(4, "key-value heads")
    head_dim: int = setting(256, "width of a head")
    full_kv_heads: int = setting(0, "key-value heads of full layers; 0: as of the others", least=0)
    full_head_dim: int = setting(512, "width of a head of full layers")
    keys_are_values: bool = setting(False, "values of full layers are their keys before norm and rotation")
    shared_layers: int = setting(0, "last layers that read keys and values of earlier ones", least=0)
    attention_bias: bool = setting(False, "attention's projections have a bias")
    attention_dropout: float = ATTENTION_DROPOUT
    d_ff: int = setting(9216, "hidden width of the MLP")
    double_wide: bool = setting(False, "the MLP of layers that share keys and values is twice as wide")
    activation: str = setting("gelu_tanh", "of MLP and experts", choices=ACTIVATIONS)
    experts: int = setting(0, "experts beside each MLP; 0: none", least=0)
    active_experts: int = setting(1, "experts that a token goes to")
    expert_d_ff: int = setting(1, "hidden width of an expert")
    layer_width: int = setting(256, "width of each layer's own embedding of tokens; 0: none", least=0)
    layer_vocab: int = setting(262144, "tokens of that embedding")
    vocab: int = setting(262144, "tokens")
    tied: bool = setting(True, "the head's weight is the embedding's")
    logit_softcap: float = setting(0.0, "logits are kept below this by tanh; 0: not", least=0)
    head: str = setting("lm", "a language model's, or none", choices=("lm", "none"))

    def __post_init__(self) -> None:
        divides("kv_heads", self.kv_heads, "heads", self.heads)
        divides("full_kv_heads", or_else(self.full_kv_heads, self.kv_heads), "heads", self.heads)
        if not is_zero(self.experts):
            at_most("active_experts", self.active_experts, "experts", self.experts)
        if not (is_number(self.layers) and is_number(self.shared_layers)):
            raise InputError("layers", "allowed: one number, since its layers differ")
        at_most("shared_layers", self.shared_layers, "layers - 1", self.layers - 1)
        kinds = [_kind(self, i) for i in range(self.layers)]
        made = {kind.full for kind in kinds if not kind.shared}
        if any(kind.full not in made for kind in kinds):
            raise InputError("shared_layers", "allowed: with an earlier layer of each of their kinds")
        for name in ("head_dim", "full_head_dim"):
            if is_number(width := getattr(self, name)) and width % 2:
                raise InputError(name, f"got {width}, all of it rotated; allowed: even numbers")


class Kind(NamedTuple):
    """What layers differ in."""

    full: bool  # without a window
    shared: bool  # reads an earlier layer's keys and values

    @property
    def type(self) -> str:
        """The name of its keys, values and rotations."""
        return "full" if self.full else "sliding"


def _kind(c: Config, i: int) -> Kind:
    return Kind(i in c.full_layers, i >= c.layers - c.shared_layers)


def build(c: Config, w: Workload) -> Model:
    """Tokens [b, s] to logits [b, s, v]; decode runs one step from cached keys and values."""
    seq = or_else(w.seq, SEQ)
    s = 1 if w.mode == "decode" else seq
    nodes = (*embedding(c), *behind_embedding(c, w.mode, seq))
    return model("gemma4", c, w, nodes, shape(c, w, seq), samples=w.batch, tokens=w.batch * s, seq=seq)


def shape(c: Config, w: Workload, seq: Size) -> dict[str, Size]:
    """The dimensions' sizes, of so many tokens."""
    return {
        "b": w.batch, "s": 1 if w.mode == "decode" else seq, "t": seq, "d": c.d_model, "v": c.vocab,
        "f": c.d_ff, "l": c.layers,
        "p": c.layer_width, "w": c.layer_vocab, "z": c.layers * c.layer_width,
        "e": c.experts, "a": c.active_experts,
    }  # fmt: skip


def embedding(c: Config) -> Iterator[Node]:
    """From tokens to `x: b s d`, and to the embeddings that each layer adds."""
    yield op("embed", "!ids/int64: b s, *embed: ~v d -> x: b s d", "gather", EMBED)
    yield op("embed.scale", "x: -> x:", "scale")
    if not is_zero(c.layer_width):
        yield from _layer_inputs()


def behind_embedding(c: Config, mode: str, seq: Size) -> Iterator[Node]:
    """From `x: b s d` to the end."""
    kinds = [_kind(c, i) for i in range(c.layers)]
    for kind in sorted({kind._replace(shared=False) for kind in kinds}):
        width = c.full_head_dim if kind.full else c.head_dim
        names = f"cos_{kind.type}: s k, sin_{kind.type}: s k"
        yield op(f"rotary_{kind.type}", f"!positions/int64: s -> {names}", "table", k=width)
    yield from window_masks((0, c.window), mode, seq)
    first = 0
    for kind, run in groupby(kinds):
        count = len(list(run))
        yield block(f"{kind.type}{first}", _layer(c, mode, seq, kind), count)
        first += count
    yield norm("norm", NORM)
    if c.head == "none":
        return
    yield from vocabulary(mode, tied=c.tied)
    if c.logit_softcap > 0:
        yield op("head.softcap", "logits: -> logits:", "softcap")
    if mode == "train":
        yield from cross_entropy("logits", upcast=True)


def _layer_inputs() -> Iterator[Node]:
    """The embedding of a token that each layer adds: looked up, and projected from the first embedding."""
    yield op("layer_embed", "!ids/int64: b s, *~w z -> own: b s z", "gather", EMBED)
    yield op("layer_embed.scale", "own: -> own: b s l p", "scale")
    yield op("layer_embed.project", "x: b s d, *d z -> inputs: b s z")
    yield op("layer_embed.project_scale", "inputs: -> inputs: b s l p", "scale")
    yield norm("layer_embed.norm", NORM, "inputs", "inputs", dim="p")
    yield op("layer_embed.add", "inputs:, own: -> inputs:", "add")
    yield op("layer_embed.weigh", "inputs: -> inputs:", "scale")


def _layer(c: Config, mode: str, seq: Size, kind: Kind) -> Iterator[Node]:
    yield norm("norm1", NORM)
    yield from _attend(c, mode, seq, kind)
    yield norm("norm1_out", NORM, "a", "a")
    yield op("residual1", "x:, a: -> x:", "add")
    yield norm("norm2", NORM)
    wide = 2 * c.d_ff if c.double_wide and kind.shared else c.d_ff
    yield from mlp("mlp", c.activation, gated=True, bias=False, f=wide)
    if not is_zero(c.experts):
        yield from _experts(c)
    yield norm("norm2_out", NORM, "m", "m")
    yield op("residual2", "x:, m: -> x:", "add")
    if not is_zero(c.layer_width):
        yield op("own.gate", "x: b s d, *d p -> g: b s p")
        yield activate("own.act", c.activation, "g", tag="")
        yield op("own.input", "inputs: b s l p -> own: b s p", "slice")
        yield op("own.mul", "g:, own: b s p -> g:", "mul")
        yield op("own.project", "g: b s p, *p d -> m: b s d")
        yield norm("own.norm", NORM, "m", "m")
        yield op("residual3", "x:, m: -> x:", "add")
    yield op("scalar", "x: -> x:", "pointwise_")


def _attend(c: Config, mode: str, seq: Size, kind: Kind) -> Iterator[Node]:
    heads = or_else(c.full_kv_heads, c.kv_heads) if kind.full else c.kv_heads
    width = c.full_head_dim if kind.full else c.head_dim
    window: Size = 0 if kind.full else c.window
    a = Attention(
        heads_per_key=exact_div(c.heads, heads),
        mask=mask_name(window),
        dropout=mode == "train" and c.attention_dropout > 0,
    )
    out_bias = ", +*d" if c.attention_bias else ""
    kept = {"t": minimum(seq, window)} if window else {}
    cached = kept if mode == "decode" else {}  # a prompt's queries see its own keys, whatever is kept of them
    yield from sized(
        (
            *_keys_and_values(c, mode, kind, kept, cached),
            *mix("attn", a, window=0 if cached else window, **cached),
            op("attn.o", f"y: b s h r k, *h r k d{out_bias} -> a: b s d", tag=OUTPUT),
        ),
        h=heads, r=exact_div(c.heads, heads), k=width,
    )  # fmt: skip


def _keys_and_values(
    c: Config, mode: str, kind: Kind, kept: dict[str, Size], cached: dict[str, Size]
) -> Iterator[Node]:
    """Queries; and keys and values of its own, or of the last layer of its kind that has some.

    kept: how many of them the cache holds, where that is not all; cached: how many of them queries see.
    """
    q_bias, bias = (", +*h r k", ", +*h k") if c.attention_bias else ("", "")
    table = f"cos_{kind.type}:, sin_{kind.type}:"
    yield op("attn.q", f"n: b s d, *d h r k{q_bias} -> q: b s h r k", tag=QUERY)
    yield norm("attn.q_norm", NORM, "q", "q", dim="k")
    yield op("attn.q_rope", f"q:, {table} -> q:", "rope")
    length = "t" if mode == "decode" else "s"
    for name in ("k", "v") if kind.shared else ():
        yield op(f"attn.{name}_shared", f"{name}_{kind.type}: b {length} h k -> {name}:", "view", **cached)
    if kind.shared:
        return
    yield op("attn.k", f"n: b s d, *d h k{bias} -> k: b s h k", tag=KEY)
    source = "k"
    if not (c.keys_are_values and kind.full):
        yield op("attn.v", f"n: b s d, *d h k{bias} -> v: b s h k", tag=VALUE)
        source = "v"
    yield norm("attn.v_norm", "rms_norm_plain", source, "v", dim="k")
    yield norm("attn.k_norm", NORM, "k", "k", dim="k")
    yield op("attn.k_rope", f"k:, {table} -> k:", "rope")
    yield from cache("attn", mode, ("k", "b s h k", "b t h k"), ("v", "b s h k", "b t h k"), **kept)
    for name in ("k", "v"):
        yield op(f"attn.{name}_left", f"{name}: b {length} h k -> {name}_{kind.type}:", "view", **cached)


def _experts(c: Config) -> Iterator[Node]:
    """Experts beside the MLP, on the MLP's input; both have norms of their own behind them."""
    yield norm("mlp.norm_out", NORM, "m", "dense")
    yield norm("router.norm", "rms_norm_plain", "x", "routed")
    yield op("router.weigh", "routed: b s d, *d -> routed:", "mul")
    yield op("router.scale", "routed: -> routed:", "scale")
    yield op("router.logits", "routed: b s d, *d e -> rl: b s e", tag=ROUTER)
    yield op("router.softmax", "rl: -> rp/float32:", "softmax")
    yield op("router.top_k", "rp: b s e -> chosen: b s a", "top_k")
    yield op("router.normalize", "chosen: -> chosen:", "normalize")
    yield op("router.scales", "!choice/int64: b s a, *~e -> scales: b s a", "gather")
    yield op("router.scaled", "chosen:, scales: b s a -> chosen:", "mul")
    yield norm("experts.norm", NORM, "x", "sent")
    m = Experts(activation=c.activation, f=c.expert_d_ff)
    yield from part(MOE, chosen("experts", m, "sent", "m"))
    yield norm("experts.norm_out", NORM, "m", "m")
    yield op("experts.add", "dense:, m: -> m:", "add")
