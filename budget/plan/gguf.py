"""Weights in few bits as a GGUF file holds them, for inference: all matrices and the vocabulary's table.

Of llama.cpp's formats those that have one block for all layers; the mixes (Q4_K_M and the like) have
several. Vectors stay in the model's dtype, where a file has float32. Sources: ggml, llama-cpp.
"""

from __future__ import annotations

from ..errors import InputError, unknown
from ..ir import EMBED, FROZEN, HEAD, Model, Op, Tensor, rewrite, walk
from ._names import untrained
from .fp8 import is_linear

# Formats of a GGUF file, each with the output projection's, and that of a table that is one with it.
# Falcon's q8_0 is not modelled. Source: llama-cpp.
GGUF = {"q8_0": "q8_0", "q6_k": "q6_k", "q5_1": "q6_k", "q5_0": "q6_k", "q4_1": "q6_k", "q4_0": "q6_k"}


def gguf(model: Model, form: str, *, train: bool = False) -> Model:
    """The model with its matrices in a format, which products read as they are. Raises InputError."""
    if form not in GGUF:
        raise unknown("quantize", form, GGUF)
    if train:
        raise InputError("quantize", f"got {form}, which is for inference; allowed: nf4, nf4-dq, int8")
    untrained(model, "quantize")
    heads = {t.name for o, _ in walk(model.nodes) for t in o.weights if o.tag == HEAD}

    def stored(t: Tensor) -> Tensor:
        return t._replace(role=FROZEN, dtype=GGUF[form] if t.name in heads else form)

    def change(o: Op) -> tuple[Op]:
        if not (o.tag == EMBED or is_linear(o, head=True)):
            return (o,)
        return (o._replace(ins=tuple(stored(t) if t in o.weights and not t.added else t for t in o.ins)),)

    return model._replace(nodes=rewrite(model.nodes, change))
