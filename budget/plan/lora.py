"""Low-rank adapters parallel to frozen products.

LoRA adds B(A(x)) to a product W x: A projects x to `rank` features, B projects back. All other weights are
frozen, as in peft. Sources: lora, peft.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ..config import Task, setting
from ..dtype import full_name
from ..errors import InputError
from ..ir import EMBED, SUMMAND, WEIGHT, Model, Op, Tensor, beside, is_picked, rewrite, walk
from ..named import NamedTuple
from ..size import Size
from ._beside import drops, resolved, usual
from ._dora import dora
from ._names import operands, untrained, wide
from .freeze import frozen

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


class Part(NamedTuple):
    """One output of a projection that makes several: a fused one's queries, keys or values."""

    name: str
    product: str  # the projection's name
    out: Tensor
    sizes: Mapping[str, Size]


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
) -> Model:
    """The model with adapters of a rank beside the products that match, everything else frozen.

    ranks: of some of them, others than `rank`, as `attn.q=16`.
    dtype: of the adapters; "" is the model's own, float32 what peft makes of 16-bit ones.
    dropout: each adapter has its own copy of its input, and a mask. autocast: adapters cast their input to
    float32, which they are in, before autocast casts it back. magnitudes: DoRA's.
    Raises InputError.
    """
    untrained(model, "lora_rank")
    fused = tuple(_parts(model))
    tables = [o.name for o, _ in walk(model.nodes) if o.tag == EMBED]
    more = [*(p.name for p in fused), *tables]
    names = resolved(model, "lora_targets", targets, more)
    base, own = frozen(model, None), _ranks(model, ranks, more)

    def change(o: Op) -> Iterator[Op]:
        rank_of = own.get(o.name, rank)
        if o.name in tables:
            yield from _of_table(o, rank_of, dtype) if o.name in names else (o,)
            return
        parts = [p for p in fused if p.product == o.name and p.name in names]
        if magnitudes and o.name in names:
            yield from dora(o, rank_of, dtype, dropout)
        elif magnitudes and parts:
            raise InputError("use_dora", f"{parts[0].name} is a part of {o.name}; allowed: whole layers")
        elif o.name in names or parts:
            yield from _beside(o, () if o.name in names else parts, rank_of, dtype, dropout, autocast)
        else:
            yield o

    return base._replace(nodes=rewrite(base.nodes, change))


def _ranks(model: Model, text: str, more: Sequence[str]) -> dict[str, Size]:
    """Ranks by the names of products, of `attn.q=16,mlp.up=4`: the first pattern that matches counts.

    Raises InputError.
    """
    found: dict[str, Size] = {}
    for pair in filter(None, (x.strip() for x in text.split(","))):
        pattern, _, number = pair.partition("=")
        if not number.isdecimal() or not int(number):
            raise InputError(
                "rank_pattern", f"got {pair[:60]!r}; allowed: names and ranks, as attn.q=16,mlp.up=4"
            )
        for name in resolved(model, "rank_pattern", pattern, more):
            found.setdefault(name, int(number))
    return found


def _parts(model: Model) -> Iterator[Part]:
    """The outputs of fused projections: views of one tensor."""
    products = {o.out.name: o.name for o, _ in walk(model.nodes) if o.kind == "contract"}
    for o, _ in walk(model.nodes):
        if o.kind == "view" and len(o.outs) > 1 and o.ins[0].name in products:
            for t in o.outs:
                yield Part(beside(o, t.label), products[o.ins[0].name], t, o.sizes)


