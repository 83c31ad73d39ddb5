"""Multi-head latent attention (DeepSeek-V2): keys and values made of one small cached vector a token."""

from __future__ import annotations

from collections.abc import Iterator

from ..ir import (
    LATENT_DIVIDE,
    LATENT_DOWN,
    LATENT_JOIN,
    LATENT_QUERY,
    LATENT_UP,
    MLA_UP,
    OUTPUT,
    QUERY,
    Op,
    op,
)
from ..named import NamedTuple
from ..size import Size, is_zero
from ._attention import Attention, cache, mix
from ._indexer import indexer
from ._layers import norm


class Latent(NamedTuple):
    """Widths: of the latent vectors, of a head's values, and of the part that carries the position."""

    q: Size = 0  # 0: queries are made of the input itself
    kv: Size = 512
    value: Size = 128
    rope: Size = 64
    bias: bool = False
    index_heads: Size = 0  # of an indexer that chooses the positions that a query sees; 0: it sees all
    index_dim: Size = 0
    index_topk: Size = 0


def up(name: str, line: str, kind: str = "contract", tag: str = "", **sizes: Size) -> Op:
    """An operator that is part of making queries, keys and values from latent vectors."""
    return op(name, line, kind, tag, **sizes)._replace(module=MLA_UP)


def latent_attention(name: str, a: Attention, m: Latent, k: Size, mode: str) -> Iterator[Op]:
    """Attention from `n: b s d` to `a: b s d`; k is the width of a head's queries and keys."""
    bias_n, bias_d = (", +*n", ", +*d") if m.bias else ("", "")
    if is_zero(m.q):
        yield up(f"{name}.q", "n: b s d, *d h r k -> q: b s h r k", tag=QUERY)
    else:
        yield op(f"{name}.q_down", f"n: b s d, *d n{bias_n} -> cq: b s n", tag=LATENT_QUERY, n=m.q)
        yield norm(f"{name}.q_norm", "rms_norm", "cq", "cq", dim="n")._replace(module=MLA_UP)
        yield up(f"{name}.q", "cq: b s n, *n h r k -> q: b s h r k", tag=QUERY, n=m.q)
    yield op(f"{name}.kv_down", f"n: b s d, *d n{bias_n} -> ckv: b s n", tag=LATENT_DOWN, n=m.kv + m.rope)
    yield op(
        f"{name}.kv_split", "ckv: b s n -> cn: b s c, kr: b s m", "view", n=m.kv + m.rope, c=m.kv, m=m.rope
    )
    yield norm(f"{name}.kv_norm", "rms_norm", "cn", "cn", dim="c")._replace(module=MLA_UP)
    # Halves of them, one by one. Source: transformers.
    yield up(f"{name}.q_rope", "q:, cos:, sin: -> q: b h r s k", "rope")._replace(beside=(3, 4))
    yield up(f"{name}.k_rope", "kr:, cos:, sin: -> kr:", "rope")._replace(beside=(2, 4))
    yield from cache(name, mode, ("cn", "b s c", "b t c"), ("kr", "b s m", "b t m"), c=m.kv, m=m.rope)
    sizes = {"c": m.kv, "m": m.rope, "p": k - m.rope, "u": m.value, "j": k - m.rope + m.value}
    yield up(f"{name}.kv_up", "cn: b t c, *c h j -> kv: b t h j", tag=LATENT_UP, **sizes)
    yield up(f"{name}.kv_divide", "kv: b t h j -> kn: b t h p, v: b t h u", "view", LATENT_DIVIDE, **sizes)
    join = up(f"{name}.k_join", "kn: b t h p, kr: b t m -> k: b t h k", "join", LATENT_JOIN, **sizes)
    yield join._replace(beside=(1, 6))
    if not is_zero(m.index_heads):
        yield from indexer("index", mode, m.q, m.index_heads, m.index_dim, m.index_topk)
        a = a._replace(mask="chosen")
    yield from mix(name, a._replace(heads_first=True), value="u", u=m.value)
    yield op(f"{name}.o", f"y: b s h r u, *h r u d{bias_d} -> a: b s d", tag=OUTPUT, u=m.value)
