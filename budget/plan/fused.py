"""Fused norms, multi-layer perceptrons and losses, expressed with the kinds that exist.

norm: an RMS norm keeps its input and one statistic a row. Source: liger.
mlp: activations and gating are recomputed from the products' outputs; the down projection reads
them without their being stored. Source: megatron-lm.
gate: activation and gating, and the weighting of experts, are one kernel, which keeps what it reads; its
output is stored for the down projection's weights. Source: megatron-core-fusions.
loss: everything from the logits on is one kernel, which keeps a statistic a row; its backward pass reads the
    logits again.
Source: flash-attention-2 (its package's xentropy), megatron-lm.
cross_entropy: logits are never materialized; the head's product is recomputed in the backward pass.
Source: cut-cross-entropy.
chunked_cross_entropy: forward and backward of head and loss together, a chunk of tokens at a time, so
that nothing is recomputed and one chunk's logits exist. Source: liger.
adapters: LoRA's read their layer's input as it is, and are added to its output in place (plan/lora.py), as
where a layer and its adapters are one autograd function. Sources: axolotl-lora, unsloth-lora.
conv, linear: in inference, elementwise operators behind a product are part of its kernel (plan/endings.py).
batch_norm: in inference, it is folded into a convolution's weights and bias (plan/_folded.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from ..config import Task, setting
from ..errors import InputError, unknown
from ..ir import (
    ACTIVATION_OF_MLP,
    CHUNK,
    DOWN,
    EXPERT_DOWN,
    GATE,
    LOSS,
    SHARED_DOWN,
    Block,
    Model,
    Node,
    Op,
    Tensor,
    rewrite,
    walk,
)
from ..size import ceil_div, power_of_two, product
from ._folded import folded
from ._names import untrained
from .endings import ENDINGS, ended
from .fuse import fuse

OF_INFERENCE = (*ENDINGS, "batch_norm")
ADAPTERS = "adapters"
FUSED = ("norm", "mlp", "gate", "loss", "cross_entropy", "chunked_cross_entropy", ADAPTERS, *OF_INFERENCE)
OF_LOSS = ("loss", "cross_entropy", "chunked_cross_entropy")
SETTINGS = {"fuse": setting("", f"of {', '.join(FUSED)}, by commas")}

GATED = (ACTIVATION_OF_MLP, GATE)  # operators that become one
MLP = (*GATED, DOWN, EXPERT_DOWN, SHARED_DOWN)
OF_MLP = {"mlp": MLP, "gate": GATED}


def fused(model: Model, names: str, *, copied: bool = False, trains: bool = False) -> Model:
    """The model with the named parts fused. To be applied before `backward`. Raises InputError.

    copied: a kernel of the loss reads the float32 copy of the logits, which is made before it. trains: a
    backward pass follows, which reads what lies between a product and its ending.
    """
    untrained(model, "fuse")
    chosen = parts(names)
    _check(chosen, trains=trains)
    model = folded(model) if "batch_norm" in chosen else model
    endings = [name for name in chosen if name in ENDINGS]
    model = ended(model, endings) if endings else model
    for name in chosen:
        if name == "norm":
            model = _norm(model)
        elif name in OF_MLP:
            model = _mlp(model, name)
        elif name in OF_LOSS:
            model = _loss(model, name, copied=copied and name == "loss")
    return model


def _check(chosen: Sequence[str], *, trains: bool) -> None:
    """Raise an InputError for a name that is none, or for two that exclude each other."""
    for name in chosen:
        if name not in FUSED:
            raise unknown("fuse", name, FUSED)
    for alike in (OF_MLP, OF_LOSS):
        if len(both := [name for name in chosen if name in alike]) > 1:
            raise InputError("fuse", f"got both {both[0]} and {both[1]}; allowed: one of them")
    if trains and (inferring := [name for name in chosen if name in OF_INFERENCE]):
        allowed = ", ".join(name for name in FUSED if name not in OF_INFERENCE)
        raise InputError("fuse", f"{inferring[0]} is of inference; allowed in training: {allowed}")


def those_of(model: Model, names: str) -> str:
    """The names whose part a network has: a stack fuses what is there."""
    tags = {o.tag for o, _ in walk(model.nodes)}
    missing = {name for name, those in OF_MLP.items() if not tags & {*those}}
    missing |= set() if _to_loss(model) else {*OF_LOSS}
    return ",".join(name for name in parts(names) if name not in missing)


def parts(names: str) -> list[str]:
    """Names by commas, each once."""
    return list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))


def _norm(model: Model) -> Model:
    def change(o: Op) -> tuple[Op]:
        fused = o.rule.family == "norm" and o.rule.fused
        return (o._replace(kind=fused) if fused else o,)

    return model._replace(nodes=rewrite(model.nodes, change))


def _weighed_early(model: Model) -> Model:
    """The model that applies the experts' weights to the inputs of their last product, not to its outputs,
    which then need not be kept.
    """
    ops = [o for o, _ in walk(model.nodes)]
    downs = {o.out.name: o for o in ops if o.tag == EXPERT_DOWN}
    weighs = {downs[o.ins[0].name].name: o for o in ops if o.rule.factors and o.ins[0].name in downs}
    gone = {o.name for o in weighs.values()}

    def change(o: Op) -> tuple[Op, ...]:
        if o.name in gone:
            return ()
        if o.name not in weighs:
            return (o,)
        weigh, inner = weighs[o.name], o.ins[0]
        made = inner._replace(name=f"{inner.name}~weighed")
        early = weigh._replace(ins=(inner, weigh.ins[1]), outs=(made,), sizes=o.sizes, tag=GATE)
        return early, o._replace(
            ins=(made, *o.ins[1:]), outs=(o.out._replace(name=weigh.out.name), *o.outs[1:])
        )

    return model._replace(nodes=rewrite(model.nodes, change))


def _mlp(model: Model, name: str) -> Model:
    model, count = _weighed_early(model) if name == "gate" else model, 0

    def change(o: Op) -> tuple[Op]:
        nonlocal count
        if o.tag not in OF_MLP[name] or o.group:
            return (o,)
        count += 1
        return (o._replace(group=name),)

    nodes = rewrite(model.nodes, change)
    if not count:
        raise InputError(
            "fuse", f"{model.name} has no mlp; allowed: {', '.join(c for c in FUSED if c not in OF_MLP)}"
        )
    return fuse(model._replace(nodes=nodes), {name})


def _to_loss(model: Model) -> list[Op]:
    """The operators from a loss back to the product that it is of; none where there is no such product."""
    ops = [n for n in model.nodes if isinstance(n, Op)]
    makers = {t.name: o for o in ops for t in o.outs}
    chain = [o for o in ops if o.tag == LOSS][:1]
    while chain and chain[-1].kind != "contract":
        source = makers.get(chain[-1].ins[0].name)
        if source is None:
            return []
        chain.append(source)
    return chain


def _loss(model: Model, name: str, *, copied: bool = False) -> Model:
    """The operators from the head's product, or from behind it, to the loss as one group."""
    chain = _to_loss(model)
    if not chain:
        raise InputError(
            "fuse", f"{model.name} has no product before a loss; allowed: norm, mlp, in mode train: a loss"
        )
    group = "chunked" if name == "chunked_cross_entropy" else name
    loss = {o.name for o in model.nodes if isinstance(o, Op) and o.tag == LOSS}
    inside = {o.name for o in (chain[:-1] if name == "loss" else chain)} | loss
    inside -= {o.name for o in chain if copied and o.kind == "cast"}
    nodes: list[Node] = [
        n._replace(group=group) if isinstance(n, Op) and n.name in inside else n for n in model.nodes
    ]
    model = fuse(model._replace(nodes=tuple(nodes)), {group})
    return _with_chunk(model, chain[-1]) if group == "chunked" else model


