"""DeBERTa-v2 and v3: encoders with disentangled attention: content with content, and content with positions.

Every distance between two tokens has an embedding, in one table for all layers. Queries are multiplied with
the distances projected as keys, keys with the distances projected as queries; a gather then picks, for each
pair of tokens, the column of its distance. No fused kernel exists for it. Source: transformers.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..config import Settings, Workload, at_most, divides, setting
from ..ir import EMBED, KEY, MIX, OUTPUT, QUERY, SCORES, VALUE, Model, Node, Op, block, model, op
from ..size import exact_div, is_zero, or_else
from ._heads import HEADS, ends, head
from ._layers import ACTIVATIONS, ATTENTION_DROPOUT, dropout, mlp, norm

TAKES = ("batch", "seq")
MODES = ("train", "forward")


class Config(Settings):
    """The defaults are DeBERTa-v3-base's encoder: 183,831,552 parameters."""

    layers: int = setting(12, "layers")
    d_model: int = setting(768, "width of the residual stream")
    heads: int = setting(12, "attention heads")
    d_ff: int = setting(3072, "hidden width of the MLP")
    vocab: int = setting(128100, "vocabulary")
    context: int = setting(512, "longest sequence, and the default length")
    token_types: int = setting(0, "token types, each with an embedding", least=0)
    absolute: bool = setting(False, "positions have an embedding that is added to the tokens'")
    distances: int = setting(512, "distances between tokens, each with an embedding; 0: none", least=0)
    shared_projections: bool = setting(True, "distances are projected as tokens are, by the same weights")
    distance_norm: bool = setting(True, "a norm of the distances' embeddings")
    activation: str = setting("gelu", "of the MLP and the masked model's head", choices=ACTIVATIONS)
    head: str = setting("none", "a masked language model's, a classifier's, or none", choices=HEADS)
    labels: int = setting(2, "outputs of a classifier", least=0)
    tied: bool = setting(True, "the output projection is the embedding")
    pooler: bool = setting(False, "a dense layer on the first token")
    pooler_activation: str = setting("gelu", "of the pooler", choices=ACTIVATIONS)
    dropout: float = setting(
        0.0, "training: part of what attention and MLP add that is dropped", least=0, most=1
    )
    embed_dropout: float = setting(0.0, "training: part of the embeddings that is dropped", least=0, most=1)
    attention_dropout: float = ATTENTION_DROPOUT
    head_dropout: float = setting(
        0.0, "training: part of a classifier's input that is dropped", least=0, most=1
    )

    # Fields that heads read of a transformer's config (arch/_heads.py), and that are the same in every
    # DeBERTa.
    kind, norm, head_activation = "encoder", "layer_norm", ""
    norm_bias = head_bias = head_dense_bias = True
    embed_norm, head_transform, embed_dim, projection = True, False, 0, 0
    logit_scale, logit_softcap = False, 0.0

    @property
    def tied_bias(self) -> bool:
        """Whether an output projection shares the head's bias: where it is the embedding."""
        return self.tied

    def __post_init__(self) -> None:
        divides("heads", self.heads, "d_model", self.d_model)


def build(c: Config, w: Workload) -> Model:
    """Token numbers [b, s] to logits [b, s, v], or to hidden states where there is no head."""
    seq = or_else(w.seq, c.context)
    at_most("seq", seq, "context", c.context)
    sizes = {
        "b": w.batch, "s": seq, "t": seq, "d": c.d_model, "v": c.vocab, "h": c.heads,
        "k": exact_div(c.d_model, c.heads), "f": c.d_ff, "p": c.distances, "q": c.context, "g": c.token_types,
    }  # fmt: skip
    nodes, tokens = _nodes(c, w.mode), w.batch * seq
    return model("deberta", c, w, nodes, sizes, samples=w.batch, tokens=tokens, outputs=ends(c, w.mode))


def _nodes(c: Config, mode: str) -> Iterator[Node]:
    yield op("embed.tokens", "!ids/int64: b s, *wte: ~v d -> x: b s d", "gather", EMBED)
    if c.absolute:
        yield op("embed.positions", "!positions/int64: s, *~q d -> pe: s d", "gather")
        yield op("embed.add_positions", "x:, pe: -> x:", "add")
    if not is_zero(c.token_types):
        yield op("embed.types", "!types/int64: b s, *~g d -> te: b s d", "gather")
        yield op("embed.add_types", "x:, te: -> x:", "add")
    yield norm("embed.norm", "layer_norm", "x", "x")
    yield op("embed.mask", "x: -> x:", "scale")
    yield from dropout("embed", c.embed_dropout, mode, "x")
    yield op("mask", "!positions/int64: s -> mask/bool: b s t", "table")
    if not is_zero(c.distances):
        yield op("distances", "!positions/int64: s -> between/int64: s t", "table")
        if c.distance_norm:
            yield op("distances.norm", "*distances: p d, *d, +*d -> far: p d", "layer_norm")
        else:
            yield op("distances.far", "*distances: p d -> far: p d", "view")
    yield block("layers", _layer(c, mode), c.layers)
    yield from head(c, mode)


