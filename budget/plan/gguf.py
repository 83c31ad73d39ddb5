"""Weights in few bits as a GGUF file holds them, for inference: all matrices and the vocabulary's table.

Of llama.cpp's formats those that have one block for all layers, and the two mixes that people use most, in
which some layers' values and last projections have more bits. Vectors stay in the model's dtype, where a file
has float32. Sources: ggml, llama-cpp.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..dtype import BYTES
from ..errors import InputError, unknown
from ..ir import (
    DOWN,
    EMBED,
    FROZEN,
    HEAD,
    ROUTER,
    SCALE,
    VALUE,
    Model,
    Op,
    Tensor,
    elements,
    gemm,
    rewrite,
    walk,
)
from ..size import is_number
from ._names import untrained
from .fp8 import is_linear

# Formats of a GGUF file, each with the output projection's, and that of a table that is one with it.
# Falcon's q8_0 is not modelled. Source: llama-cpp.
GGUF = {"q8_0": "q8_0", "q6_k": "q6_k", "q5_1": "q6_k", "q5_0": "q6_k", "q4_1": "q6_k", "q4_0": "q6_k"}

# Mixes: the format of most matrices, and that of some layers' values and last projections, and of the output.
# Derived: with them Llama-3-8B's files have the published bytes, but for the same 7,836,224 of their headers.
MIXES = {"q4_k_m": ("q4_k", "q6_k"), "q5_k_m": ("q5_k", "q6_k")}
FORMATS = (*GGUF, *MIXES)
RICHER = (VALUE, DOWN)
LARGE = 80  # layers of a 70B: its other values are q5_k where most matrices are q4_k. Source: llama-cpp.


def more_bits(i: int, layers: int) -> bool:
    """Whether a layer's RICHER matrices have the larger format: first, last, and a third of the others."""
    eighth = layers // 8
    return i < eighth or i >= 7 * layers // 8 or (i - eighth) % 3 == 2


def gguf(model: Model, form: str, *, train: bool = False, widened: bool = False) -> Model:
    """The model with its matrices in a format, which products read as they are. Raises InputError.

    widened: where a product has several rows, by a kernel before it. Source: llama-cpp-cublas.
    """
    if form not in FORMATS:
        raise unknown("quantize", form, FORMATS)
    if train:
        raise InputError("quantize", f"got {form}, which is for inference; allowed: nf4, nf4-dq, int8")
    untrained(model, "quantize")
    base, top = MIXES.get(form, (form, ""))
    heads = {t.name for o, _ in walk(model.nodes) for t in o.weights if o.tag == HEAD}

    def stored(t: Tensor) -> Tensor:
        return t._replace(role=FROZEN, dtype=(top or GGUF[form]) if t.name in heads else base)

    def change(o: Op) -> Iterator[Op]:
        if not (o.tag == EMBED or is_linear(o, head=True)):
            yield o
            return
        few = {t.name: stored(t) for t in o.weights if not t.added}
        g = gemm(o) if widened and o.tag != EMBED else None
        if g is None or (is_number(g.m) and g.m == 1):
            yield o._replace(ins=tuple(few.get(t.name, t) for t in o.ins))
            return
        wide = {name: Tensor(f"{o.name}~{t.label}~wide", t.dims) for name, t in few.items()}
        for name, t in few.items():
            yield Op(f"{o.name}.dequantize", "dequantize", (t,), (wide[name],), o.sizes)
        yield o._replace(ins=tuple(wide.get(t.name, t) for t in o.ins))

    nodes = rewrite(model.nodes, change)
    return model._replace(nodes=(_richer(model, base, top), *nodes) if top else nodes)


def _richer(model: Model, base: str, top: str) -> Op:
    """What some layers' matrices have beyond the format of most, in bytes. Raises InputError."""
    ops = list(walk(model.nodes))
    rows = [(o, times) for o, times in ops if o.tag in RICHER]
    layers, down = (sum(times for o, times in rows if o.tag == tag) for tag in RICHER)
    shapes = {(o.tag, elements(o.weights[0], o.sizes)) for o, _ in rows}
    alike = isinstance(layers, int) and layers == down and len(shapes) == len(RICHER)
    if not alike or any(o.tag == ROUTER for o, _ in ops):
        raise InputError(
            "quantize", f"{model.name}'s layers are no dense decoder's alike; allowed: {', '.join(GGUF)}"
        )
    richer = sum(more_bits(i, layers) for i in range(layers))
    more = richer * sum(size for _, size in shapes) * (BYTES[top] - BYTES[base])
    if layers == LARGE and base == "q4_k":
        values = next(size for tag, size in shapes if tag == VALUE)
        more += (layers - richer) * values * (BYTES["q5_k"] - BYTES[base])
    extra = Tensor("richer~stored", ("n",), SCALE, "uint8")
    sizes = {"n": round(more)}
    return Op("richer", "resident", (extra,), (Tensor("richer~seen", ("n",), dtype="uint8"),), sizes)
