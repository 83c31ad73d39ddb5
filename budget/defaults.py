"""The defaults of a run: its software stack, the dtype of its tensors, and all other settings."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from .device import Device
from .dtype import computed
from .errors import InputError, unknown, wrong
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
# The settings that are no technique's, and their defaults where a stack has none.
NO_TECHNIQUES = {"execution": "compiled", "attention": "flash", "optimizer": "adamw"}
# The settings of a stack that a torch module takes; the others it decides itself.
OF_MODULES = ("execution", "memory_format", "cache_implementation")


def choices(**given: str | None) -> None:
    """Raise an InputError for a value that its setting does not allow."""
    for field, value in given.items():
        if value is not None and value not in CHOICES[field]:
            raise unknown(field, value, CHOICES[field])


def software(
    stack: object, execution: str | None, device: Device, source: Source, techniques: Mapping[str, Any]
) -> Stack:
    """The stack that is named, or the usual one; where a token is one graph, the stack of its graphs."""
    mode = source.workload.mode
    if stack is None:
        named = usual(mode, device.vendor, _form(source, techniques), device.generation)
    else:
        named = _named(stack)
    graph = named.graphs and mode == "decode" and execution == "graph"
    return load(named.graphs) if graph else named


def _named(stack: object) -> Stack:
    """A stack, by its name or as it is. Raises InputError."""
    loaded = load(stack) if isinstance(stack, str) else stack
    if not isinstance(loaded, Stack):
        raise wrong("stack", stack, "a stack's name, or a Stack")
    if isinstance(stack, str) and stack.endswith(".json"):
        check(loaded)
    return loaded


def _form(source: Source, techniques: Mapping[str, Any]) -> str:
    """The format of weights, stored or asked for, that belongs to one engine (`gguf`, `mlx`); "": none."""
    if stored := source.usual.get("packing"):
        return str(stored.family)
    form = techniques.get("quantize", "none")
    if form == "none" or not isinstance(form, str):
        return ""
    from .plan.quantize import family

    return family(form.lower())


def check(stack: Stack) -> None:
    """Raise an InputError for a default of a stack that is no setting, or that its setting does not allow."""
    by_mode = [(mode, getattr(stack, mode) or {}) for mode in ("train", "serve", *BESIDES)]
    for where, given in (*by_mode, *(("formats", {"quantize": form}) for form in stack.formats)):
        try:
            for name in given.keys() & NO_TECHNIQUES:
                if given[name] not in CHOICES[name]:
                    raise unknown(name, given[name], CHOICES[name])
            chosen({name: value for name, value in given.items() if name not in NO_TECHNIQUES})
        except InputError as error:
            raise InputError("stack", f"{stack.name}.json: {where}.{error}") from None


def dtype(asked: str | None, source: Source, device: Device, stack: Stack) -> str:
    """The dtype that tensors have.

    It is what is asked for; else the network's own, if the device computes in it (a torch module keeps its
    own in any case); else, where the device's usual dtype has 32 bits, that in which the stack serves
    weights; else the device's usual one. Raises InputError.
    """
    checkpoint = source.usual.get("dtype")
    if checkpoint and not (isinstance(source.network, Ready) or device.has(checkpoint)):
        checkpoint = None
    in_float32 = device.usual_dtype == "fp32"
    return computed(asked or checkpoint or (in_float32 and stack.weights) or device.usual_dtype)


def settings(
    stack: Stack, recompute: str, kind: str, source: Source, techniques: Mapping[str, Any]
) -> dict[str, Any]:
    """Each setting's default: the network's own optimizer, else the stack's, else NO_TECHNIQUES's.

    Settings of the stack that this dtype or this network cannot have are left out; a torch module takes those
    of OF_MODULES alone. A class of transformers that has no SDPA runs its family's attention.
    Precision is that of trained weights: frozen ones, beside adapters or in few bits, stay as they are.
    Raises InputError.
    """
    network, workload = source.network, source.workload
    of_stack = partial(stack.settings, workload.mode, recompute, seq=workload.seq)
    captured = isinstance(network, Ready) and network.model.captured
    mixed = kind in ("bfloat16", "float16") and not (techniques and keeps_weights(techniques))
    precision = of_stack().get("precision", "pure") if mixed and not captured else "pure"
    defaults = {
        name: value
        for name, value in of_stack(precision=techniques.get("precision", precision)).items()
        if (name in OF_MODULES or not captured) and (name != "precision" or mixed)
    }
    if defaults.get("attention") == "sdpa" and not stack.own_networks:
        defaults["attention"] = source.usual.get("attention", "sdpa")
    if "fuse" in defaults.keys() - techniques.keys():
        from .plan.fused import those_of

        defaults["fuse"] = those_of(built(network, workload), defaults["fuse"])
    optimizer = source.usual.get("optimizer")
    return {**NO_TECHNIQUES, **defaults, **({"optimizer": optimizer} if optimizer else {})}
