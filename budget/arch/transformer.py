"""Single-stack transformers: decoders (GPT-2 to DeepSeek-V3) and encoders (BERT)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from math import lcm

from ..config import Settings, Workload, at_most, divides, setting
from ..errors import InputError, wrong
from ..ir import EMBED, Model, Node, Op, model, op
from ..size import Size, exact_div, is_number, is_zero, minimum, or_else
from ._attention import alibi, distances, rotary, window_mask, window_masks
from ._heads import HEADS, ends, head
from ._layers import ACTIVATIONS, ATTENTION_DROPOUT, NORMS, dropout, norm
from ._periods import stack
from ._stacked import is_masked, kinds, kv_heads, layer

TAKES = ("batch", "seq")
MODES = ("train", "forward", "prefill", "decode")

ROUTERS = ("softmax", "sigmoid", "top_softmax", "top_sigmoid")
LONGEST = 8192  # default length of models whose context is longer


class Config(Settings):
    """The defaults are GPT-2's, the smallest: 124,439,808 parameters."""

    kind: str = setting("decoder", "decoders attend to the past only", choices=("decoder", "encoder"))
    layers: int = setting(12, "layers")
    d_model: int = setting(768, "width of the residual stream")
    heads: int = setting(12, "query heads")
    kv_heads: int = setting(0, "key-value heads; 0: as many as heads, 1: multi-query", least=0)
    broadcast_keys: bool = setting(False, "a single key-value head is left to broadcasting (Falcon's code)")
    head_dim: int = setting(0, "width of a head; 0: d_model / heads", least=0)
    d_ff: int = setting(0, "hidden width of the MLP; 0: 4 x d_model", least=0)
    vocab: int = setting(50257, "vocabulary")
    context: int = setting(1024, "longest sequence, and the length without --seq; a preset's own up to 8,192")
    embed_dim: int = setting(0, "width of the embedding; 0: d_model, else projected to it", least=0)
    token_types: int = setting(0, "token types, each with an embedding (BERT: 2)", least=0)

    positions: str = setting("learned", "how positions enter", choices=("learned", "rotary", "alibi", "none"))
    buckets: int = setting(
        0, "distances for each of which a head's scores learn a summand (MPNet); 0: none", least=0
    )
    position_offset: int = setting(0, "rows of the position table that no position uses (OPT: 2)", least=0)
    rotary_fraction: float = setting(1.0, "part of head_dim that is rotated", least=0)
    rotary_float32: bool = setting(False, "rotated in float32 (Cohere's and OLMo's code)")
    rotary_apart: bool = setting(False, "a head's rotated part and its rest stay in variables (Phi's code)")
    rotated: tuple[int, ...] = setting((1,), "whether each layer in turn rotates: 1 or 0", least=0)
    norm: str = setting("layer_norm", "kind of all norms", choices=NORMS)
    norm_bias: bool = setting(True, "layer norms have a bias")
    embed_norm: bool = setting(False, "a norm behind the embedding")
    first_norm: bool = setting(True, "the first layer has a norm before attention (not ModernBERT's)")
    final_norm: bool = setting(True, "a norm behind the last layer")
    residual: str = setting(
        "pre",
        "norms before attention and MLP, behind them, behind their additions, before and behind them; "
        "or both side by side behind one norm (parallel) or two",
        choices=("pre", "output", "post", "sandwich", "parallel", "parallel_two_norms"),
    )
    activation: str = setting("gelu_new", "of the MLP", choices=(*ACTIVATIONS, "clamped_glu"))
    gated: bool = setting(False, "the MLP multiplies two projections, one of them activated")
    fused_gate: bool = setting(False, "those two are one projection")
    qkv_bias: bool = setting(True, "queries, keys and values have a bias")
    out_bias: bool = setting(True, "attention's output has a bias")
    mlp_bias: bool = setting(True, "the MLP's projections have a bias")
    fused_qkv: bool = setting(True, "queries, keys and values are one projection")
    heads_first: bool = setting(False, "rotated queries are copied, laid out by heads (litgpt's code)")
    qk_norm: bool = setting(False, "a norm of each head's queries and keys")
    qk_norm_rotated: bool = setting(False, "one without weights of those that were rotated (Llama 4)")
    temperature: bool = setting(False, "queries that are not rotated are scaled by position (Llama 4)")
    qk_norm_heads: bool = setting(False, "with weights for all heads, not some that they share")
    scale_scores: bool = setting(True, "scores are divided by the root of head_dim")
    scale_queries: bool = setting(False, "queries are divided by it as well (OPT's code)")
    softmax_float32: bool = setting(False, "attention's softmax is computed in float32")
    softcap: float = setting(0.0, "scores are kept below this by tanh; 0: not", least=0)
    sinks: bool = setting(False, "a learned score for each head that only takes part in the softmax")
    windows: tuple[int, ...] = setting(
        (0,), "window of each layer in turn, an encoder's to each side; 0: all", least=0
    )
    share_layers: bool = setting(False, "all layers use the same weights (ALBERT)")
    embed_scale: bool = setting(False, "embeddings are multiplied by a constant (Gemma)")

    head: str = setting(
        "lm", "a (masked) language model's, a classifier's, a projection, or none", choices=HEADS
    )
    labels: int = setting(2, "outputs of a classifier", least=0)
    projection: int = setting(0, "width of one token's state, projected (CLIP, SigLIP); 0: d_model", least=0)
    head_activation: str = setting(
        "", "of a masked model's head; empty: the MLP's", choices=("", *ACTIVATIONS)
    )
    head_transform: bool = setting(False, "a dense layer before the classifier of tokens (ELECTRA)")
    head_dense_bias: bool = setting(True, "the dense layer of a masked model's head has a bias")
    head_bias: bool = setting(False, "the output projection has a bias")
    loss_float32: bool = setting(True, "a decoder's loss is of logits in float32")
    tied: bool = setting(True, "the output projection is the embedding")
    logit_scale: bool = setting(False, "logits are multiplied by a constant (Cohere's and Granite's code)")
    logit_softcap: float = setting(0.0, "logits are kept below this by tanh; 0: not", least=0)
    tied_bias: bool = setting(True, "an output projection of its own shares the head's bias (not BERT's)")
    pooler: bool = setting(False, "a dense layer on the first token (BERT)")
    pooler_activation: str = setting("tanh", "of the pooler", choices=("tanh", "gelu", "relu"))
    dropout: float = setting(
        0.0, "training: part of what attention and MLP add that is dropped", least=0, most=1
    )
    dropout_mlp_only: bool = setting(False, "only of what the MLP adds (DistilBERT)")
    embed_dropout: float = setting(0.0, "training: part of the embeddings that is dropped", least=0, most=1)
    attention_dropout: float = ATTENTION_DROPOUT
    head_dropout: float = setting(
        0.0, "training: part of a classifier's input that is dropped", least=0, most=1
    )

    experts: int = setting(0, "experts of each layer; 0: a plain MLP", least=0)
    active_experts: int = setting(2, "experts that a token goes to")
    expert_d_ff: int = setting(0, "hidden width of an expert; 0: d_ff", least=0)
    shared_d_ff: int = setting(0, "hidden width of experts that every token goes to; 0: none", least=0)
    shared_gate: bool = setting(False, "a gate weighs the shared expert")
    router: str = setting("softmax", "what turns scores into weights", choices=ROUTERS)
    every_expert: bool = setting(
        False, "each token goes through all experts where transformers' code runs (Llama 4), not in an engine"
    )
    router_bias: bool = setting(False, "the router has a bias")
    router_correction: bool = setting(False, "a bias that is not trained takes part in the choice of experts")
    expert_bias: bool = setting(False, "experts have biases")
    weighs_in_float32: bool = setting(False, "what experts make is weighed and added up in float32 (Mixtral)")
    normalize_experts: bool = setting(True, "the weights of a token's experts add up to one")
    dense_layers: int = setting(0, "first layers that have a plain MLP all the same", least=0)
    sparse_every: int = setting(1, "of the others, every so many have experts")

    kv_latent: int = setting(0, "width of the latent vector of keys and values; 0: plain attention", least=0)
    q_latent: int = setting(0, "width of the latent vector of queries; 0: none", least=0)
    rope_head_dim: int = setting(64, "part of head_dim that is rotated, with latent attention")
    index_heads: int = setting(
        0, "heads that choose what queries see, with latent attention; 0: none", least=0
    )
    index_dim: int = setting(128, "their width")
    index_topk: int = setting(2048, "positions that they choose for a query")
    value_head_dim: int = setting(0, "width of a head's values with latent attention; 0: head_dim", least=0)

    def __post_init__(self) -> None:
        if is_zero(self.head_dim):
            divides("heads", self.heads, "d_model", self.d_model)
        if not is_zero(self.kv_heads):
            divides("kv_heads", self.kv_heads, "heads", self.heads)
        if not is_zero(self.experts):
            at_most("active_experts", self.active_experts, "experts", self.experts)
        at_most("dense_layers", self.dense_layers, "layers", self.layers)
        if not self.first_norm and (self.residual != "pre" or not is_zero(self.experts)):
            raise InputError("first_norm", "got false; allowed with residual pre and without experts")
        if not is_zero(self.kv_latent):
            at_most("rope_head_dim", self.rope_head_dim, "head_dim", self.width)
        if not is_zero(self.index_heads) and (is_zero(self.kv_latent) or is_zero(self.q_latent)):
            raise InputError("index_heads", "allowed: 0, or with kv_latent and q_latent")
        if self.rotary_fraction > 1:
            raise wrong("rotary_fraction", self.rotary_fraction, "0 to 1")
        if self.positions == "rotary" and is_zero(self.kv_latent) and is_number(self.width):
            if self.rotary_fraction == 1 and self.width % 2:
                raise InputError("head_dim", f"got {self.width}, all of it rotated; allowed: even numbers")
            if int(self.width * self.rotary_fraction) == 1:  # pairs are rotated
                raise InputError(
                    "head_dim", f"got {self.width}, of which 1 is rotated; allowed: 2 or more of it"
                )
        if self.period > 1 and not is_number(self.layers):
            raise InputError("layers", "allowed: one number where layers differ")

    @property
    def period(self) -> int:
        """Number of layers after which the kinds of layers repeat."""
        return lcm(len(self.windows), len(self.rotated), 1 if is_zero(self.experts) else self.sparse_every)

    @property
    def width(self) -> Size:
        """head_dim, derived where it is not given."""
        return exact_div(self.d_model, self.heads) if is_zero(self.head_dim) else self.head_dim


