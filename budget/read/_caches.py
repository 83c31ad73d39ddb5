"""A class of transformers as it serves: a prompt that fills its cache, or a prompt's last token behind the
cache that the others have filled.

torch's calls copy a cache to append to it; here they append in place, as to a built-in architecture's
(plan/cache.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from inspect import signature

from ..config import Workload
from ..errors import InputError
from ..ir import CACHE, STATE, Model, Op, rewrite, walk
from ..named import Any

SERVES = ("prefill", "decode")
NAMES = ("past_key_values", "cache_params", "state")  # what classes call it
SHORT = 2  # tokens; with one alone, classes run as for a token behind a cache
# Layers of a cache with a row for each token, at most a window of them; there is one row of states.
GROWS = (
    "DynamicLayer", "DynamicSlidingWindowLayer",
    "LinearAttentionLayer", "LinearAttentionAndFullAttentionLayer",
)  # fmt: skip
LONGEST = 8192  # tokens where nothing says how many, as for built-in architectures


def prompt(module: Any, workload: Workload, where: str) -> dict[str, Any]:
    """The prompt of a class that generates from tokens alone. Raises InputError."""
    import torch

    generates = "input_ids" in signature(module.forward).parameters and module.can_generate()
    if not generates or module.config.is_encoder_decoder:
        problem = f"got {workload.mode}; allowed for {type(module).__name__}: train, forward"
        raise InputError("mode", problem)
    limit = getattr(module.config.get_text_config(), "max_position_embeddings", None)
    usual = min(limit, LONGEST) if isinstance(limit, int) and limit > 0 else LONGEST
    return {"input_ids": torch.ones(workload.batch, workload.seq or usual, dtype=torch.int64, device=where)}


def settings(module: Any) -> dict[str, Any]:
    """Arguments with which a class generates: it keeps its cache, and makes only the last token's logits."""
    last = "logits_to_keep" in signature(module.forward).parameters
    return {"use_cache": True, **({"logits_to_keep": 1} if last else {})}


def behind(given: Mapping[str, Any], run: Callable[[Mapping[str, Any]], Any]) -> dict[str, Any]:
    """A prompt's last token, with the caches that the others leave. Raises InputError.

    run: a pass that is not recorded. Where a cache only grows with the prompt, a short prompt's is stretched.
    """
    from ._module_inputs import tensors_in

    ids = given["input_ids"]
    tokens = ids.size(1) - 1
    for short in (min(tokens, SHORT), tokens) if tokens else ():
        kept = caches(run({**given, "input_ids": ids[:, :short]}))
        if not kept:
            raise InputError("mode", "got decode, and this class returns no cache; allowed: train, forward")
        if short == tokens or all(_stretch(cache, tokens) for cache in kept.values()):
            break
    else:
        kept = {}
    for t in tensors_in(kept):  # what is a part of a prompt's, is alone once more tokens are there
        if t.numel() * t.itemsize < t.untyped_storage().nbytes():
            t.data = t.clone()
    return {**given, "input_ids": ids[:, :1], **kept}


def _stretch(cache: Any, tokens: int) -> bool:
    """Stretch a short prompt's cache to a longer one's; False where its layers do not allow it."""
    layers = getattr(cache, "layers", None) or ()
    if not layers or any(type(layer).__name__ not in GROWS for layer in layers):
        return False
    for layer in layers:
        window = getattr(layer, "sliding_window", None)
        kept = tokens if window is None else min(tokens, window - 1)
        for name in ("keys", "values"):
            t = getattr(layer, name, None)
            if t is not None:
                setattr(layer, name, t.new_empty((*t.shape[:-2], kept, t.shape[-1])))
        if window is not None:
            layer.cumulative_length = tokens
    return True


def caches(out: Any) -> dict[str, Any]:
    """The caches that a pass returns, by the name that the class has for them."""
    return {name: out[name] for name in NAMES if isinstance(out, Mapping) and out.get(name) is not None}


def served(model: Model, left: Collection[str], seq: int) -> Model:
    """A captured pass with its caches marked as such. left: names of the storages of the caches that it
    leaves.
    """
    ops = [o for o, _ in walk(model.nodes)]
    given = [t for o in ops if o.name == "inputs" for t in o.ins]
    old = {t.name for t in given if t.dims and t.name.startswith(NAMES)}
    states = old - {o.ins[0].name for o in ops if _appends(o, left)}

    def change(o: Op) -> Iterator[Op]:
        if o.kind == "resident" and o.name == "inputs":
            there = tuple(t._replace(role=CACHE) for t in o.ins if t.name in states)
            yield o._replace(ins=tuple(t for t in o.ins if t.name not in old))
            if there:
                yield Op("cache", "resident", (), there, o.sizes)
            return
        ins = tuple(t._replace(role=CACHE) if t.name in states else t for t in o.ins)
        outs = tuple(t._replace(role=CACHE) if t.name in left and t.role != STATE else t for t in o.outs)
        if _appends(o, left):
            yield o._replace(kind="cache", ins=ins[-1:], outs=outs)
        else:
            yield o._replace(ins=ins, outs=outs)

    marked = model._replace(nodes=rewrite(model.nodes, change))
    return marked._replace(tokens=marked.samples, cached=seq) if model.config["mode"] == "decode" else marked


def _appends(o: Op, left: Collection[str]) -> bool:
    """Whether a call copies a cache, which may be empty, to append to it."""
    grows = o.kind == "copy" and len(o.ins) == 2 and o.out.name in left and o.out.role != STATE
    return grows and (o.ins[0].name.startswith(NAMES) or "0" in o.ins[0].dims)
