"""2:4 sparsity: of four neighbouring weights two are zero, and a product does half the arithmetic.

Inference stores such weights compressed: half of the values and two bits for the place of each.
Training keeps them dense and compresses them before the forward product; the backward products are
dense. The FLOPs of the model stay as they are, those of the hardware halve. Source: sparse-2-4.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import InputError
from ..model import Model, rewrite, walk
from ..op import WEIGHTS, Op, Tensor
from ._names import chosen

FORMATS = {"bfloat16": "sparse16", "float16": "sparse16", "float8": "sparse8", "int8": "sparse8"}


def prune(model: Model, patterns: str, dtype: str) -> Model:
    """The program with the forward products that match on sparse weights. To be applied after `backward`.

    Raises InputError, also for a dtype that no sparse product has.
    """
    if dtype not in FORMATS:
        raise InputError("sparse", f"got dtype {dtype}; allowed: bf16, fp16, fp8")
    names = chosen(model, "sparse", patterns, products=True)
    train = any(o.phase == "backward" for o, _ in walk(model.nodes))

    def change(o: Op) -> Iterator[Op]:
        weight = next((t for t in o.weights if not t.added), None)
        if o.name not in names or weight is None or weight.dtype:
            yield o
            return
        sparse = weight._replace(dtype=FORMATS[dtype])
        if train:
            sparse = Tensor(f"{weight.name}~sparse", weight.dims, dtype=FORMATS[dtype])
            yield Op(f"{o.name}.compress", "compress", (weight,), (sparse,), o.sizes, o.phase, o.of)
        yield o._replace(ins=tuple(sparse if t.role in WEIGHTS and not t.added else t for t in o.ins))

    return model._replace(nodes=rewrite(model.nodes, change))
