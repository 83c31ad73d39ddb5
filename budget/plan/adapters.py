"""Bottleneck adapters: two small layers with a residual after a product.

As in Houlsby et al., one stands after each attention and each MLP, and the norms train as well.
Source: houlsby-2019.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..config import setting
from ..errors import InputError
from ..ir import WEIGHT, Model, Op, Tensor, is_picked, rewrite, walk
from ..size import Size
from ._names import chosen, operands, untrained
from .freeze import frozen

KEEPS_WEIGHTS = True
SETTINGS = {
    "adapters": setting(0, "width of bottleneck adapters; all else but the norms is frozen", least=0),
    "adapter_targets": setting("attn.o,mlp.down", "names of the products that have adapters behind them"),
}
NEEDS = {"adapter_targets": ("adapters",)}
ADAPTER = {"adapters": "adapter_targets"}


def adapters(model: Model, width: Size, targets: str) -> Model:
    """The model with a bottleneck behind the products that match; only these and the norms train."""
    untrained(model, "adapters")
    names = chosen(model, "adapter_targets", targets, products=True)
    norms = {t.name for o, _ in walk(model.nodes) if o.rule.family == "norm" for t in o.weights}
    others = {t.name for o, _ in walk(model.nodes) for t in o.weights} - norms
    base = frozen(model, others)
    return model._replace(nodes=rewrite(base.nodes, lambda o: _behind(o, width) if o.name in names else (o,)))


def _behind(o: Op, width: Size) -> Iterator[Op]:
    _, w = operands(o, "adapter_targets")
    out = o.out
    features = tuple(d for d in w.dims if d in out.dims)
    if len(features) != 1 or any(is_picked(d) for d in w.dims):
        raise InputError(
            "adapter_targets", f"{o.name} is no plain linear layer; allowed: attn.o, mlp.down and the like"
        )
    (d,) = features
    sizes = {**o.sizes, "R": width}
    base = out._replace(name=f"{out.name}~base")
    low = Tensor(f"{out.name}~low", tuple("R" if x == d else x for x in out.dims))
    acted, delta = low._replace(name=f"{out.name}~act"), out._replace(name=f"{out.name}~delta")

    def linear(name: str, x: Tensor, weight: tuple[str, str], y: Tensor) -> Op:
        bias = Tensor(f"{name}.bias", weight[1:], WEIGHT, added=True)
        return Op(name, "contract", (x, Tensor(f"{name}.weight", weight, WEIGHT), bias), (y,), sizes)

    yield o._replace(outs=(base,))
    yield linear(f"{o.name}.adapter_down", base, (d, "R"), low)
    yield Op(f"{o.name}.adapter_act", "gelu", (low,), (acted,), sizes)
    yield linear(f"{o.name}.adapter_up", acted, ("R", d), delta)
    yield Op(f"{o.name}.adapter_add", "add", (base, delta), (out,), sizes)


STAGES = {
    "adapt": lambda model, task: adapters(model, task.techniques.adapters, task.techniques.adapter_targets)
}
