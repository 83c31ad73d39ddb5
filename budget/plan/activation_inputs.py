"""An MLP's activation keeps its input in float8 for the backward pass, which widens it again.

This is Megatron-LM's --activation-func-fp8-input-store; DeepSeek-V3's report has it, too (3.3.3). The forward
pass computes with the input as it was made. Sources: megatron-lm, deepseek-v3.
"""

from __future__ import annotations

from ..config import setting
from ..errors import InputError
from ..ir import EXPERT_GATED, EXPERT_UP, GATED, SHARED_GATED, SHARED_UP, UP, Model, Op, walk
from ._exchange import Known, exchanged
from ._names import is_trained

SETTINGS = {
    "activation_inputs": setting("none", "what MLPs' activations keep of theirs", choices=("none", "fp8"))
}
NEEDS = {"activation_inputs": ("train",)}

PRODUCTS = (GATED, UP, EXPERT_GATED, EXPERT_UP, SHARED_GATED, SHARED_UP)  # that make such an input


def stored(model: Model) -> Model:
    """The training program whose activations' inputs are kept in float8. To be applied after `recompute`.

    Raises InputError where none is kept.
    """
    is_trained(model, "activation_inputs")
    nodes = exchanged(model, lambda known: known[1].tag in PRODUCTS, _moves)
    if not any(o.kind == "quantize" and o.of and o.phase == "forward" for o, _ in walk(nodes)):
        why = "keeps none in its layers (recompute, recompute_modules, fuse)"
        raise InputError("activation_inputs", f"{model.name} {why}; allowed: none")
    return model._replace(nodes=nodes)


def _moves(known: Known) -> tuple[Op, Op]:
    """The casts to float8 and back."""
    t, o = known
    narrow = t._replace(name=f"{t.name}~kept", dtype="float8")
    return (
        Op(f"{o.name}.narrow", "quantize", (t,), (narrow,), o.sizes, of=o.name),
        Op(f"{o.name}.widen", "cast", (narrow,), (t,), o.sizes, "backward", o.name),
    )


STAGES = {"offload": lambda model, _: stored(model)}
