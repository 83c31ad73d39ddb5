"""A layer of a single stack: attention, MLP or experts, and norms where the family puts them.

`c` is a transformer's Config.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..ir import Node, op
from ..named import Any, NamedTuple
from ..size import Size, exact_div, is_zero, minimum, or_else
from ._attention import Attention, attention, mask_name
from ._layers import Experts, dropout, experts, mlp, norm


class Kind(NamedTuple):
    """What layers differ in."""

    window: int
    rotates: bool
    sparse: bool
    normed: bool = True


def kinds(c: Any, start: int, *, sparse: bool) -> tuple[Kind, ...]:
    """One period of the kinds of layers, from layer `start` on."""
    return tuple(
        Kind(
            c.windows[i % len(c.windows)],
            c.positions == "rotary" and c.rotated[i % len(c.rotated)] > 0,
            sparse and (i + 1) % c.sparse_every == 0,
        )
        for i in range(start, start + c.period)
    )


def layer(c: Any, mode: str, seq: Size, kind: Kind) -> Iterator[Node]:
    """Attention and MLP on the residual stream x, with the norms where the family puts them."""
    before, behind = c.residual not in ("output", "post"), c.residual in ("output", "sandwich")
    x = "n" if before else "x"
    if before and kind.normed:
        yield norm("norm1", c.norm, bias=c.norm_bias)
    yield from _attend(c, mode, seq, kind, x if kind.normed else "x")
    yield from dropout("attn", 0 if c.dropout_mlp_only else c.dropout, mode, "a")
    if behind:
        yield norm("norm1_out", c.norm, "a", "a", bias=c.norm_bias)
    if not c.residual.startswith("parallel"):
        yield op("residual1", "a:, x: -> x:", "add")
    if c.residual == "post":  # variables of the class hold the outputs of attention and activation
        yield norm("norm1", c.norm, "x", "x", bias=c.norm_bias)._replace(callers=("y", "a"))
    elif before and c.residual != "parallel":
        yield norm("norm2", c.norm, bias=c.norm_bias)
    if kind.sparse:
        yield from experts("experts", _experts(c, mode), x=x)
    else:
        yield from mlp("mlp", c.activation, gated=c.gated, bias=c.mlp_bias, x=x, fused=c.fused_gate)
    yield from dropout("mlp", c.dropout, mode, "m")
    if behind:
        yield norm("norm2_out", c.norm, "m", "m", bias=c.norm_bias)
    if c.residual.startswith("parallel"):
        yield op("residual1", "m:, a: -> m:", "add")
    if c.residual == "post":
        yield op("residual2", "m:, x: -> h:", "add")
        yield norm("norm2", c.norm, "h", "x", bias=c.norm_bias)._replace(callers=("g", "m", "x"))
    else:
        yield op("residual2", "m:, x: -> x:", "add")


def _attend(c: Any, mode: str, seq: Size, kind: Kind, x: str) -> Iterator[Node]:
    a = Attention(
        bias=c.qkv_bias, out_bias=c.out_bias, fused=c.fused_qkv, upcast=c.softmax_float32, sinks=c.sinks,
        heads_per_key=exact_div(c.heads, kv_heads(c)), norm=_qk_norm(c, kind),
        norm_heads=c.qk_norm_heads, norm_last=c.qk_norm_rotated, broadcast=c.broadcast_keys,
        rope=kind.rotates, rope_part=c.heads_first or c.rotary_fraction < 1, rope_float32=c.rotary_float32,
        rope_apart=c.rotary_apart,
        heads_first=kind.rotates and (c.heads_first or c.rotary_fraction < 1),
        position="relative: h r s t" if c.buckets else "alibi: h r t" if c.positions == "alibi" else "",
        scale=c.scale_scores, scale_q=c.scale_queries or (c.temperature and not kind.rotates),
        softcap=c.softcap > 0,
        mask=mask_name(kind.window if c.kind == "decoder" else 0) if is_masked(c, kind.window) else "",
        causal=c.kind == "decoder",
        dropout=mode == "train" and c.attention_dropout > 0,
    )  # fmt: skip
    if not is_zero(c.kv_latent):
        from ._latent import Latent, latent_attention  # few networks have it

        dims = c.q_latent, c.kv_latent, or_else(c.value_head_dim, c.width), c.rope_head_dim
        latent = Latent(*dims, c.out_bias, c.index_heads, c.index_dim, c.index_topk)
        return latent_attention("attn", a._replace(heads_per_key=1), latent, c.width, mode)
    cached = minimum(seq, kind.window) if kind.window else None
    return attention("attn", a, mode, x=x, cached=cached, window=kind.window)


def _qk_norm(c: Any, kind: Kind) -> str:
    if c.qk_norm_rotated:
        return "rms_norm_plain" if kind.rotates else ""
    return c.norm if c.qk_norm else ""


def is_masked(c: Any, window: int) -> bool:
    """Whether a layer with this window masks anything."""
    return c.kind == "decoder" or window > 0


def _experts(c: Any, mode: str) -> Experts:
    return Experts(
        activation=c.activation, f=or_else(c.expert_d_ff, or_else(c.d_ff, 4 * c.d_model)), bias=c.expert_bias,
        router=c.router, router_bias=c.router_bias, correction=c.router_correction,
        normalize=c.normalize_experts, single=c.weighs_in_float32,
        every=c.every_expert and mode in ("train", "forward"),
        shared=c.shared_d_ff, shared_gate=c.shared_gate,
    )  # fmt: skip


def kv_heads(c: Any) -> Size:
    """Key-value heads: as many as heads where none are given."""
    return or_else(c.kv_heads, c.heads)