def build(c: Config, w: Workload) -> Model:
    """Token numbers [b, s] to logits [b, s, v], or to hidden states where there is no head."""
    if w.mode == "decode" and c.kind == "encoder":
        raise InputError("mode", "got decode; allowed for an encoder: train, forward, prefill")
    if c.kind == "encoder" and w.mode == "prefill":  # which has no cache to fill
        w = w._replace(mode="forward")
    seq = length(c, w)
    sizes, tokens = shape(c, w, seq), w.batch * (1 if w.mode == "decode" else seq)
    nodes = (*embedding(c, w.mode), *behind_embedding(c, w.mode, seq))
    return model(
        "transformer",
        c,
        w,
        nodes,
        sizes,
        samples=w.batch,
        tokens=tokens,
        outputs=ends(c, w.mode),
        seq=seq,
    )


def length(c: Config, w: Workload) -> Size:
    """Tokens of a sequence: the workload's, or the usual. Raises InputError beyond the table of positions."""
    seq = or_else(w.seq, minimum(c.context, LONGEST))
    if c.positions == "learned":
        at_most("seq", seq, "context", c.context)
    return seq


def shape(c: Config, w: Workload, seq: Size) -> dict[str, Size]:
    """The dimensions' sizes, for sequences of so many tokens."""
    queries = 1 if w.mode == "decode" else seq
    rotated = c.width * c.rotary_fraction if is_zero(c.kv_latent) else c.rope_head_dim
    return {
        "b": w.batch, "s": queries, "t": seq, "d": c.d_model, "v": c.vocab,
        "c": or_else(c.embed_dim, c.d_model),
        "h": kv_heads(c), "r": exact_div(c.heads, kv_heads(c)), "k": c.width,
        "m": int(rotated) if is_number(rotated) else rotated, "f": or_else(c.d_ff, 4 * c.d_model),
        "e": c.experts, "a": c.active_experts, "p": c.context + c.position_offset, "g": c.token_types,
    }  # fmt: skip


