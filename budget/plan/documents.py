"""Documents packed into a sequence: kernels of attention stay within each of them.

With documents of d tokens a kernel computes d pairs a query (causal: half of them) instead of all t. The
operator keeps its shape and gets the window that leaves as many pairs, or the network's own where that is
smaller. Source: flash-attention-2 (flash_attn_varlen_func).
"""

from __future__ import annotations

from ..config import Task, setting
from ..errors import InputError
from ..ir import KEY_SEQ, Model, Op, rewrite
from ..size import Size, is_zero, minimum

SETTINGS = {
    "documents": setting(
        0,
        "tokens of each document of a packed sequence, their mean, which attention stays within; 0: one",
        least=0,
    )
}
NEEDS = {"documents": ("train",)}
KNOW = ("flash", "per_head")  # choices of attention whose kernels can be given the documents' ends


def documents(model: Model, tokens: Size) -> Model:
    """The model whose kernels of attention stay within documents of so many tokens."""

    def within(o: Op) -> tuple[Op]:
        if not o.kernel or KEY_SEQ not in o.sizes:
            return (o,)
        t = o.sizes[KEY_SEQ]
        window = t * (1 - (1 - minimum(tokens, t) / t) ** 0.5)
        return (o._replace(window=window if is_zero(o.window) else minimum(window, o.window)),)

    return model._replace(nodes=rewrite(model.nodes, within))


def check(task: Task, device: object) -> None:
    """Raise an InputError for a choice of attention that computes all pairs."""
    if task.attention not in KNOW:
        got = f"attention {task.attention} computes all pairs, whatever a mask says"
        raise InputError("documents", f"{got}; allowed: with attention {' or '.join(KNOW)}")


STAGES = {"teach": lambda model, task: documents(model, task.techniques.documents)}
