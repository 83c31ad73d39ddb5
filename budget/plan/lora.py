"""Low-rank adapters beside frozen products, and bottleneck adapters behind them.

LoRA adds B(A(x)) to a product W x: A takes x to `rank` features, B from there to the product's own.
All other weights are frozen, as peft leaves them. Sources: lora, peft.
Adapters are two small layers and a residual behind a product: as in Houlsby et al. they follow each
attention and each multi-layer perceptron, and the norms train with them. Source: houlsby-2019.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ..config import Task, setting
from ..dtype import full_name
from ..errors import InputError
from ..ir import QKV, SUMMAND, WEIGHT, Model, Op, Tensor, beside, is_picked, rewrite, walk
from ..named import NamedTuple
from ..size import Size
from ._names import chosen, untrained, wide
from .freeze import frozen

SETTINGS = {
    "lora_rank": setting(0, "rank of low-rank adapters; all else is frozen", least=0),
    "lora_targets": setting(
        "", "names of the products that have low-rank adapters (attn.q,attn.v or attn.qkv)"
    ),
    "lora_dtype": setting("", "dtype of low-rank adapters (peft: fp32), where it is not the model's own"),
    "lora_dropout": setting(0.0, "part of the adapters' inputs that is dropped", least=0),
    "adapters": setting(0, "width of bottleneck adapters; all else but the norms is frozen", least=0),
    "adapter_targets": setting("attn.o,mlp.down", "names of the products that have adapters behind them"),
}
NEEDS = {
    "lora_targets": ("lora_rank",),
    "lora_dtype": ("lora_rank",),
    "lora_dropout": ("lora_rank",),
    "adapter_targets": ("adapters",),
}
EXCLUDES = {"adapters": ("lora_rank",)}


class Part(NamedTuple):
    """One output of a projection that makes several: a fused one's queries, keys or values."""

    name: str
    product: str  # the projection's name
    out: Tensor
    sizes: Mapping[str, Size]


def lora(model: Model, rank: Size, targets: str, dtype: str = "", *, dropout: bool = False) -> Model:
    """The model with adapters of a rank beside the products that match, everything else frozen.

    dtype: of the adapters; "" is the model's own, float32 what peft makes of 16-bit ones.
    dropout: each adapter has its own copy of its input, and a mask. Raises InputError.
    """
    untrained(model, "lora_rank")
    fused = tuple(_parts(model))
    names = chosen(model, "lora_targets", targets, products=True, more=[p.name for p in fused])
    base = frozen(model, None)

    def change(o: Op) -> Iterator[Op]:
        parts = [p for p in fused if p.product == o.name and p.name in names]
        if o.name in names or parts:
            yield from _beside(o, () if o.name in names else parts, rank, dtype, dropout)
        else:
            yield o

    return base._replace(nodes=rewrite(base.nodes, change))


def _parts(model: Model) -> Iterator[Part]:
    """What fused projections make: views of one output."""
    products = {o.out.name: o.name for o, _ in walk(model.nodes) if o.kind == "contract"}
    for o, _ in walk(model.nodes):
        if o.kind == "view" and len(o.outs) > 1 and o.ins[0].name in products:
            for t in o.outs:
                yield Part(beside(o, t.label), products[o.ins[0].name], t, o.sizes)


def usual(model: Model) -> str:
    """What peft adapts where nothing is named: queries and values, or the projection that has them both."""
    fused = any(o.tag == QKV for o, _ in walk(model.nodes))
    return "qkv" if fused else "attn.q,attn.v"