def behind_embedding(c: Config, mode: str, seq: Size, between: tuple[Op, ...] = ()) -> Iterator[Node]:
    """From embedded tokens `x: b s d` to the head's output. between: operators after the first layers, one
    for each (Qwen3-VL).
    """
    if c.positions == "rotary":
        yield rotary("m")
    if c.positions == "alibi":
        yield alibi()
    if not is_zero(c.buckets):
        yield from distances("relative", "u", c.buckets)
    masks = len(set(c.windows))
    if c.kind == "encoder" and max(c.windows) > 0:
        yield from window_mask(beside=16 if masks > 1 else 0)
    elif is_masked(c, max(c.windows)):
        for mask in window_masks(c.windows, mode, seq):
            yield mask._replace(beside=(17 if masks > 1 else 0, 0))
    dense = 0 if is_zero(c.experts) else c.dense_layers
    one = partial(layer, c, mode, seq)
    if not is_zero(dense):
        yield from stack("dense_layers", kinds(c, 0, sparse=False), dense, one)
    if not c.first_norm:
        first = kinds(c, 0, sparse=False)[0]._replace(normed=False)
        yield from stack("first_layer", (first,), 1, one)
        dense = 1
    for i, o in enumerate(between):
        yield from stack(f"layer{i}", kinds(c, dense, sparse=not is_zero(c.experts))[:1], 1, one)
        yield o
        dense += 1
    layers = kinds(c, dense, sparse=not is_zero(c.experts))
    yield from stack("layers", layers, c.layers - dense, one, shared=c.share_layers)
    if c.final_norm:
        held = ("embeds", "pe") if _is_added(c) else ()
        yield norm("norm", c.norm, "x", "x", bias=c.norm_bias)._replace(callers=held)
    yield from head(c, mode)


