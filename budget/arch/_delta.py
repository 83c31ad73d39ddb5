"""The gated delta rule as transformers' torch code runs it: the mixer of Qwen3-Next and Qwen3.5.

A token decays the state, reads from it what its key already finds, and writes the difference to its value
back: S <- d S + k (v - S k) b. In chunks of 64 tokens, the differences of a chunk are one triangular system,
solved for all chunks at once; states then pass from chunk to chunk. Source: transformers.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..ir import SSM_IN, SSM_OUT, SSM_STEP, Node, Op, block, op
from ..named import NamedTuple
from ..size import Size, ceil_div, exact_div
from ._attention import cache
from ._layers import sized
from ._mamba import convolution, sum_of_products

CHUNK = 64  # tokens of a chunk, whatever the config says. Source: transformers


class Delta(NamedTuple):
    """Sizes of one mixer: `heads` with a state each, `key_heads` groups of which share queries and keys."""

    heads: Size
    key_heads: Size
    key_dim: Size
    value_dim: Size
    kernel: Size = 4  # taps of the causal convolution
    split: bool = False  # convolved tensors, gate, strength and decay are projections of their own (Qwen3.5)


def gated_delta(m: Delta, mode: str, s: Size, *, x: str = "n", out: str = "a") -> Iterator[Node]:
    """From `x: b s d` to `out: b s d`."""
    inner = 2 * m.key_heads * m.key_dim + m.heads * m.value_dim
    sizes = {
        "f": inner, "h": m.heads, "g": m.key_heads, "k": m.key_dim, "u": m.value_dim,
        "w": ceil_div(s, CHUNK), "i": CHUNK, "j": CHUNK, "y": 2 * m.heads, "z": inner + m.heads * m.value_dim,
    }  # fmt: skip
    rule = _step() if mode == "decode" else _chunks(sizes["w"])
    made = (
        *(_split_inputs(x) if m.split else _joint_inputs(x)),
        *convolution(m.kernel, "qkv", inner, mode, s, bias=False),
        op("ssm.parts", "qkv: b s f -> q: b s g k, k: b s g k, v: b s h u", "split"),
        *_strengths(),
        *_heads(exact_div(m.heads, m.key_heads)),
        *rule,
        *(cache("ssm", mode, ("S", "b h k u", "b h k u")) if mode == "prefill" else ()),
        *_gated_output(out),
    )
    yield from sized(made, **sizes)


def _joint_inputs(x: str) -> Iterator[Op]:
    """Two projections, by groups of heads: each part is copied out of them."""
    yield op("ssm.in", f"{x}: b s d, *d z -> qkvz: b s z", tag=SSM_IN)
    yield op("ssm.step", f"{x}: b s d, *d y -> ba: b s y", tag=SSM_STEP)
    yield op("ssm.split", "qkvz: b s z -> qkv: b s f, gate: b s h u", "split")
    yield op("ssm.split_step", "ba: b s y -> beta: b s h, decay: b s h", "split")
    yield op("ssm.gate_copy", "gate: -> gate:", "copy")
    yield op("ssm.parts_copy", "qkv: -> qkv_parts:", "copy")
    yield op("ssm.parts_cat", "qkv_parts: -> qkv:", "copy")


def _split_inputs(x: str) -> Iterator[Op]:
    yield op("ssm.in", f"{x}: b s d, *d f -> qkv: b s f", tag=SSM_IN)
    yield op("ssm.gate", f"{x}: b s d, *d h u -> gate: b s h u", tag=SSM_IN)
    yield op("ssm.beta", f"{x}: b s d, *d h -> beta: b s h", tag=SSM_STEP)
    yield op("ssm.decay", f"{x}: b s d, *d h -> decay: b s h", tag=SSM_STEP)


def _strengths() -> Iterator[Op]:
    """How much of a token is written (beta), and what is left of the state (decay, a logarithm)."""
    yield op("ssm.sigmoid", "beta: -> beta:", "sigmoid")
    yield op("ssm.A", "*h -> A/float32: h", "exp")
    yield op("ssm.decay_cast", "decay: b s h -> decay/float32:", "cast")
    yield op("ssm.decay_bias", "decay: b s h, *h -> decay/float32:", "add")
    yield op("ssm.softplus", "decay: -> decay/float32:", "softplus")
    yield op("ssm.decay_scale", "A: h, decay: b s h -> decay/float32: b s h", "mul")


def _heads(repeats: Size) -> Iterator[Op]:
    """Queries and keys of every head, all in float32; both have the length 1."""
    for name, dims in (("q", "h k"), ("k", "h k"), ("v", "h u"), ("beta", "h")):
        if dims == "h k" and not (isinstance(repeats, int) and repeats == 1):
            yield op(f"ssm.{name}_repeat", f"{name}: b s g k -> {name}: b s h k", "repeat")
        yield op(f"ssm.{name}_float32", f"{name}: b s {dims} -> {name}/float32:", "copy")
    yield op("ssm.decay_copy", "decay: -> decay/float32:", "copy")
    yield op("ssm.q_unit", "q: -> q/float32:", "unit")
    yield op("ssm.k_unit", "k: -> k/float32:", "unit")
    yield op("ssm.q_scale", "q: -> q/float32:", "scale")


def _chunks(count: Size) -> Iterator[Node]:
    """All chunks at once as far as they do not depend on each other, then one after the other."""
    for name, dims in (("q", "k"), ("k", "k"), ("v", "u"), ("beta", ""), ("decay", "")):
        yield op(f"ssm.{name}_pad", f"{name}: b s h {dims} -> {name}/float32: b h w i {dims}", "pad")
    yield op("ssm.v_beta", "v: b h w i u, beta: b h w i -> vb/float32: b h w i u", "mul")
    yield op("ssm.k_beta", "k: b h w i k, beta: b h w i -> kb/float32: b h w i k", "mul")
    yield op("ssm.cumsum", "decay: b h w i -> sums/float32:", "cumsum")
    yield op("ssm.pairs", "sums: b h w i -> pairs/float32: b h w i j", "pairs")
    yield op("ssm.pairs_exp", "pairs: -> pairs/float32:", "exp")
    yield op("ssm.kk", "kb: b h w i k, k: b h w j k -> kk/float32: b h w i j")
    yield op("ssm.system", "kk:, pairs: -> system/float32:", "mul")
    yield op("ssm.qk", "q: b h w i k, k: b h w j k -> qk/float32: b h w i j")
    yield op("ssm.within", "qk:, pairs: -> within/float32:", "mul")
    yield op("ssm.exp", "sums: b h w i -> from_start/float32:", "exp")
    yield op("ssm.k_decayed", "kb: b h w i k, from_start: b h w i -> kb/float32: b h w i k", "mul")
    yield op("ssm.values", "system: b h w i j, vb: b h w j u -> values/float32: b h w i u", "solve")
    yield op("ssm.keys", "system: b h w i j, kb: b h w j k -> keys/float32: b h w i k", "solve")
    yield op("ssm.state", "!zero: 1 -> S/float32: b h k u", "fill")
    yield op("ssm.room", "!zero: 1 -> y/float32: b h w i u", "fill")
    yield op("ssm.q_exp", "sums: b h w i -> q_decay/float32:", "exp")
    yield op("ssm.q_decayed", "q: b h w i k, q_decay: b h w i -> q/float32: b h w i k", "mul")
    yield op("ssm.to_end", "sums: b h w i -> to_end/float32:", "scale")
    yield op("ssm.to_end_exp", "to_end: -> to_end/float32:", "exp")
    yield op("ssm.k_to_end", "k: b h w i k, to_end: b h w i -> k/float32: b h w i k", "mul")
    yield op("ssm.last", "sums: b h w i -> chunk_decay/float32: b h w", "slice")
    yield op("ssm.last_exp", "chunk_decay: -> chunk_decay/float32:", "exp")
    yield block("chunks", _chunk(), count, shared=True, inline=True)
    yield op("ssm.cut_chunks", "y: b h w i u -> y/float32: b s h u", "slice")
    yield op("ssm.y_cast", "y: -> y: b s h u", "cast")


def _chunk() -> Iterator[Op]:
    """Write what the state does not know yet, read the state and the chunk itself, hand the state on."""
    for name, dims in (("keys", "i k"), ("values", "i u"), ("q", "i k"), ("within", "i j"), ("k", "i k")):
        yield op(f"{name}_of", f"{name}: b h w {dims} -> {name}_c/float32: b h {dims}", "slice")
    yield op("decay_of", "chunk_decay: b h w -> decay_c/float32: b h", "slice")
    yield op("known", "keys_c: b h i k, S: b h k u -> known/float32: b h i u")
    yield op("new", "values_c: b h i u, known: b h i u -> new/float32: b h i u", "add")
    yield op("before", "q_c: b h i k, S: b h k u -> before/float32: b h i u")
    yield op("inside", "within_c: b h i j, new: b h j u -> inside/float32: b h i u")
    yield op("read", "before: b h i u, inside: b h i u -> read/float32: b h i u", "add")
    yield op("write", "read: b h i u, y: b h w i u -> y/float32: b h w i u", "put")
    yield op("decayed", "S: b h k u, decay_c: b h -> S/float32: b h k u", "mul")
    yield op("written", "k_c: b h i k, new: b h i u -> written/float32: b h k u")
    yield op("next", "S: b h k u, written: b h k u -> S/float32: b h k u", "add")


def _step() -> Iterator[Op]:
    """One token from the state in the cache; s is 1. torch's code multiplies and sums, without products."""
    yield op("ssm.exp", "decay: b s h -> decay/float32:", "exp")
    yield op("ssm.cached", "decay: b s h -> %old/float32: b h k u", "cache")
    yield op("ssm.decayed", "old: b h k u, decay: b s h -> S/float32: b h k u", "mul")
    yield from sum_of_products("known", "S: b h k u", "k: b s h k", "b h k u", "b s h u")
    yield op("ssm.new", "v: b s h u, known: b s h u -> new/float32: b s h u", "add")
    yield op("ssm.new_beta", "new: b s h u, beta: b s h -> new/float32: b s h u", "mul")
    yield op("ssm.written", "k: b s h k, new: b s h u -> written/float32: b h k u", "mul")
    yield op("ssm.next", "S: b h k u, written: b h k u -> S/float32: b h k u", "add")
    yield op("ssm.store", "old: b h k u, S: b h k u -> old: b h k u", "copy_")
    yield from sum_of_products("y", "S: b h k u", "q: b s h k", "b h k u", "b s h u")
    yield op("ssm.y_cast", "y: -> y: b s h u", "cast")


def _gated_output(out: str) -> Iterator[Op]:
    """A norm of each head's values, a gate, the projection."""
    yield op("ssm.norm", "y: b s h u, *u -> y: b s h u", "rms_norm")
    yield op("ssm.gate_cast", "gate: b s h u -> gate/float32:", "cast")
    yield op("ssm.gate_silu", "gate: -> gate/float32:", "silu")
    yield op("ssm.gated", "y: b s h u, gate: b s h u -> y/float32:", "mul")
    yield op("ssm.cast", "y: -> y: b s h u", "cast")
    yield op("ssm.out", f"y: b s h u, *h u d -> {out}: b s d", tag=SSM_OUT)
