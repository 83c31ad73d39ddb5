"""The cache of keys and values in a dtype of its own, as engines have it (vLLM's `--kv-cache-dtype`): what it
takes, and what attention reads of it. Its products stay what they are; their kernel widens what it reads.
Source: vllm.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..config import Task, setting
from ..dtype import full_name
from ..errors import InputError
from ..ir import CACHE, Model, Op, rewrite, walk

DTYPES = ("fp32", "bf16", "fp16", "fp8")
SETTINGS = {"kv_dtype": setting("", f"of the cache, {', '.join(DTYPES)}, where it is not the network's own")}


def cached(model: Model, dtype: str) -> Model:
    """The network with its caches in a dtype. Raises InputError for an unknown dtype, and without a cache."""
    if dtype not in DTYPES:
        raise InputError("kv_dtype", f"got {dtype[:40]!r}; allowed: {', '.join(DTYPES)}")
    names = {t.name for o, _ in walk(model.nodes) for t in o.outs if t.role == CACHE}
    if not names:
        raise InputError("kv_dtype", f"{model.name} has no cache here; allowed: in modes prefill and decode")
    full = full_name(dtype)

    def change(o: Op) -> Iterator[Op]:
        ins = tuple(t._replace(dtype=full) if t.name in names else t for t in o.ins)
        yield o._replace(
            ins=ins, outs=tuple(t._replace(dtype=full) if t.name in names else t for t in o.outs)
        )

    return model._replace(nodes=rewrite(model.nodes, change))


def apply(model: Model, task: Task) -> Model:
    """The network with its caches in their dtype."""
    return cached(model, task.techniques.kv_dtype)


STAGES = {"store": apply}