def _layer(c: Config, mode: str) -> Iterator[Node]:
    """Attention and MLP, each with a norm behind its addition."""
    yield from _attention(c, mode)
    yield from dropout("attn", c.dropout, mode, "a")
    yield op("residual1", "a:, x: -> x:", "add")
    yield norm("norm1", "layer_norm", "x", "x")
    yield from mlp("mlp", c.activation, x="x")
    yield from dropout("mlp", c.dropout, mode, "m")
    yield op("residual2", "m:, x: -> x:", "add")
    yield norm("norm2", "layer_norm", "x", "x")


def _attention(c: Config, mode: str) -> Iterator[Op]:
    yield op("attn.q", "x: b s d, *wq: d h k, +*bq: h k -> q: b s h k", tag=QUERY)
    yield op("attn.k", "x: b s d, *wk: d h k, +*bk: h k -> k: b s h k", tag=KEY)
    yield op("attn.v", "x: b s d, *d h k, +*h k -> v: b s h k", tag=VALUE)
    yield op("attn.q_heads", "q: -> q: b h s k", "copy")
    yield op("attn.k_heads", "k: b s h k -> k: b h t k", "copy")
    yield op("attn.v_heads", "v: b s h k -> v: b h t k", "copy")
    yield op("attn.k_scale", "k: -> ks:", "scale")
    yield op("attn.scores", "q: b h s k, ks: b h t k -> w: b h s t", tag=SCORES)
    if not is_zero(c.distances):
        yield from _distances(c, mode)
        yield op("attn.add_distances", "w: b h s t, near: b h s t -> w:", "add")
    yield op("attn.hidden", "mask: b s t -> hidden/bool: b s t", "table")
    yield op("attn.mask", "w: b h s t, hidden: b s t -> w:", "masked_fill")
    yield op("attn.softmax", "w: -> p:", "softmax")
    if mode == "train" and c.attention_dropout:
        yield op("attn.drop_weights", "p: -> p:", "dropout")
    yield op("attn.mix", "p: b h s t, v: b h t k -> o: b h s k", tag=MIX)
    yield op("attn.merge", "o: b h s k -> y: b s h k", "copy")
    yield op("attn.o", "y: b s h k, *h k d, +*d -> a: b s d", tag=OUTPUT)


def _distances(c: Config, mode: str) -> Iterator[Op]:
    """Scores of content with positions, `near: b h s t`."""
    yield op("attn.far", "far: p d -> r: p d", "view")
    yield from dropout("attn.far", c.dropout, mode, "r")
    own = (
        ("*wq: d h k, +*bq: h k", "*wk: d h k, +*bk: h k") if c.shared_projections else ("*d h k, +*h k",) * 2
    )
    yield op("attn.far_q", f"r: p d, {own[0]} -> rq: p h k")
    yield op("attn.far_k", f"r: p d, {own[1]} -> rk: p h k")
    yield op("attn.far_q_heads", "rq: p h k -> rq: b h p k", "repeat")
    yield op("attn.far_k_heads", "rk: p h k -> rk: b h p k", "repeat")
    yield op("attn.c2p", "q: b h s k, rk: b h p k -> c2p: b h s p")
    yield op("attn.c2p_index", "between: s t -> i/int64: s t", "table")
    yield op("attn.c2p_take", "c2p: b h s p, i: s t -> c2p: b h s t", "take")
    yield op("attn.c2p_scale", "c2p: -> c2p:", "scale")
    yield op("attn.p2c", "k: b h t k, rq: b h p k -> p2c: b h t p")
    yield op("attn.p2c_index", "between: s t -> i/int64: s t", "table")
    yield op("attn.p2c_take", "p2c: b h t p, i: s t -> p2c: b h s t", "take")
    yield op("attn.p2c_scale", "p2c: -> p2c:", "scale")
    yield op("attn.both", "c2p:, p2c: -> near:", "add")
