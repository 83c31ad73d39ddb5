"""A torch module as the model of an estimate: its program, and the settings that it can have.

This file does not import torch: who has a module has imported it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..config import Workload, size
from ..dtype import full_name
from ..errors import InputError, shown
from ..ir import Model
from ..named import Any
from ..plan import unnamed

SIZES = ("inputs", "batch", "seq", "image")  # the settings of an estimate that size the input


def program(
    module: Any, *, inputs: Any = None, mode: str = "train", dtype: str | None = None, **sizes: Any
) -> Model:
    """A torch module's program: for the given inputs, or for inputs of a batch, seq and image that are not
    None. A batch replaces the first dimension of given inputs, whether tensors or their sizes (`sized`).
    Raises InputError.
    """
    from . import _module_inputs, torch_module
    from ._shapes import Shape, sized

    shapes, sizes = None, {name: _whole(name, value) for name, value in sizes.items() if value is not None}
    if inputs is None:
        inputs = _module_inputs.default_inputs(module, Workload(mode, **sizes))
    elif others := sizes.keys() - {"batch"}:
        raise InputError(min(others), "the inputs are given; allowed: batch, their first dimension")
    elif (shapes := sized(inputs)) is not None:
        inputs = _module_inputs.of_sizes(module, shapes, sizes.get("batch"))
    elif "batch" in sizes:
        inputs = _module_inputs.of_batch(inputs, sizes["batch"])
    try:
        return torch_module.capture(module, inputs, mode, _cast(dtype))
    except InputError as error:
        first = shapes[0] if isinstance(shapes, list) else shapes
        if error.field != "inputs" or not isinstance(first, Shape):
            raise
        longer = "x".join(map(str, (sizes.get("batch", 1), *first.sizes)))
        problem = f"{str(error).partition(': ')[2]}; the first of the sizes is the batch, as in {longer}"
        raise InputError("inputs", problem) from None


def _cast(dtype: str | None) -> str:
    """The dtype to which parameters and inputs are cast; TF32 is float32 in memory. Raises InputError."""
    from ._shapes import CASTS

    if not dtype:
        return ""
    name = full_name(dtype)
    if name not in CASTS:
        raise InputError("dtype", f"got {dtype!r}; allowed for a torch module: {', '.join(CASTS)}")
    return "float32" if name == "tf32" else name


def _whole(name: str, value: Any) -> int:
    """A size as a whole number, as tensors have it. Raises InputError."""
    whole = size(name, value)
    if not isinstance(whole, int):
        raise InputError(name, f"got {shown(value)}; allowed for a torch module: one whole number")
    return whole


def check(model: Any, mode: str, requested: Mapping[str, Any], config: Iterable[str]) -> None:
    """Raise an InputError for a setting that a torch module's own code decides, or that needs named
    dimensions.

    requested: recompute, attention and the settings of techniques.
    """
    techniques = dict(requested)
    recompute, attention = techniques.pop("recompute"), techniques.pop("attention")
    modes = (model.config["mode"],) if isinstance(model, Model) else ("train", "forward")
    if mode not in modes:
        raise InputError("mode", f"got {mode!r}; allowed for this torch module: {', '.join(modes)}")
    if recompute != "none":
        raise InputError("recompute", "a torch module does its own, by torch.utils.checkpoint; allowed: none")
    if attention is not None:
        raise InputError("attention", "a torch module calls its own; allowed: nothing here")
    nameless = unnamed() if techniques else ()
    for name in (*config, *(name for name in techniques if name not in nameless)):
        problem = "a torch module's dimensions have no names, nor a captured class's"
        raise InputError(name, f"{problem}; allowed: with a built-in architecture")
    if techniques.get("precision", "pure") not in ("pure", "master"):
        raise InputError(
            "precision", "a torch module casts by itself, in torch.autocast; allowed: pure, master"
        )