def embedding(c: Config, mode: str) -> Iterator[Node]:
    """Tokens, their types and positions.

    A narrow embedding is projected before positions are added (OPT), or behind its norm where it
    has one (ALBERT).
    """
    e = "d" if is_zero(c.embed_dim) else "c"
    x = "embeds" if _is_added(c) else "x"
    tokens = op("embed.tokens", f"!ids/int64: b s, *wte: ~v {e} -> {x}: b s {e}", "gather", EMBED)
    yield tokens._replace(beside=_counted(c, mode))
    if c.embed_scale:
        yield op("embed.scale", f"{x}: -> {x}:", "scale")
    if not is_zero(c.token_types):
        yield op("embed.types", f"!types/int64: b s, *~g {e} -> te: b s {e}", "gather")
        yield op("embed.add_types", f"{x}:, te: -> {x}:", "add")
    if e == "c" and not c.embed_norm:
        yield op("embed.project", f"{x}: b s c, *c d -> {x}: b s d")
        e = "d"
    if c.positions == "learned":
        yield op("embed.positions", f"!positions/int64: s, *wpe: ~p {e} -> pe: s {e}", "gather")
        yield op("embed.add_positions", f"{x}:, pe: -> x:", "add")
    if c.embed_norm:
        yield norm("embed.norm", c.norm, "x", "x", bias=c.norm_bias, dim=e)
    yield from dropout("embed", c.embed_dropout, mode, "x")
    if e == "c":
        yield op("embed.project", "x: b s c, *c d, +*d -> x: b s d")


def _is_added(c: Config) -> bool:
    """Whether its class adds positions to embeddings; variables hold both while layers run."""
    return c.kind == "decoder" and c.positions == "learned"


def _counted(c: Config, mode: str) -> tuple[int, int]:
    """Kernels that make positions: a decoder without a cache searches them for packed sequences, an encoder
    with unused rows counts them from the tokens (RoBERTa). Source: transformers.
    """
    if c.kind == "decoder":
        return (9 if mode == "train" else 2), 0
    return (0 if is_zero(c.position_offset) else 9), 0
