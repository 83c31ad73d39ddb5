"""A captured class of transformers described: its config, and its parts that are not counted."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from ..ir import Model, walk
from ..named import Any
from .hf_fields import has_few_bits


def described(model: Model, module: Any, values: Mapping[str, Any], given: Mapping[str, Any]) -> Model:
    """A captured program with its config's description, and the parts of the config that are not in it."""
    kind, left = values["model_type"], [*model.uncounted, *_unreached(module, model)]
    if module.config.model_type != kind:
        left.append(f"all of {kind} but its text model: timm is not installed")
    if has_few_bits(values):
        left.append(f"quantization_config: weights are taken for {module.dtype}".replace("torch.", ""))
    shapes = {name: list(t.shape) for name, t in given.items()}
    about = {"class": type(module).__name__, "model_type": kind, "captured": True, "inputs": shapes}
    return model._replace(config={**model.config, **about}, uncounted=tuple(left))


def _unreached(network: Any, model: Model) -> tuple[str, ...]:
    """The outermost modules whose weights nothing reads: a tower of images, where the input is text."""
    read = {t.name for o, _ in walk(model.nodes) if o.kind != "resident" for t in o.ins}
    names = tuple(name for name, _ in network.named_parameters())

    def outermost(module: Any, path: str) -> Iterator[str]:
        for name, child in module.named_children():
            own = {n for n in names if n.startswith(f"{path}{name}.")}
            if own and read.isdisjoint(own):
                yield re.sub(r"\b\d+\b", "*", f"{path}{name}")
            elif own - read:
                yield from outermost(child, f"{path}{name}.")

    return tuple(f"{name}, which no input reaches" for name in dict.fromkeys(outermost(network, "")))
