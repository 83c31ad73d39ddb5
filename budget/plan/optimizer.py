"""Append the optimizer's step: its state, its temporaries, its arithmetic (rule.py)."""

from __future__ import annotations

from ..errors import unknown
from ..fold.count import trained
from ..model import Model
from ..op import STATE, Op, Tensor
from ..size import Size

# The state that each optimizer keeps for a trained parameter, by dtype ("" is the parameter's own).
STATES: dict[str, tuple[str, ...]] = {
    "none": (),
    "sgd": (),
    "momentum": ("",),
    "adam": ("", ""),
    "adamw": ("", ""),
    "adamw_8bit": ("int8", "int8"),
    "lion": ("",),
}


def optimizer(model: Model, name: str) -> Model:
    """The model with one operator behind it that updates all trained parameters. Raises InputError."""
    if name not in STATES:
        raise unknown("optimizer", name, STATES)
    if name == "none":
        return model
    steps = (_step(name, dtype, size) for dtype, size in trained(model).items())
    return model._replace(nodes=(*model.nodes, *steps))


def _step(name: str, dtype: str, size: Size) -> Op:
    """One step of the parameters of one dtype: torch's foreach steps take them one dtype at a time."""
    operands = [Tensor("grads", ("p",), dtype=dtype), Tensor("params", ("p",), dtype=dtype)]
    operands += [Tensor(f"state{i}", ("p",), STATE, own or dtype) for i, own in enumerate(STATES[name])]
    written = tuple(t._replace(role=STATE) for t in operands[1:])
    return Op("optimizer", name, tuple(operands), written, {"p": size}, "optimizer")