def _beside(o: Op, parts: Sequence[Part], rank: Size, dtype: str, dropout: bool) -> Iterator[Op]:
    """W x, B(A(x)) and their sum; a window's extent (a convolution) belongs to A.

    Of a fused projection `parts` may be adapted alone. Zeros stand for the others, and what is copied
    between them is kept, as torch's index_copy keeps it. Source: litgpt.
    """
    x, w = _operands(o, "lora_targets")
    out, sizes = o.out, {**o.sizes, "R": rank}
    base, scaled = (_summand(out, what) for what in ("base", "scaled"))
    yield o._replace(outs=(base,))
    if dtype:
        cast = x._replace(name=f"{out.name}~x", dtype=dtype)
        yield Op(f"{o.name}.lora_cast", "cast", (x,), (cast,), sizes)
        x = cast
    if dropout:
        dropped = x._replace(name=f"{out.name}~dropped")
        yield Op(f"{o.name}.lora_dropout", "dropout", (x,), (dropped,), sizes)
        x = dropped
    pairs = [_pair(p, x, w, o, rank, dtype) for p in parts or (Part(o.name, o.name, out, {}),)]
    for pair in pairs:
        yield from pair
    delta = pairs[0][-1].out
    if parts:
        delta = _summand(out, "padded")._replace(dtype=dtype)
        yield Op(f"{o.name}.lora_pad", "zero_pad", tuple(b.out for _, b in pairs), (delta,), sizes)
    scaled = scaled._replace(dtype=dtype)
    yield Op(f"{o.name}.lora_scale", "scale", (delta,), (scaled,), sizes)
    if dtype:
        total = _summand(out, "sum")._replace(dtype=dtype)
        yield Op(f"{o.name}.lora_add", "add", (base, scaled), (total,), sizes)
        yield Op(f"{o.name}.lora_uncast", "cast", (total,), (out,), sizes)
    else:
        yield Op(f"{o.name}.lora_add", "add", (base, scaled), (out,), sizes)


def _summand(out: Tensor, what: str) -> Tensor:
    return out._replace(name=f"{out.name}~{what}", part=SUMMAND, of=out.name)


def _pair(part: Part, x: Tensor, w: Tensor, o: Op, rank: Size, dtype: str) -> tuple[Op, Op]:
    """A and B of one output of a product with the weight w."""
    out, sizes = part.out, {**o.sizes, **part.sizes, "R": rank}
    rest = tuple(d for d in o.out.dims if d not in w.dims)
    fan_out = tuple(d for d in out.dims if d not in rest)
    picked = tuple(d for d in w.dims if is_picked(d))
    fan_in = tuple(d for d in w.dims if d not in o.out.dims and d not in picked)
    low = Tensor(f"{out.name}~low", (*rest, "R"), dtype=dtype)
    delta = Tensor(f"{out.name}~delta", out.dims, dtype=dtype, part=SUMMAND, of=out.name)
    down = Tensor(f"{part.name}.lora_A.weight", (*picked, *fan_in, "R"), WEIGHT, dtype)
    up = Tensor(f"{part.name}.lora_B.weight", (*picked, "R", *fan_out), WEIGHT, dtype)
    return (
        Op(f"{part.name}.lora_A", "contract", (x, down), (low,), sizes),
        Op(f"{part.name}.lora_B", "contract", (low, up), (delta,), sizes),
    )


def adapters(model: Model, width: Size, targets: str) -> Model:
    """The model with a bottleneck behind the products that match; only these and the norms train."""
    untrained(model, "adapters")
    names = chosen(model, "adapter_targets", targets, products=True)
    norms = {t.name for o, _ in walk(model.nodes) if o.rule.family == "norm" for t in o.weights}
    others = {t.name for o, _ in walk(model.nodes) for t in o.weights} - norms
    base = frozen(model, others)
    return model._replace(nodes=rewrite(base.nodes, lambda o: _behind(o, width) if o.name in names else (o,)))


def _behind(o: Op, width: Size) -> Iterator[Op]:
    _, w = _operands(o, "adapter_targets")
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


def _operands(o: Op, field: str) -> tuple[Tensor, Tensor]:
    """The activation and the weight of a product. Raises InputError for a product of another kind."""
    xs, ws = [t for t in o.ins if not t.added and t not in o.weights], [t for t in o.weights if not t.added]
    if len(xs) != 1 or len(ws) != 1 or "g" in ws[0].dims:
        raise InputError(field, f"{o.name} is no product of one input and one weight; allowed: linear layers")
    return xs[0], ws[0]


def check(task: Task, device: object) -> None:
    """Raise an InputError for a dtype that adapters cannot have, or a dropout that leaves nothing."""
    t = task.techniques
    wide("lora_dtype", t.lora_dtype)
    if t.lora_dropout >= 1:
        raise InputError("lora_dropout", f"got {t.lora_dropout}; allowed: from 0 to below 1")


def apply(model: Model, task: Task) -> Model:
    """The model with its adapters."""
    t = task.techniques
    if t.adapters:
        return adapters(model, t.adapters, t.adapter_targets)
    dtype = full_name(t.lora_dtype) if t.lora_dtype else ""
    dropout = task.workload.mode == "train" and t.lora_dropout > 0
    return lora(model, t.lora_rank, t.lora_targets or usual(model), dtype, dropout=dropout)


STAGES = {"adapt": apply}
