"""The lightning indexer of DeepSeek-V3.2: small heads that choose which positions a query attends to.

It learns nothing from the language model's loss: no gradient passes the choice. Attention runs here as in
transformers without a sparse kernel: all scores are computed, and those not chosen are masked. Engines have
kernels for it (plan/indexed.py). Source: transformers.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..ir import INDEX, INDEX_WEIGHTS, Op, op
from ..size import Size
from ._attention import cache
from ._layers import norm


def indexer(name: str, mode: str, q_latent: Size, heads: Size, width: Size, most: Size) -> Iterator[Op]:
    """From `n: b s d` and the queries' latent vector `cq: b s n` to `chosen: b s t`, added to the scores.

    A query sees `most` positions.
    """
    sizes = {"n": q_latent, "i": heads, "j": width}
    for o in (
        op(f"{name}.q", "cq: b s n, *n i j -> iq: b s i j"),
        op(f"{name}.k", "n: b s d, *d j -> ik: b s j"),
        norm(f"{name}.k_norm", "layer_norm", "ik", "ik", dim="j"),
        op(f"{name}.q_rope", "iq:, cos:, sin: -> iq:", "rope"),
        op(f"{name}.k_rope", "ik:, cos:, sin: -> ik:", "rope"),
        *cache(name, mode, ("ik", "b s j", "b t j")),
        op(f"{name}.q_cast", "iq: -> iq32/float32:", "cast", INDEX),
        op(f"{name}.k_cast", "ik: b t j -> ik32/float32:", "cast", INDEX),
        op(f"{name}.scores", "iq32: b s i j, ik32: b t j -> is/float32: b s i t", tag=INDEX),
        op(f"{name}.scale", "is: -> is/float32:", "scale", INDEX),
        op(f"{name}.relu", "is: -> is/float32:", "relu", INDEX),
        op(f"{name}.weights", "n: b s d, *d i -> iw: b s i", tag=INDEX_WEIGHTS),
        op(f"{name}.weights_scale", "iw: -> iw/float32:", "scale"),
        op(f"{name}.sum", "iw: b s i, is: b s i t -> index/float32: b s t", tag=INDEX),
        op(f"{name}.choose", "index: b s t -> chosen: b s t", "choose", INDEX)._replace(window=most),
    ):
        yield o._replace(sizes={**sizes, **o.sizes})
