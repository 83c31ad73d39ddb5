"""Hybrids of attention layers with state spaces, gated delta rules or gated convolutions.

A layer is a mixer or attention, then an MLP or experts (Jamba); both beside each other, then an MLP
(Falcon-H1); or one of the four alone (Nemotron-H).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from ..config import Settings, Workload, at_most, divides, setting
from ..errors import InputError, wrong
from ..ir import EMBED, Model, Node, block, model, op
from ..named import NamedTuple
from ..size import Size, ceil_div, exact_div, is_number, is_zero, or_else
from ._attention import Attention, attention, causal_mask, rotary
from ._delta import Delta, gated_delta
from ._heads import of_tokens, vocabulary
from ._layers import ACTIVATIONS, ATTENTION_DROPOUT, Experts, dropout, experts, mlp, norm
from ._loss import cross_entropy
from ._mamba import Mixer, gated_convolution, mamba, mamba2

TAKES = ("batch", "seq")
MODES = ("train", "forward", "prefill", "decode")

SEQ = 4096
ROUTERS = ("softmax", "top_softmax", "sigmoid")


class Kind(NamedTuple):
    """A layer: its token mixer (mamba, attention, or both beside each other), and its MLP (or experts); "":
    none.
    """

    mixer: str
    mlp: str

    @property
    def name(self) -> str:
        """The name of a block of such layers."""
        return self.mixer or self.mlp


LETTERS = {
    "M": Kind("mamba", ""), "*": Kind("attention", ""), "-": Kind("", "mlp"), "E": Kind("", "experts"),
}  # fmt: skip


class Config(Settings):
    """Jamba-v0.1: every eighth layer attends, every second has experts."""

    layers: int = setting(32, "layers")
    pattern: str = setting(
        "", "layers that are one part each, a letter for each of them: M mixer, * attention, - MLP, E experts"
    )
    beside: bool = setting(False, "each layer has a mixer and attention beside each other, then an MLP")
    d_model: int = setting(4096, "width of the residual stream")
    attention_layers: tuple[int, ...] = setting(
        (4, 12, 20, 28), "layers that attend, counted from 0", least=0
    )
    heads: int = setting(32, "attention: query heads")
    head_dim: int = setting(0, "attention: width of a head; 0: d_model / heads", least=0)
    kv_heads: int = setting(8, "attention: key-value heads")
    rotary_fraction: float = setting(0.0, "attention: part of a head that is rotated", least=0)
    attention_gate: bool = setting(False, "attention: what heads make goes through gates (Qwen3-Next)")
    attention_bias: bool = setting(False, "attention's projections have a bias")
    d_ff: int = setting(14336, "hidden width of the MLP and, if they have none of their own, of each expert")
    activation: str = setting("silu", "of MLPs and experts", choices=ACTIVATIONS)
    gated: bool = setting(True, "MLPs and experts multiply two projections, one of them activated")
    norm: str = setting("rms_norm", "kind of all norms", choices=("rms_norm", "rms_norm_plus_one"))
    scaled: bool = setting(
        False, "keys, logits and what parts take and make are multiplied by constants (Falcon-H1)"
    )
    mlp_bias: bool = setting(False, "the MLP's projections have a bias")
    embed_scale: bool = setting(False, "embeddings are multiplied by a constant (Granite)")
    experts: int = setting(16, "experts of a layer that has them")
    active_experts: int = setting(2, "experts that a token goes to")
    shared_d_ff: int = setting(0, "hidden width of an expert that every token goes to; 0: none", least=0)
    shared_gate: bool = setting(False, "a gate weighs that expert")
    expert_d_ff: int = setting(0, "hidden width of an expert; 0: d_ff", least=0)
    expert_latent: int = setting(0, "width in which experts work; 0: d_model", least=0)
    router: str = setting("softmax", "what turns scores into weights", choices=ROUTERS)
    normalize_experts: bool = setting(False, "the weights of a token's experts add up to one")
    expert_layers: tuple[int, ...] = setting(tuple(range(1, 32, 2)), "layers with experts, from 0", least=0)
    qk_norm: bool = setting(False, "attention: a norm of each head's queries and keys")
    mamba_version: int = setting(
        1, "1: Mamba with norms inside (Jamba), 2: Mamba-2 (Bamba), 3: the gated delta rule (Qwen3-Next), "
        "0: a gated convolution (LFM2)", least=0,
    )  # fmt: skip
    expand: int = setting(2, "mixer: inner width, in d_model")
    state_size: int = setting(16, "mixer: width of a channel's state; of a delta rule's keys")
    conv_kernel: int = setting(4, "mixer: taps of the causal convolution")
    dt_rank: int = setting(0, "Mamba: rank of the step size's projection; 0: d_model / 16", least=0)
    mamba_heads: int = setting(128, "Mamba-2, delta rule: heads")
    mamba_head_dim: int = setting(
        0, "Mamba-2, delta rule: width of a head; 0: expand x d_model / heads", least=0
    )
    groups: int = setting(1, "Mamba-2: groups of heads that share B and C; delta rule: queries and keys")
    split_inputs: bool = setting(False, "delta rule: gate, strength and decay have their own projections")
    mamba_norm: bool = setting(True, "Mamba-2: a norm behind the gate")
    mamba_norm_grouped: bool = setting(False, "Mamba-2: that norm is of each group by itself")
    chunk: int = setting(256, "Mamba-2: steps that are worked through as an attention")
    mamba_bias: bool = setting(False, "the projections into and out of a mixer have a bias")
    mamba_out_bias: bool = setting(False, "Mamba-2: the one out of it has")
    conv_bias: bool = setting(True, "the convolution has a bias")
    vocab: int = setting(65536, "tokens")
    tied: bool = setting(False, "the head's weight is the embedding's")
    head: str = setting(
        "lm",
        "a language model's, none, or a classifier of the last token or of each",
        choices=("lm", "none", "last", "tokens"),
    )
    labels: int = setting(2, "outputs of a classifier", least=0)
    head_dropout: float = setting(
        0.0, "training: part of a classifier's input that is dropped", least=0, most=1
    )
    attention_dropout: float = ATTENTION_DROPOUT

    def __post_init__(self) -> None:
        if is_zero(self.head_dim):
            divides("heads", self.heads, "d_model", self.d_model)
        divides("kv_heads", self.kv_heads, "heads", self.heads)
        at_most("active_experts", self.active_experts, "experts", self.experts)
        if self.mamba_version not in (0, 1, 2, 3):
            raise wrong("mamba_version", self.mamba_version, "0, 1, 2 or 3")
        if self.mamba_version >= 2:
            if is_zero(self.mamba_head_dim):
                divides("mamba_heads", self.mamba_heads, "expand x d_model", self.expand * self.d_model)
            divides("groups", self.groups, "mamba_heads", self.mamba_heads)
        if self.rotary_fraction > 1:
            raise wrong("rotary_fraction", self.rotary_fraction, "0 to 1")
        width = (
            or_else(self.head_dim, exact_div(self.d_model, self.heads)) if self.rotary_fraction == 1 else 0
        )
        if is_number(width) and width % 2:
            raise InputError("head_dim", f"got {width}, all of it rotated; allowed: even numbers")
        if not is_number(self.layers):
            raise InputError("layers", "allowed: one number, since its layers differ")
        if self.pattern and (set(self.pattern) - set(LETTERS) or len(self.pattern) != self.layers):
            letters = ", ".join(LETTERS)
            raise InputError("pattern", f"allowed: for each of {self.layers} layers one of {letters}")


def build(c: Config, w: Workload) -> Model:
    """Tokens [b, s] to logits [b, s, v]; decode runs one step from cached keys, values and states."""
    seq = or_else(w.seq, SEQ)
    s = 1 if w.mode == "decode" else seq
    nodes = (*embedding(c), *behind_embedding(c, w.mode, s))
    return model("hybrid", c, w, nodes, shape(c, w, seq), samples=w.batch, tokens=w.batch * s, seq=seq)


def shape(c: Config, w: Workload, seq: Size) -> dict[str, Size]:
    """The dimensions' sizes, for sequences of so many tokens."""
    head_dim = or_else(c.head_dim, exact_div(c.d_model, c.heads))
    rotated = head_dim * c.rotary_fraction
    return {
        "b": w.batch, "s": 1 if w.mode == "decode" else seq, "t": seq, "d": c.d_model, "v": c.vocab,
        "f": c.d_ff, "e": c.experts,
        "a": c.active_experts, "h": c.kv_heads, "r": exact_div(c.heads, c.kv_heads), "k": head_dim,
        "m": int(rotated) if is_number(rotated) else rotated,
    }  # fmt: skip


