"""Low-rank adapters parallel to frozen products.

LoRA adds B(A(x)) to a product W x: A projects x to `rank` features, B projects back. All other weights are
frozen, as in peft. Sources: lora, peft.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..config import Task, setting
from ..dtype import full_name
from ..errors import InputError
from ..ir import EMBED, Model, Op, Tensor, beside, rewrite, walk
from ..size import Size
from ._beside import Product, drops, resolved, usual
from ._dora import dora
from ._names import untrained, wide
from .freeze import frozen
from .fused import ADAPTERS, parts

KEEPS_WEIGHTS = True
SETTINGS = {
    "lora_rank": setting(0, "rank of low-rank adapters; all else is frozen", least=0),
    "lora_targets": setting(
        "", "names of the products that have low-rank adapters (attn.q,attn.v or attn.qkv), or all-linear"
    ),
    "rank_pattern": setting("", "ranks of some of them, as attn.q=16,mlp.up=4 (peft)"),
    "lora_dtype": setting("", "dtype of low-rank adapters (peft: fp32), where it is not the model's own"),
    "lora_dropout": setting(
        0.0, "part of the inputs of LoRA's or AdaLoRA's that is dropped", least=0, most=1
    ),
    "use_dora": setting(False, "low-rank adapters with trained magnitudes (DoRA)"),
    "use_rslora": setting(False, "they are scaled by alpha / sqrt(rank) (rsLoRA), which costs nothing else"),
}
NEEDS = {
    "lora_targets": ("lora_rank",),
    "rank_pattern": ("lora_rank",),
    "lora_dtype": ("lora_rank",),
    "lora_dropout": (("lora_rank", "adalora_rank"),),
    "use_dora": ("lora_rank",),
    "use_rslora": ("lora_rank",),
}
ADAPTER = {"lora_rank": "lora_targets"}


def lora(
    model: Model,
    rank: Size,
    targets: str,
    dtype: str = "",
    *,
    ranks: str = "",
    dropout: bool = False,
    magnitudes: bool = False,
    autocast: bool = False,
    fused: bool = False,
) -> Model:
    """The model with adapters of a rank beside the products that match, everything else frozen.

    ranks: for products whose rank is not `rank`, as `attn.q=16`.
    dtype: of the adapters; "" is the model's own, and peft makes 16-bit adapters float32.
    dropout: each adapter has its own copy of its input, and a mask. autocast: adapters cast their input to
    float32, which they are in, before autocast casts it back. magnitudes: DoRA's. fused: they read the input
    as it is, cast their weights instead, and are added in place. Raises InputError.
    """
    untrained(model, "lora_rank")
    tables = [o.name for o, _ in walk(model.nodes) if o.tag == EMBED]
    base = frozen(model, None)
    joined = _parts(base)
    more = [*(part.name for parts in joined.values() for part in parts), *tables]
    names, own = resolved(model, "lora_targets", targets, more), _ranks(model, ranks, more)

    def change(o: Op) -> Iterable[Op]:
        rank_of, whole = own.get(o.name, rank), o.name in names
        parts = () if whole else tuple(part for part in joined.get(o.name, ()) if part.name in names)
        if magnitudes and parts:
            raise InputError("use_dora", f"{parts[0].name} is a part of {o.name}; allowed: whole layers")
        if magnitudes and whole and o.name not in tables:
            return dora(o, rank_of, dtype, dropout)
        if not whole and not parts:
            return (o,)
        if fused:
            return _beside(o, parts, rank_of, "", dropout, held=dtype, fused=True)
        return _beside(o, parts, rank_of, dtype, dropout, autocast)

    return base._replace(nodes=rewrite(base.nodes, change))


def _ranks(model: Model, text: str, more: Sequence[str]) -> dict[str, Size]:
    """Ranks by the names of products, from `attn.q=16,mlp.up=4`: the first pattern that matches counts.

    Raises InputError.
    """
    ranks: dict[str, Size] = {}
    for pair in filter(None, (x.strip() for x in text.split(","))):
        pattern, _, number = pair.partition("=")
        if not number.isdecimal() or not int(number):
            raise InputError(
                "rank_pattern", f"got {pair[:60]!r}; allowed: names and ranks, as attn.q=16,mlp.up=4"
            )
        for name in resolved(model, "rank_pattern", pattern, more):
            ranks.setdefault(name, int(number))
    return ranks


def _parts(model: Model) -> dict[str, list[Op]]:
    """By the name of each fused projection, its queries, keys and values, each as a product of its own."""
    products = {o.out.name: o for o, _ in walk(model.nodes) if o.kind == "contract"}
    parts: dict[str, list[Op]] = {}
    for view, _ in walk(model.nodes):
        if view.kind == "view" and len(view.outs) > 1 and view.ins[0].name in products:
            o = products[view.ins[0].name]
            parts.setdefault(o.name, []).extend(
                o._replace(name=beside(view, t.label), outs=(t,), sizes={**o.sizes, **view.sizes})
                for t in view.outs
            )
    return parts


def _beside(
    o: Op,
    parts: Sequence[Op],
    rank: Size,
    dtype: str,
    dropout: bool,
    autocast: bool = False,
    *,
    held: str = "",
    fused: bool = False,
) -> list[Op]:
    """W x, B(A(x)) and their sum; a window's extent (a convolution) belongs to A. held: the weights' dtype,
    where it is not that of what they multiply. fused: B(A(x)) is added in place.

    parts: those parts of a fused projection that are adapted. Zeros stand for the others, and the parts that
    are copied between them are kept for the backward pass, as torch's index_copy keeps them. Source: litgpt.
    """
    tag = "" if o.tag == EMBED else o.tag  # a table's own output is no leaf
    layer = Product(o._replace(tag=tag), "lora_targets", dtype, R=rank)
    own = layer.own()
    layer.callers = (*o.callers, layer.x.name)  # the layer's own input is kept until it returns
    x = _input(layer, dropout, autocast)
    made = tuple(_pair(layer, part, x, held) for part in parts or (o,))
    delta = layer.put("lora_pad", "zero_pad", made, layer.summand("padded")) if parts else made[0]
    if fused:  # scaled with x, or where it is added
        layer.put("lora_add", "add_", (own, delta), o.out)
        return layer.ops
    scaled = layer.put("lora_scale", "scale", (delta,), layer.summand("scaled"))
    total = layer.put("lora_add", "add", (own, scaled), layer.summand("sum") if dtype else o.out)
    if dtype:
        layer.callers = (*layer.callers, scaled.name)
        layer.put("lora_uncast", "cast", (total,), o.out)
    return layer.ops


def _input(layer: Product, dropout: bool, autocast: bool) -> Tensor:
    """What A reads: the layer's input, cast and after dropout; for a table, the numbers of its rows."""
    x, name = layer.x, layer.op.out.name
    if layer.op.rule.looks_up:
        return x
    if layer.dtype or autocast:
        x = layer.put("lora_cast", "cast", (x,), x._replace(name=f"{name}~x", dtype=layer.dtype or "float32"))
        layer.callers = (*layer.callers, x.name)
    if dropout:
        x = layer.put("lora_dropout", "dropout", (x,), x._replace(name=f"{name}~dropped"))
    return x


