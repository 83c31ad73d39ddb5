"""Frozen weights in 4 or 8 bits, widened before each product that reads them and never kept so.

nf4 is QLoRA's: blocks of 64 with doubly quantized scales. Embeddings, the head and all that is no
matrix stay as they are. Sources: qlora, bitsandbytes.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import InputError, unknown
from ..model import Model, rewrite
from ..op import FROZEN, WEIGHT, WEIGHTS, Op, Tensor
from ._names import untrained
from .fp8 import is_linear

CHOICES = ("none", "nf4", "int8")


def quantize(model: Model, form: str, *, train: bool = True) -> Model:
    """The model with its linear layers' weights in a format of few bits. To be applied before `backward`.

    Raises InputError for weights that train: nothing updates a weight of few bits.
    """
    if form not in CHOICES:
        raise unknown("quantize", form, CHOICES)
    untrained(model, "quantize")
    if form == "none":
        return model
    found = 0

    def change(o: Op) -> Iterator[Op]:
        nonlocal found
        weight = next((t for t in o.weights if not t.added), None)
        if weight is None or not is_linear(o) or weight.dtype or (train and weight.role == WEIGHT):
            yield o
            return
        found += 1
        wide = Tensor(f"{weight.name}~wide", weight.dims)
        few = weight._replace(role=FROZEN, dtype=form)
        yield Op(f"{o.name}.dequantize", "dequantize", (few,), (wide,), o.sizes)
        yield o._replace(ins=tuple(wide if t.role in WEIGHTS and not t.added else t for t in o.ins))

    nodes = rewrite(model.nodes, change)
    if not found:
        raise InputError(
            "quantize",
            f"no linear layer of {model.name} is frozen; allowed: with lora_rank, adapters or freeze",
        )
    return model._replace(nodes=nodes)