def embedding(c: Config) -> Iterator[Node]:
    """From tokens to `x: b s d`."""
    yield op("embed", "!ids/int64: b s, *embed: ~v d -> x: b s d", "gather", EMBED)
    if c.embed_scale:
        yield op("embed.scale", "x: -> x:", "scale")


def behind_embedding(c: Config, mode: str, s: Size) -> Iterator[Node]:
    """From embedded tokens `x: b s d` to the head's output."""
    if c.rotary_fraction:
        yield rotary("m")
    yield causal_mask()
    kinds = [_kind(c, i) for i in range(c.layers)]
    period = next(p for p in range(1, c.layers + 1) if kinds == kinds[:p] * (c.layers // p))
    yield block("layers", _runs(c, mode, s, kinds[:period]), c.layers // period)
    yield norm("norm", c.norm)
    if c.head == "none":
        return
    if c.head in ("last", "tokens"):
        yield from dropout("head", c.head_dropout, mode, "n")
        yield from of_tokens(c.labels, mode, "n", last=c.head == "last", bias=c.head == "tokens")
        return
    yield from vocabulary(mode, tied=c.tied)
    if c.scaled:
        yield op("head.scale", "logits: -> logits:", "scale")
    if mode == "train":
        yield from cross_entropy("logits", upcast=True)


def _kind(c: Config, i: int) -> Kind:
    if c.pattern:
        return LETTERS[c.pattern[i]]
    mixer = "attention" if i in c.attention_layers else "mamba"
    mlp = "experts" if i in c.expert_layers else "mlp"
    return Kind("beside" if c.beside else mixer, mlp)


def _runs(c: Config, mode: str, s: Size, kinds: list[Kind]) -> Iterator[Node]:
    """Consecutive layers of one kind are one block."""
    for i, (kind, run) in enumerate(groupby(kinds)):
        yield block(f"{kind.name}{i}", _layer(c, mode, s, kind), len(list(run)))


def _layer(c: Config, mode: str, s: Size, kind: Kind) -> Iterator[Node]:
    if kind.mixer:
        yield norm("norm1", c.norm)
        if kind.mixer == "attention":
            yield from _attention(c, mode)
        elif kind.mixer == "mamba":
            yield from _mixer(c, mode, s)
        else:
            yield from _parallel(c, mode, s)
        yield op("residual1", "x:, a: -> x:", "add")
    if kind.mlp:
        yield norm("norm2", c.norm)
        yield from _mlp(c, kind.mlp == "experts")
        yield op("residual2", "x:, m: -> x:", "add")


def _attention(c: Config, mode: str, x: str = "n") -> Iterator[Node]:
    a = Attention(
        bias=c.attention_bias,
        out_bias=c.attention_bias,
        heads_per_key=exact_div(c.heads, c.kv_heads),
        norm=c.norm if c.qk_norm else "",
        rope=c.rotary_fraction > 0,
        rope_part=0 < c.rotary_fraction < 1,
        heads_first=c.rotary_fraction < 1,
        scale_k=c.scaled,
        gate=c.attention_gate,
        mask="mask",
        dropout=mode == "train" and c.attention_dropout > 0,
    )
    return attention("attn", a, mode, x=x)


def _parallel(c: Config, mode: str, s: Size) -> Iterator[Node]:
    """Attention and mixer in parallel after one norm, each with scales of its own before and after it."""
    yield from _mixer(c, mode, s)
    yield op("ssm.out_scale", "a: -> mixed:", "scale")
    yield op("attn.in_scale", "n: -> scaled:", "scale")
    yield from _attention(c, mode, "scaled")
    yield op("attn.out_scale", "a: -> a:", "scale")
    yield op("attn.add", "mixed:, a: -> a:", "add")


def _mlp(c: Config, has_experts: bool) -> Iterator[Node]:
    if not has_experts:
        return mlp("mlp", c.activation, gated=c.gated, bias=c.mlp_bias, scaled=c.scaled)
    m = Experts(
        activation=c.activation,
        gated=c.gated,
        f=or_else(c.expert_d_ff, c.d_ff),
        latent=c.expert_latent,
        linear_bias=c.mlp_bias,
        router=c.router,
        normalize=c.normalize_experts,
        shared=c.shared_d_ff,
        shared_gate=c.shared_gate,
    )
    return experts("experts", m)


def _mixer(c: Config, mode: str, s: Size) -> Iterator[Node]:
    width = or_else(c.mamba_head_dim, exact_div(c.expand * c.d_model, c.mamba_heads))
    f = c.expand * c.d_model if c.mamba_version < 2 else c.mamba_heads * width
    if c.mamba_version == 3:
        d = Delta(c.mamba_heads, c.groups, c.state_size, width, c.conv_kernel, c.split_inputs)
        yield from gated_delta(d, mode, s)
    elif c.mamba_version == 0:
        m = Mixer(c.d_model, 0, c.conv_kernel, c.mamba_bias, c.conv_bias)
        yield from gated_convolution(m, mode, s)
    elif c.mamba_version == 1:
        rank = or_else(c.dt_rank, ceil_div(c.d_model, 16))
        yield from mamba(
            Mixer(f, c.state_size, c.conv_kernel, c.mamba_bias, c.conv_bias, rank, norms=True), mode, s
        )
    else:
        m = Mixer(
            f,
            c.state_size,
            c.conv_kernel,
            c.mamba_bias,
            c.conv_bias,
            heads=c.mamba_heads,
            groups=c.groups,
            chunk=c.chunk,
            norms=c.mamba_norm,
            grouped=c.mamba_norm_grouped,
            out_bias=c.mamba_out_bias,
            scaled=c.scaled,
        )
        yield from mamba2(m, mode, s)
