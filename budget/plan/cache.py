"""The cache of keys and values: in a dtype of its own, as engines have it (vLLM's `--kv-cache-dtype`), and
copied as a whole for each token, as transformers' dynamic one is.

The dtype decides how much memory it takes and how many bytes attention reads. Attention's products stay as
they are: their kernel widens what it reads. Sources: vllm, transformers.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..config import Task, setting
from ..dtype import full_name
from ..errors import InputError, wrong
from ..ir import CACHE, Model, Op, rewrite, walk

# llama.cpp's in blocks of 32 with a scale, too. Source: llama-server
DTYPES = ("fp32", "bf16", "fp16", "fp8", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
SETTINGS = {
    "kv_dtype": setting("", f"of the cache, {', '.join(DTYPES)}, where it is not the network's own"),
    "cache_implementation": setting(
        "static",
        "dynamic: each token copies a layer's (transformers' default); tuple: all, before any old one goes",
        choices=("static", "dynamic", "tuple"),
    ),
}


def cached(model: Model, dtype: str) -> Model:
    """The network with its caches in a dtype. Raises InputError for an unknown dtype, and without a cache."""
    if dtype not in DTYPES:
        raise wrong("kv_dtype", dtype, ", ".join(DTYPES))
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


def copied(model: Model, *, at_once: bool = False) -> Model:
    """The network with caches that each token copies: all of a cache is read and written.

    at_once: the old ones stay until the token is done, as transformers' tuples before 4.36 do.
    """

    def change(o: Op) -> Iterator[Op]:
        yield o._replace(kind="cat", ins=(*o.ins, o.out)) if o.kind == "cache" else o
        if at_once and o.kind == "cache":
            old = o.out._replace(name=f"{o.out.name}~old")
            yield Op(f"{o.name}.old", "empty", (), (old,), o.sizes)

    return model._replace(nodes=rewrite(model.nodes, change))


def check(task: Task, device: object) -> None:
    """Raise an InputError for a copied cache where no token finds one."""
    how = task.techniques.cache_implementation
    if how != "static" and task.workload.mode != "decode":
        raise InputError("cache_implementation", f"got {how} in mode {task.workload.mode}; allowed: decode")


def apply(model: Model, task: Task) -> Model:
    """The network with its caches as they are kept."""
    t = task.techniques
    how = t.cache_implementation
    model = model if how == "static" else copied(model, at_once=how == "tuple")
    return cached(model, t.kv_dtype) if t.kv_dtype else model


STAGES = {"store": apply}
UNNAMED = True  # a captured class's caches are known by their role
