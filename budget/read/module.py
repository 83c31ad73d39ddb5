"""A torch module as the model of an estimate: its program, and the settings that it can have.

This file does not import torch: whoever has a module has done so.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping

from ..config import Workload, size
from ..dtype import full_name
from ..errors import InputError, shown
from ..ir import Model
from ..named import Any, NamedTuple
from ..plan import unnamed

CASTS = ("float64", "float32", "tf32", "bfloat16", "float16")
SIZES = ("inputs", "batch", "seq", "image")  # what says of an estimate's settings how large the input is


def is_module(model: object) -> bool:
    """Whether a model is a torch module."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(model, torch.nn.Module)


def is_captured(model: object) -> bool:
    """Whether a model is a torch module's program, whose dimensions have no names."""
    return isinstance(model, Model) and model.arch == "module"


def program(
    module: Any, *, inputs: Any = None, mode: str = "train", dtype: str | None = None, **sizes: Any
) -> Model:
    """A torch module's program: for its inputs, or for ones of a batch, seq and image where these are
    not None. Inputs may be sizes (`sized`), whose first dimension a batch replaces. Raises InputError.
    """
    from . import torch_module

    sizes = {name: _whole(name, value) for name, value in sizes.items() if value is not None}
    if inputs is None:
        inputs = torch_module.default_inputs(module, Workload(mode, **sizes))
    elif (shapes := sized(inputs)) is not None:
        if others := sizes.keys() - {"batch"}:
            raise InputError(
                min(others), "the inputs' sizes are given; allowed: batch, their first dimension"
            )
        inputs = torch_module.of_sizes(module, shapes, sizes.get("batch"))
    elif sizes:
        raise InputError(min(sizes), "inputs are given; allowed: inputs, or batch, seq and image")
    return torch_module.capture(module, inputs, mode, _cast(dtype))


class Shape(NamedTuple):
    """An input by its sizes, of a dtype ("": the module's own)."""

    sizes: tuple[int, ...]
    dtype: str = ""


def sized(inputs: Any) -> Any:
    """Inputs that are given as sizes, one or a list or dict of them, as Shapes; None for others.

    `8x128`, `int64:8x128`, (8, 128), ("int64", 8, 128). Raises InputError for text that is none of these.
    """
    if isinstance(inputs, str):
        dtype, _, sizes = inputs.rpartition(":")
        parts = sizes.split("x")
        if not all(part.isascii() and part.isdigit() and int(part) for part in parts) or ":" in dtype:
            raise InputError("inputs", f"got {inputs[:60]!r}; allowed: sizes as 8x3x224x224 or int64:8x128")
        return Shape(tuple(map(int, parts)), dtype)
    if isinstance(inputs, Mapping):
        named = {name: sized(x) for name, x in inputs.items()}
        return named if named and None not in named.values() else None
    if not isinstance(inputs, tuple | list) or not inputs:
        return None
    dtype, *rest = inputs if isinstance(inputs[0], str) else ("", *inputs)
    if rest and all(isinstance(n, int) and not isinstance(n, bool) for n in rest):
        if min(rest) < 1:
            raise InputError("inputs", f"got {shown(inputs)}; allowed: sizes of 1 or more")
        return Shape(tuple(rest), dtype)
    found = [sized(x) for x in inputs]
    return found if None not in found else None


def _cast(dtype: str | None) -> str:
    """What parameters and inputs are cast to; TF32 is float32 in memory. Raises InputError."""
    if not dtype:
        return ""
    name = full_name(dtype)
    if name not in CASTS:
        raise InputError("dtype", f"got {dtype!r}; allowed for a torch module: {', '.join(CASTS)}")
    return "float32" if name == "tf32" else name


def _whole(name: str, value: Any) -> int:
    """A size as a tensor has it. Raises InputError."""
    whole = size(name, value)
    if not isinstance(whole, int):
        raise InputError(name, f"got {shown(value)}; allowed for a torch module: one whole number")
    return whole


def check(model: Any, mode: str, requested: Mapping[str, Any], config: Iterable[str]) -> None:
    """Raise an InputError for what a torch module does in its own code, or what needs named dimensions.

    requested: recompute, attention and the settings of techniques.
    """
    techniques = dict(requested)
    recompute, attention = techniques.pop("recompute"), techniques.pop("attention")
    modes = (model.config["mode"],) if is_captured(model) else ("train", "forward")
    if mode not in modes:
        raise InputError("mode", f"got {mode!r}; allowed for this torch module: {', '.join(modes)}")
    if recompute != "none":
        raise InputError("recompute", "a torch module does its own, by torch.utils.checkpoint; allowed: none")
    if attention is not None:
        raise InputError("attention", "a torch module calls its own; allowed: nothing here")
    nameless = unnamed() if techniques else ()
    for name in (*config, *(name for name in techniques if name not in nameless)):
        raise InputError(
            name, "a torch module's dimensions have no names; allowed: with a built-in architecture"
        )
    if techniques.get("precision", "pure") not in ("pure", "master"):
        raise InputError(
            "precision", "a torch module casts by itself, in torch.autocast; allowed: pure, master"
        )