def _pair(layer: Product, part: Op, x: Tensor, held: str) -> Tensor:
    """B(A(x)) of a layer, or of one of its outputs."""
    one = Product(part, "lora_targets", layer.dtype, R=layer.sizes["R"])
    one.ops, one.callers = layer.ops, (*layer.callers, x.name)
    down = _weight(one, "lora_A", held, *one.experts, *one.fan_in, "R")
    up = _weight(one, "lora_B", held, *one.experts, "R", *one.fan_out)
    low = Tensor(f"{part.out.name}~low", (*one.rest, "R"), dtype=one.dtype)
    one.put("lora_A", part.kind, (x, down), low)
    one.callers = (*layer.callers, low.name)
    return one.put("lora_B", "contract", (low, up), one.summand("delta"))


def _weight(one: Product, label: str, held: str, *dims: str) -> Tensor:
    """A weight, held in a dtype that may differ from that of its product's input."""
    own = one.weight(f"{label}.weight", *dims)
    if not held:
        return own
    cast = Tensor(f"{own.name}~cast", dims, dtype=one.dtype)
    return one.put(f"{label}_cast", "cast", (own._replace(dtype=held),), cast)


def check(task: Task, device: object) -> None:
    """Raise an InputError for a dtype that adapters cannot have."""
    wide("lora_dtype", task.techniques.lora_dtype)


def apply(model: Model, task: Task) -> Model:
    """The model with its adapters."""
    t = task.techniques
    if not t.lora_rank:
        return model
    dtype = full_name(t.lora_dtype) if t.lora_dtype else ""
    how = {
        "ranks": t.rank_pattern,
        "dropout": drops(task, "lora_dropout"),
        "magnitudes": t.use_dora,
        "autocast": t.precision == "autocast",
        "fused": ADAPTERS in parts(t.fuse),
    }
    return lora(model, t.lora_rank, t.lora_targets or usual(model, task, "lora"), dtype, **how)


STAGES = {"adapt": apply}
