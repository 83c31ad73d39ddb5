"""VeRA: one frozen pair of random matrices for all layers, and two trained vectors for each.

Both matrices are as large as the largest layer; each layer takes a part of them. Source: peft.
"""

from __future__ import annotations

from ..config import Task, setting
from ..ir import SCALE, Model, Op, Tensor, walk
from ..size import Size, maximum
from ._beside import FIELD, Layer, adapt, drops, targets, wide

KEEPS_WEIGHTS = True
SETTINGS = {
    "vera_rank": setting(0, "rank of VeRA's shared matrices (peft: 256); all else is frozen", least=0),
    "vera_dropout": setting(0.0, "part of VeRA's inputs that is dropped", least=0, most=1),
}
NEEDS = {"vera_dropout": ("vera_rank",)}
ADAPTER = {"vera_rank": FIELD}


def vera(model: Model, rank: Size, names: frozenset[str], dtype: str = "", *, dropout: bool = False) -> Model:
    """The model with VeRA beside the named products, everything else frozen. Raises InputError."""
    layers = [Layer(o, FIELD) for o, _ in walk(model.nodes) if o.name in names]
    sizes = {"R": rank, "in": layers[0].inputs, "out": layers[0].outputs}
    for layer in layers:
        sizes = {
            **sizes,
            "in": maximum(sizes["in"], layer.inputs),
            "out": maximum(sizes["out"], layer.outputs),
        }
    a, b = (Tensor(f"vera_{n}", dims, SCALE, dtype) for n, dims in (("A", ("R", "in")), ("B", ("out", "R"))))
    seen = [t._replace(name=f"{t.name}~shared", role="activation") for t in (a, b)]

    def change(o: Op) -> list[Op]:
        layer = Layer(o, FIELD, dtype, **sizes)
        own, x = layer.own(), layer.cast(layer.x)
        if dropout:
            x = layer.do("vera_dropout", "dropout", (x,), x.dims)
        down = layer.do("slice_A", "slice", (seen[0],), ("R", *layer.fan_in))
        up = layer.do("slice_B", "slice", (seen[1],), (*layer.fan_out, "R"))
        low = layer.do("vera_A", "contract", (x, down), (*layer.rest, "R"))
        low = layer.do("lambda_d", "mul", (low, layer.weight("vera_lambda_d", "R")), low.dims)
        delta = layer.do("vera_B", "contract", (low, up), o.out.dims)
        delta = layer.do(
            "lambda_b", "mul", (delta, layer.weight("vera_lambda_b", *layer.fan_out)), delta.dims
        )
        layer.end("add", own, delta)
        return layer.ops

    base = adapt(model, names, change)
    shared = (
        Op(f"{t.name}.shared", "resident", (t,), (s,), sizes) for t, s in zip((a, b), seen, strict=True)
    )
    return base._replace(nodes=(*shared, *base.nodes))


def apply(model: Model, task: Task) -> Model:
    """The model with VeRA."""
    t, names = task.techniques, targets(model, task, "vera")
    return vera(model, t.vera_rank, names, wide(task), dropout=drops(task, "vera_dropout"))


STAGES = {"adapt": apply}
