"""P-tuning: virtual tokens before each sequence that a perceptron of three layers makes; all else is frozen.

peft's own, without an LSTM. Source: peft.
"""

from __future__ import annotations

from ..config import Task, setting
from ..ir import WEIGHT, Model, Op, Tensor
from ..size import Size, or_else
from ._beside import wide
from ._virtual import TOKENS, fits, virtual_tokens

SETTINGS = {
    "p_tuning": setting(0, "virtual tokens that a perceptron makes (p-tuning); all else is frozen", least=0),
    "p_tuning_hidden": setting(0, "its hidden width (peft: encoder_hidden_size); 0: d_model", least=0),
}
NEEDS = {"p_tuning": ("train",), "p_tuning_hidden": ("p_tuning",)}
ADAPTER = {"p_tuning": ""}


def perceptron(x: Tensor, width: Size, hidden: Size) -> tuple[list[Op], Tensor]:
    """The operators of three layers from x [virtual, d] to a tensor of its shape, and that tensor."""
    sizes = {"u": or_else(hidden, width), "w": or_else(hidden, width)}
    ops = []
    d = x.dims[-1]
    for i, (read, made) in enumerate(((d, "u"), ("u", "w"), ("w", d))):
        name = f"prompt_encoder.mlp_head.{2 * i}"
        w = Tensor(f"{name}.weight", (made, read), WEIGHT, x.dtype)
        bias = Tensor(f"{name}.bias", (made,), WEIGHT, x.dtype, added=True)
        y = Tensor(f"virtual_{i}", (TOKENS, made), dtype=x.dtype)
        ops.append(Op(name, "contract", (x, w, bias), (y,), sizes))
        x = y
        if i < 2:
            x = y._replace(name=f"virtual_{i}~act")
            ops.append(Op(f"prompt_encoder.mlp_head.{2 * i + 1}", "relu", (y,), (x,), sizes))
    return ops, x


def apply(model: Model, task: Task) -> Model:
    """The model with its virtual tokens."""
    n, hidden = task.techniques.p_tuning, task.techniques.p_tuning_hidden
    fits(model, "p_tuning", n)
    return virtual_tokens(model, "p_tuning", n, wide(task), lambda x, d: perceptron(x, d, hidden))


STAGES = {"adapt": apply}
