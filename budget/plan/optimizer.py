"""Append the optimizer's step: its state, its temporaries, its arithmetic (rule.py)."""

from __future__ import annotations

from ..errors import unknown
from ..fold.count import params
from ..model import Model
from ..op import STATE, Op, Tensor

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
    operands = [Tensor("grads", ("p",)), Tensor("params", ("p",))]
    operands += [Tensor(f"state{i}", ("p",), STATE, dtype) for i, dtype in enumerate(STATES[name])]
    sizes = {"p": params(model).trainable}
    written = tuple(t._replace(role=STATE) for t in operands[1:])
    step = Op("optimizer", name, tuple(operands), written, sizes, "optimizer")
    return model._replace(nodes=(*model.nodes, step))
