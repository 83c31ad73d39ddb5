"""Low-rank adapters beside frozen products, and bottleneck adapters behind them.

LoRA adds B(A(x)) to a product W x: A takes x to `rank` features, B from there to the product's own.
All other weights are frozen, as peft leaves them. Sources: lora, peft.
Adapters are two small layers and a residual behind a product: as in Houlsby et al. they follow each
attention and each multi-layer perceptron, and the norms train with them. Source: houlsby-2019.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import InputError
from ..model import Model, rewrite, walk
from ..op import WEIGHT, Op, Tensor
from ..size import Size
from ._names import chosen, untrained
from .freeze import frozen


def lora(model: Model, rank: Size, targets: str, dtype: str = "") -> Model:
    """The model with adapters of a rank beside the products that match, everything else frozen.

    dtype: of the adapters; "" is the model's own, float32 what peft makes of 16-bit ones.
    Raises InputError.
    """
    untrained(model, "lora_rank")
    names = chosen(model, "lora_targets", targets, products=True)
    base = frozen(model, None)
    return model._replace(
        nodes=rewrite(base.nodes, lambda o: _beside(o, rank, dtype) if o.name in names else (o,))
    )


def usual(model: Model) -> str:
    """What peft adapts where nothing is named: queries and values, or the projection that has them both."""
    fused = any(o.name.endswith(".qkv") for o, _ in walk(model.nodes))
    return "qkv" if fused else "attn.q,attn.v"


def _beside(o: Op, rank: Size, dtype: str) -> Iterator[Op]:
    """W x, B(A(x)) and their sum; a window's extent (a convolution) belongs to A."""
    x, w = _operands(o, "lora_targets")
    sizes = {**o.sizes, "R": rank}
    picked = tuple(d for d in w.dims if d[0] == "~")
    fan_out = tuple(d for d in w.dims if d in o.out.dims)
    fan_in = tuple(d for d in w.dims if d not in o.out.dims and d not in picked)
    rest = tuple(d for d in o.out.dims if d not in fan_out)
    base = o.out._replace(name=f"{o.out.name}~base")
    low, delta = (
        Tensor(f"{o.out.name}~low", (*rest, "R"), dtype=dtype),
        Tensor(f"{o.out.name}~delta", o.out.dims, dtype=dtype),
    )
    down = Tensor(f"{o.name}.lora_A.weight", (*picked, *fan_in, "R"), WEIGHT, dtype)
    up = Tensor(f"{o.name}.lora_B.weight", (*picked, "R", *fan_out), WEIGHT, dtype)
    yield o._replace(outs=(base,))
    if dtype:
        cast = x._replace(name=f"{o.out.name}~x", dtype=dtype)
        yield Op(f"{o.name}.lora_cast", "cast", (x,), (cast,), sizes)
        x = cast
    yield Op(f"{o.name}.lora_A", "contract", (x, down), (low,), sizes)
    yield Op(f"{o.name}.lora_B", "contract", (low, up), (delta,), sizes)
    scaled = delta._replace(name=f"{o.out.name}~scaled")
    yield Op(f"{o.name}.lora_scale", "scale", (delta,), (scaled,), sizes)
    if dtype:
        total = scaled._replace(name=f"{o.out.name}~sum")
        yield Op(f"{o.name}.lora_add", "add", (base, scaled), (total,), sizes)
        yield Op(f"{o.name}.lora_uncast", "cast", (total,), (o.out,), sizes)
    else:
        yield Op(f"{o.name}.lora_add", "add", (base, scaled), (o.out,), sizes)


def adapters(model: Model, width: Size, targets: str) -> Model:
    """The model with a bottleneck behind the products that match; only these and the norms train."""
    untrained(model, "adapters")
    names = chosen(model, "adapter_targets", targets, products=True)
    norms = {t.name for o, _ in walk(model.nodes) if "norm" in o.kind for t in o.weights}
    others = {t.name for o, _ in walk(model.nodes) for t in o.weights} - norms
    base = frozen(model, others)
    return model._replace(nodes=rewrite(base.nodes, lambda o: _behind(o, width) if o.name in names else (o,)))


def _behind(o: Op, width: Size) -> Iterator[Op]:
    _, w = _operands(o, "adapter_targets")
    out = o.out
    features = tuple(d for d in w.dims if d in out.dims)
    if len(features) != 1 or any(d[0] == "~" for d in w.dims):
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


def _operands(o: Op, field: str) -> tuple[Tensor, Tensor]:
    """The activation and the weight of a product. Raises InputError for a product of another kind."""
    xs, ws = [t for t in o.ins if not t.added and t not in o.weights], [t for t in o.weights if not t.added]
    if len(xs) != 1 or len(ws) != 1 or "g" in ws[0].dims:
        raise InputError(field, f"{o.name} is no product of one input and one weight; allowed: linear layers")
    return xs[0], ws[0]
