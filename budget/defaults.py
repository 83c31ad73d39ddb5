"""What a run has where nobody says: its stack, the dtype of its tensors, and the stack's own settings."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from .device import Device
from .dtype import computed
from .errors import InputError, shown, unknown
from .named import Any
from .plan import chosen, keeps_weights
from .plan.fuse import CHOICES as ATTENTION
from .plan.optimizer import CHOICES as OPTIMIZERS
from .plan.recompute import CHOICES as RECOMPUTED
from .read.source import Ready, Source, built
from .stack import BESIDES, Stack, load, usual

CHOICES = {
    "mode": ("train", "forward", "prefill", "decode"),
    "execution": ("compiled", "eager", "fused", "graph"),
    "attention": tuple(ATTENTION),
    "recompute": tuple(RECOMPUTED),
    "optimizer": OPTIMIZERS,
}
# What neither the caller nor the stack says of the settings that are no technique's.
UNSAID = {"execution": "compiled", "attention": "flash", "optimizer": "adamw"}
OF_MODULES = ("execution", "memory_format", "cache_implementation")  # a stack's, that a torch module can have


def choices(**given: str | None) -> None:
    """Raise an InputError for a value that its setting does not allow."""
    for field, value in given.items():
        if value is not None and value not in CHOICES[field]:
            raise unknown(field, value, CHOICES[field])


def software(
    stack: object, execution: str | None, device: Device, source: Source, techniques: Mapping[str, Any]
) -> Stack:
    """The stack that is named, or the usual one; the one of its graphs for a token that is one."""
    mode = source.workload.mode
    if stack is None:
        found = usual(mode, device.vendor, _form(source, techniques), device.generation)
    else:
        found = _named(stack)
    graph = found.graphs and mode == "decode" and execution == "graph"
    return load(found.graphs) if graph else found


def _named(stack: object) -> Stack:
    """A stack, by its name or as it is. Raises InputError."""
    found = load(stack) if isinstance(stack, str) else stack
    if not isinstance(found, Stack):
        raise InputError("stack", f"got {shown(stack)}; allowed: a stack's name, or a Stack")
    if isinstance(stack, str) and stack.endswith(".json"):
        check(found)
    return found


def _form(source: Source, techniques: Mapping[str, Any]) -> str:
    """The engine's own format that weights have, as they are stored or asked for; "" of any engine's."""
    if stored := source.usual.get("packing"):
        return str(stored.family)
    asked = techniques.get("quantize", "none")
    if asked == "none" or not isinstance(asked, str):
        return ""
    from .plan.quantize import family

    return family(asked.lower())


def check(stack: Stack) -> None:
    """Raise an InputError for a default of a stack that its setting does not allow, or for no setting."""
    told = [(mode, getattr(stack, mode) or {}) for mode in ("train", "serve", *BESIDES)]
    for where, given in (*told, *(("formats", {"quantize": form}) for form in stack.formats)):
        try:
            for name in given.keys() & UNSAID:
                if given[name] not in CHOICES[name]:
                    raise unknown(name, given[name], CHOICES[name])
            chosen({name: value for name, value in given.items() if name not in UNSAID})
        except InputError as error:
            raise InputError("stack", f"{stack.name}.json: {where}.{error}") from None


def dtype(asked: str | None, source: Source, device: Device, stack: Stack) -> str:
    """The dtype that is asked for; else a network's own, and the device's usual one where it has none or the
    device lacks it, or that in which an engine's weights are served, where the usual one is of 32 bits. A
    network whose tensors have their dtypes already keeps them. Raises InputError.
    """
    own = source.usual.get("dtype")
    if own and not (isinstance(source.network, Ready) or device.has(own)):
        own = None
    wide = device.usual_dtype == "fp32"
    return computed(asked or own or (wide and stack.weights) or device.usual_dtype)


def settings(
    stack: Stack, recompute: str, kind: str, source: Source, techniques: Mapping[str, Any]
) -> dict[str, Any]:
    """A stack's settings (by precision), without those that this dtype, this network or a torch module, which
    has its own, cannot have; and UNSAID. A class of transformers without SDPA has its family's attention.
    Raises InputError.

    Precision is that of weights that are trained: what adapters or few bits leave as it is stays so.
    """
    network, workload = source.network, source.workload
    of = partial(stack.settings, workload.mode, recompute, seq=workload.seq)
    captured = isinstance(network, Ready) and network.model.captured
    mixed = kind in ("bfloat16", "float16") and not (techniques and keeps_weights(techniques))
    precision = of().get("precision", "pure") if mixed and not captured else "pure"
    found = {
        name: value
        for name, value in of(precision=techniques.get("precision", precision)).items()
        if (name in OF_MODULES or not captured) and (name != "precision" or mixed)
    }
    if found.get("attention") == "sdpa" and not stack.own_networks:
        found["attention"] = source.usual.get("attention", "sdpa")
    if "fuse" in found.keys() - techniques.keys():
        from .plan.fused import those_of

        found["fuse"] = those_of(built(network, workload), found["fuse"])
    return {**UNSAID, **found}
