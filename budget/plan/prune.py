"""2:4 sparsity: two of every four neighbouring weights are zero, and a product does half the arithmetic.

Inference stores such weights compressed: half of the values, and two bits for the place of each.
Training keeps them dense and compresses them before the forward product; the backward products are
dense. The FLOPs of the model stay as they are, those of the hardware halve. Source: sparse-2-4.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..config import Task, setting
from ..dtype import IN_FEW_BITS
from ..errors import InputError
from ..ir import WEIGHTS, Model, Op, Tensor, rewrite, walk
from ._names import chosen

KEEPS_WEIGHTS = True
SETTINGS = {"sparse": setting("", "names of the products with 2:4 sparse weights")}
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


def check(task: Task, device: object) -> None:
    """Raise an InputError where products do not read the network's own weights."""
    t = task.techniques
    if t.precision in ("autocast", *IN_FEW_BITS) or t.quantize != "none":
        text = "products read copies of their weights; allowed: without autocast, fp8, nvfp4, quantize"
        raise InputError("sparse", text)


STAGES = {"sparse": lambda model, task: prune(model, task.techniques.sparse, task.dtype)}