def _with_chunk(model: Model, head: Op) -> Model:
    """One chunk's logits: as many tokens as make them about as large as the hidden states."""
    wide = [d for d in head.out.dims if any(d in t.dims for t in head.weights)]
    rows = product(head.sizes[d] for d in head.out.dims if d not in wide)
    hidden = product(head.sizes[d] for t in head.weights if not t.added for d in t.dims if d not in wide)
    columns = product(head.sizes[d] for d in wide)
    chunk = Tensor(f"{head.name}#chunk", ("chunk",), part=CHUNK, of=head.out.name)
    sizes = {**head.sizes, "chunk": power_of_two(ceil_div(rows, ceil_div(columns, hidden))) * columns}

    def change(o: Op) -> tuple[Op]:
        return (o._replace(outs=(*o.outs, chunk), sizes=sizes) if o.name == head.name else o,)

    return model._replace(nodes=rewrite(model.nodes, change))


def hold_chunk(model: Model) -> Model:
    """The training program whose chunk of logits lives until the loss's backward pass is over."""
    names = tuple(t.name for n in model.nodes if isinstance(n, Op) for t in n.outs if t.part == CHUNK)

    def held(n: Node) -> Node:
        return n if isinstance(n, Block) or n.kernel != "chunked" else n._replace(holds=(*n.holds, *names))

    return model._replace(nodes=tuple(held(n) for n in model.nodes))


def apply(model: Model, task: Task) -> Model:
    """The model with the named parts fused."""
    t = task.techniques
    trains = task.workload.mode == "train"
    if ADAPTERS in parts(t.fuse) and not t.lora_rank:
        raise InputError("fuse", f"{ADAPTERS} are LoRA's; allowed: with lora_rank")
    return fused(model, t.fuse, copied=t.loss_logits in ("shifted", "replaced"), trains=trains)


STAGES = {"fuse": apply, "loop": lambda model, _: hold_chunk(model)}
