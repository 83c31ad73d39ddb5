"""The gated delta rule as transformers' torch code runs it: the mixer of Qwen3-Next and Qwen3.5.

A token decays the state, reads with its key the value that the state has, and writes back the difference to
its own value: S <- d S + k (v - S k) b. In chunks of 64 tokens, the differences of a chunk are one triangular
system, solved for all chunks at once; states then pass from chunk to chunk. Source: transformers.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..ir import SSM_IN, SSM_OUT, SSM_STEP, Node, Op, block, op
from ..named import NamedTuple
from ..size import Size, ceil_div, exact_div
from ._attention import cache
from ._layers import sized
from ._mamba import convolution, mixed, sum_of_products

CHUNK = 64  # tokens of a chunk, whatever the config says. Source: transformers


class Delta(NamedTuple):
    """Sizes of one mixer: `heads` with a state each, `key_heads` groups of which share queries and keys."""

    heads: Size
    key_heads: Size
    key_dim: Size
    value_dim: Size
    kernel: Size = 4  # taps of the causal convolution
    split: bool = False  # convolved tensors, gate, strength and decay are projections of their own (Qwen3.5)


MIXED = "G.k|G.k|G.H.u"  # what the convolution runs over: queries and keys of a group, its heads' values
PROJECTED = f"{MIXED}|G.H.u"  # the same with gates


def gated_delta(m: Delta, mode: str, s: Size) -> Iterator[Node]:
    """From `n: b s d` to `a: b s d`."""
    repeats, chunks = exact_div(m.heads, m.key_heads), ceil_div(s, CHUNK)
    made = (
        *(_split_inputs() if m.split else _joint_inputs()),
        *mixed(
            op("ssm.enter", "qkv: -> qkv:", "view"),
            *convolution(m.kernel, "qkv", MIXED, mode, s, bias=False),
            op("ssm.parts", f"qkv: b s {MIXED} -> q: b s G k, k: b s G k, v: b s G.H u", "split"),
            *_strengths(),
            *_heads(repeats),
            *(_step() if mode == "decode" else _chunks(chunks)),
            *(cache("ssm", mode, ("S", "b G.H k u", "b G.H k u")) if mode == "prefill" else ()),
            *_gated(),
        ),
        op("ssm.out", "y: b s G.H u, *G.H u d -> a: b s d", tag=SSM_OUT),
    )
    yield from sized(made, G=m.key_heads, H=repeats, k=m.key_dim, u=m.value_dim, w=chunks, i=CHUNK, j=CHUNK)


def _joint_inputs() -> Iterator[Op]:
    """Two projections, by groups of heads: each part is copied out of them."""
    yield op("ssm.in", f"n: b s d, *d {PROJECTED} -> qkvz: b s {PROJECTED}", tag=SSM_IN)
    yield op("ssm.step", "n: b s d, *d G.H|G.H -> ba: b s G.H|G.H", tag=SSM_STEP)
    yield op("ssm.split", f"qkvz: b s {PROJECTED} -> qkv: b s {MIXED}, gate: b s G.H u", "split")
    yield op("ssm.split_step", "ba: b s G.H|G.H -> beta: b s G.H, decay: b s G.H", "split")
    yield op("ssm.gate_copy", "gate: -> gate:", "copy")
    yield op("ssm.parts_copy", "qkv: -> qkv_parts:", "copy")
    yield op("ssm.parts_cat", "qkv_parts: -> qkv:", "copy")


def _split_inputs() -> Iterator[Op]:
    yield op("ssm.in", f"n: b s d, *d {MIXED} -> qkv: b s {MIXED}", tag=SSM_IN)
    yield op("ssm.gate", "n: b s d, *d G.H u -> gate: b s G.H u", tag=SSM_IN)
    yield op("ssm.beta", "n: b s d, *d G.H -> beta: b s G.H", tag=SSM_STEP)
    yield op("ssm.decay", "n: b s d, *d G.H -> decay: b s G.H", tag=SSM_STEP)


def _strengths() -> Iterator[Op]:
    """How much of a token is written (beta), and what is left of the state (decay, a logarithm)."""
    yield op("ssm.sigmoid", "beta: -> beta:", "sigmoid")
    yield op("ssm.A", "*G.H -> A/float32: G.H", "exp")
    yield op("ssm.decay_cast", "decay: b s G.H -> decay/float32:", "cast")
    yield op("ssm.decay_bias", "decay: b s G.H, *G.H -> decay/float32:", "add")
    yield op("ssm.softplus", "decay: -> decay/float32:", "softplus")
    yield op("ssm.decay_scale", "A: G.H, decay: b s G.H -> decay/float32: b s G.H", "mul")


def _heads(repeats: Size) -> Iterator[Op]:
    """Queries and keys of every head, all in float32; both have the length 1."""
    for name, dims in (("q", "G.H k"), ("k", "G.H k"), ("v", "G.H u"), ("beta", "G.H")):
        if name in "qk" and not (isinstance(repeats, int) and repeats == 1):
            yield op(f"ssm.{name}_repeat", f"{name}: b s G k -> {name}: b s G.H k", "repeat")
        yield op(f"ssm.{name}_float32", f"{name}: b s {dims} -> {name}/float32:", "copy")
    yield op("ssm.decay_copy", "decay: -> decay/float32:", "copy")
    yield op("ssm.q_unit", "q: -> q/float32:", "unit")
    yield op("ssm.k_unit", "k: -> k/float32:", "unit")
    yield op("ssm.q_scale", "q: -> q/float32:", "scale")


def _chunks(count: Size) -> Iterator[Node]:
    """All chunks at once as far as they do not depend on each other, then one after the other."""
    for name, dims in (("q", "k"), ("k", "k"), ("v", "u"), ("beta", ""), ("decay", "")):
        yield op(f"ssm.{name}_pad", f"{name}: b s G.H {dims} -> {name}/float32: b G.H w i {dims}", "pad")
    yield op("ssm.v_beta", "v: b G.H w i u, beta: b G.H w i -> vb/float32: b G.H w i u", "mul")
    yield op("ssm.k_beta", "k: b G.H w i k, beta: b G.H w i -> kb/float32: b G.H w i k", "mul")
    yield op("ssm.cumsum", "decay: b G.H w i -> sums/float32:", "cumsum")
    yield op("ssm.pairs", "sums: b G.H w i -> pairs/float32: b G.H w i j", "pairs")
    yield op("ssm.pairs_exp", "pairs: -> pairs/float32:", "exp")
    yield op("ssm.kk", "kb: b G.H w i k, k: b G.H w j k -> kk/float32: b G.H w i j")
    yield op("ssm.system", "kk:, pairs: -> system/float32:", "mul")
    yield op("ssm.qk", "q: b G.H w i k, k: b G.H w j k -> qk/float32: b G.H w i j")
    yield op("ssm.within", "qk:, pairs: -> within/float32:", "mul")
    yield op("ssm.exp", "sums: b G.H w i -> from_start/float32:", "exp")
    yield op("ssm.k_decayed", "kb: b G.H w i k, from_start: b G.H w i -> kb/float32: b G.H w i k", "mul")
    yield op("ssm.values", "system: b G.H w i j, vb: b G.H w j u -> values/float32: b G.H w i u", "solve")
    yield op("ssm.keys", "system: b G.H w i j, kb: b G.H w j k -> keys/float32: b G.H w i k", "solve")
    yield op("ssm.state", "!zero: 1 -> S/float32: b G.H k u", "fill")
    yield op("ssm.room", "!zero: 1 -> y/float32: b G.H w i u", "fill")
    yield op("ssm.q_exp", "sums: b G.H w i -> q_decay/float32:", "exp")
    yield op("ssm.q_decayed", "q: b G.H w i k, q_decay: b G.H w i -> q/float32: b G.H w i k", "mul")
    yield op("ssm.to_end", "sums: b G.H w i -> to_end/float32:", "scale")
    yield op("ssm.to_end_exp", "to_end: -> to_end/float32:", "exp")
    yield op("ssm.k_to_end", "k: b G.H w i k, to_end: b G.H w i -> k/float32: b G.H w i k", "mul")
    yield op("ssm.last", "sums: b G.H w i -> chunk_decay/float32: b G.H w", "slice")
    yield op("ssm.last_exp", "chunk_decay: -> chunk_decay/float32:", "exp")
    yield block("chunks", _chunk(), count, shared=True, inline=True)
    yield op("ssm.cut_chunks", "y: b G.H w i u -> y/float32: b s G.H u", "slice")
    yield op("ssm.y_cast", "y: -> y: b s G.H u", "cast")


def _chunk() -> Iterator[Op]:
    """Write the differences to the state, read the state and the chunk itself, hand the state on."""
    for name, dims in (("keys", "i k"), ("values", "i u"), ("q", "i k"), ("within", "i j"), ("k", "i k")):
        yield op(f"{name}_of", f"{name}: b G.H w {dims} -> {name}_c/float32: b G.H {dims}", "slice")
    yield op("decay_of", "chunk_decay: b G.H w -> decay_c/float32: b G.H", "slice")
    yield op("known", "keys_c: b G.H i k, S: b G.H k u -> known/float32: b G.H i u")
    yield op("new", "values_c: b G.H i u, known: b G.H i u -> new/float32: b G.H i u", "add")
    yield op("before", "q_c: b G.H i k, S: b G.H k u -> before/float32: b G.H i u")
    yield op("inside", "within_c: b G.H i j, new: b G.H j u -> inside/float32: b G.H i u")
    yield op("read", "before: b G.H i u, inside: b G.H i u -> read/float32: b G.H i u", "add")
    yield op("write", "read: b G.H i u, y: b G.H w i u -> y/float32: b G.H w i u", "put")
    yield op("decayed", "S: b G.H k u, decay_c: b G.H -> S/float32: b G.H k u", "mul")
    yield op("written", "k_c: b G.H i k, new: b G.H i u -> written/float32: b G.H k u")
    yield op("next", "S: b G.H k u, written: b G.H k u -> S/float32: b G.H k u", "add")


def _step() -> Iterator[Op]:
    """One token from the state in the cache; s is 1. torch's code multiplies and sums, without products."""
    yield op("ssm.exp", "decay: b s G.H -> decay/float32:", "exp")
    yield op("ssm.cached", "decay: b s G.H -> %old/float32: b G.H k u", "cache")
    yield op("ssm.decayed", "old: b G.H k u, decay: b s G.H -> S/float32: b G.H k u", "mul")
    yield from sum_of_products("known", "S: b G.H k u", "k: b s G.H k", "b G.H k u", "b s G.H u")
    yield op("ssm.new", "v: b s G.H u, known: b s G.H u -> new/float32: b s G.H u", "add")
    yield op("ssm.new_beta", "new: b s G.H u, beta: b s G.H -> new/float32: b s G.H u", "mul")
    yield op("ssm.written", "k: b s G.H k, new: b s G.H u -> written/float32: b G.H k u", "mul")
    yield op("ssm.next", "S: b G.H k u, written: b G.H k u -> S/float32: b G.H k u", "add")
    yield op("ssm.store", "old: b G.H k u, S: b G.H k u -> old: b G.H k u", "copy_")
    yield from sum_of_products("y", "S: b G.H k u", "q: b s G.H k", "b G.H k u", "b s G.H u")
    yield op("ssm.y_cast", "y: -> y: b s G.H u", "cast")


def _gated() -> Iterator[Op]:
    """A norm of each head's values, and a gate."""
    yield op("ssm.norm", "y: b s G.H u, *u -> y: b s G.H u", "rms_norm")
    yield op("ssm.gate_cast", "gate: b s G.H u -> gate/float32:", "cast")
    yield op("ssm.gate_silu", "gate: -> gate/float32:", "silu")
    yield op("ssm.gated", "y: b s G.H u, gate: b s G.H u -> y/float32:", "mul")
    yield op("ssm.cast", "y: -> y: b s G.H u", "cast")