def _beside(
    o: Op, parts: Sequence[Part], rank: Size, dtype: str, dropout: bool, autocast: bool
) -> Iterator[Op]:
    """W x, B(A(x)) and their sum; a window's extent (a convolution) belongs to A.

    Of a fused projection `parts` may be adapted alone. Zeros stand for the others, and what is copied
    between them is kept, as torch's index_copy keeps it. Source: litgpt.
    """
    x, w = operands(o, "lora_targets")
    out, sizes = o.out, {**o.sizes, "R": rank}
    base, scaled = (_summand(out, what) for what in ("base", "scaled"))
    callers = (*o.callers, x.name)  # the layer's own input is kept until it returns
    yield o._replace(outs=(base,))
    if dtype or autocast:
        cast = x._replace(name=f"{out.name}~x", dtype=dtype or "float32")
        yield Op(f"{o.name}.lora_cast", "cast", (x,), (cast,), sizes, callers=callers)
        callers, x = (*callers, cast.name), cast
    if dropout:
        dropped = x._replace(name=f"{out.name}~dropped")
        yield Op(f"{o.name}.lora_dropout", "dropout", (x,), (dropped,), sizes, callers=callers)
        x = dropped
    pairs = [_pair(p, x, w, o, rank, dtype, callers) for p in parts or (Part(o.name, o.name, out, {}),)]
    for pair in pairs:
        yield from pair
    delta = pairs[0][-1].out
    if parts:
        delta = _summand(out, "padded")._replace(dtype=dtype)
        made = tuple(b.out for _, b in pairs)
        yield Op(f"{o.name}.lora_pad", "zero_pad", made, (delta,), sizes, callers=callers)
    scaled = scaled._replace(dtype=dtype)
    yield Op(f"{o.name}.lora_scale", "scale", (delta,), (scaled,), sizes, callers=callers)
    if dtype:
        total = _summand(out, "sum")._replace(dtype=dtype)
        yield Op(f"{o.name}.lora_add", "add", (base, scaled), (total,), sizes, callers=callers)
        callers = (*callers, scaled.name)
        yield Op(f"{o.name}.lora_uncast", "cast", (total,), (out,), sizes, callers=callers)
    else:
        yield Op(f"{o.name}.lora_add", "add", (base, scaled), (out,), sizes, callers=callers)


def _of_table(o: Op, rank: Size, dtype: str) -> Iterator[Op]:
    """An embedding, and the sum with B of what is looked up in A. It drops nothing. Source: peft."""
    ids, table = o.ins
    out, sizes = o.out, {**o.sizes, "R": rank}
    base, delta, scaled = (_summand(out, what) for what in ("base", "delta", "scaled"))
    delta, scaled = delta._replace(dtype=dtype), scaled._replace(dtype=dtype)
    rows = tuple(d for d in table.dims if is_picked(d))
    low = Tensor(f"{out.name}~low", (*ids.dims, "R"), dtype=dtype)
    down = Tensor(f"{o.name}.lora_A.weight", (*rows, "R"), WEIGHT, dtype)
    up = Tensor(f"{o.name}.lora_B.weight", ("R", *(d for d in table.dims if d not in rows)), WEIGHT, dtype)
    yield o._replace(outs=(base,), tag="")  # its own output is no leaf
    yield Op(f"{o.name}.lora_A", "gather", (ids, down), (low,), sizes)
    yield Op(f"{o.name}.lora_B", "contract", (low, up), (delta,), sizes)
    yield Op(f"{o.name}.lora_scale", "scale", (delta,), (scaled,), sizes)
    total = _summand(out, "sum")._replace(dtype=dtype) if dtype else out
    yield Op(f"{o.name}.lora_add", "add", (base, scaled), (total,), sizes)
    if dtype:
        yield Op(f"{o.name}.lora_uncast", "cast", (total,), (out,), sizes)


def _summand(out: Tensor, what: str) -> Tensor:
    return out._replace(name=f"{out.name}~{what}", part=SUMMAND, of=out.name)


def _pair(
    part: Part, x: Tensor, w: Tensor, o: Op, rank: Size, dtype: str, callers: tuple[str, ...]
) -> tuple[Op, Op]:
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
        Op(f"{part.name}.lora_A", "contract", (x, down), (low,), sizes, callers=(*callers, x.name)),
        Op(f"{part.name}.lora_B", "contract", (low, up), (delta,), sizes, callers=(*callers, low.name)),
    )


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
    }
    return lora(model, t.lora_rank, t.lora_targets or usual(model, task, "lora"), dtype, **how)


STAGES = {"adapt": apply}
