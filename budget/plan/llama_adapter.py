"""LLaMA-Adapter: learned prompts that each layer's queries attend to, behind a gate, all else frozen.

Its keys and values are the frozen projections of `length` vectors; the result is scaled by a number for
each head and added to the attention's own output. The second version shifts and scales the output of
every linear layer, and trains the norms. Sources: llama-adapter, llama-adapter-v2, litgpt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..config import Task, setting
from ..errors import InputError
from ..ir import (
    BATCH,
    KEY_SEQ,
    KV_HEADS,
    PROMPT,
    Q_HEADS,
    SEQ,
    WEIGHT,
    Block,
    Model,
    Node,
    Op,
    Tensor,
    beside,
    pieces,
    rewrite,
    walk,
)
from ._names import untrained
from .fp8 import is_linear
from .freeze import frozen

KEEPS_WEIGHTS = True
SETTINGS = {
    "prompts": setting(0, "learned prompts of each layer (LLaMA-Adapter); all else is frozen", least=0),
    "prompts_from": setting(0, "first layers without prompts", least=0),
    "rescale": setting(False, "with prompts: linear layers' outputs are scaled, norms train"),
}
NEEDS = {"prompts_from": ("prompts",), "rescale": ("prompts",)}
ADAPTER = {"prompts": ""}


def llama_adapter(model: Model, length: int, start: int, *, rescale: bool = False) -> Model:
    """The model with prompts in its layers from `start` on, everything else frozen.

    rescale: outputs of linear layers are shifted and scaled by trained vectors, and the norms train too.
    Raises InputError.
    """
    untrained(model, "prompts")
    norms = {t.name for o, _ in walk(model.nodes) if o.rule.family == "norm" for t in o.weights}
    others = {t.name for o, _ in walk(model.nodes) for t in o.weights} - norms
    base = frozen(model, others if rescale else None)
    at, stack = _stack(base)
    *low, high = pieces(stack, start) if start else (stack,)
    if start and not low:
        raise InputError("prompts_from", f"got {start} of {stack.count} layers; allowed: fewer")
    high = high._replace(body=tuple(_with_prompts(high.body, length)))
    nodes = (*base.nodes[:at], *low, high, *base.nodes[at + 1 :])
    return base._replace(nodes=rewrite(nodes, _rescaled) if rescale else nodes)


def _rescaled(o: Op) -> Iterator[Op]:
    """scale (W x + shift) of a linear layer; its products with prompts are not scaled."""
    if not is_linear(o, head=True) or o.tag == PROMPT:
        yield o
        return
    made = tuple(d for t in o.weights if not t.added for d in t.dims if d in o.out.dims)
    shift, scale = (Tensor(f"{o.name}.{what}", made, WEIGHT) for what in ("shift", "scale"))
    base = o.out._replace(name=f"{o.out.name}~base")
    yield o._replace(ins=(*o.ins, shift._replace(added=True)), outs=(base,))
    yield Op(f"{o.name}.rescale", "mul", (base, scale), (o.out,), o.sizes)


def _stack(model: Model) -> tuple[int, Block]:
    """The only stack of layers with attention, and its place. Raises InputError where layers differ."""
    stacks = [(i, n) for i, n in enumerate(model.nodes) if any(_merges(o) for o, _ in walk((n,)))]
    for at, stack in stacks if len(stacks) == 1 else ():
        if isinstance(stack, Block) and not stack.shared and sum(map(_merges, stack.body)) == 1:
            return at, stack
    raise InputError("prompts", f"{model.name} has no one stack of layers with one attention; allowed: 0")


def _merges(node: Node) -> bool:
    return isinstance(node, Op) and node.group == "attention" and node.kind == "copy"


def _with_prompts(body: Sequence[Node], length: int) -> Iterator[Node]:
    ops = [n for n in body if isinstance(n, Op)]
    for node in body:
        if isinstance(node, Op) and _merges(node):
            own = node.out._replace(name=f"{node.out.name}~own")
            yield node._replace(outs=(own,))
            yield from _beside(ops, node, own, length)
        else:
            yield node


def _beside(ops: Sequence[Op], merge: Op, own: Tensor, length: int) -> Iterator[Op]:
    """The attention to prompts, and its gated sum with the attention's own output."""
    name = beside(merge, "prompt")
    scores, mix = (o for o in ops if o.group == "attention" and o.kind == "contract")
    makers = {t.name: o for o in ops for t in o.outs}
    sizes = {**merge.sizes, **scores.sizes, "n": length}

    def root(t: Tensor) -> Tensor:
        """What prompts have in its place: they have no positions, and no cache."""
        o = makers[t.name]
        return root(o.ins[0]) if o.rule.family == "rotation" or o.kind == "cache" else t

    def lead(t: Tensor) -> Iterator[Op]:
        """The operators from the projection to keys or values."""
        o = makers[root(t).name]
        if o.kind != "contract":
            yield from lead(o.ins[0])
        yield o

    def swap(t: Tensor) -> Tensor:
        dims = tuple("n" if d in (SEQ, KEY_SEQ) else d for d in t.dims if d != BATCH)
        return t._replace(name=f"{root(t).name}~prompt", dims=dims)

    def made(o: Op, kind: str, ins: tuple[Tensor, ...], *outs: Tensor, group: str = "") -> Op:
        return Op(f"{name}.{o.label}", kind, ins, outs, {**o.sizes, **sizes}, group=group, tag=PROMPT)

    for o in {o.name: o for t in (scores.ins[1], mix.ins[1]) for o in lead(t)}.values():
        x = swap(o.ins[0]) if o.kind != "contract" else Tensor(f"{o.name}~prompts", ("n", "d"))
        if o.kind == "contract":
            yield made(o, "copy", (Tensor(f"{name}.weight", ("n", "d"), WEIGHT),), x)
        yield made(o, o.kind, (x, *o.ins[1:]), *map(swap, o.outs))
    w, p, y, gated = (
        Tensor(f"{name}.{n}", tuple("n" if d == KEY_SEQ else d for d in like.dims))
        for n, like in (("w", scores.out), ("p", scores.out), ("y", merge.out), ("gated", merge.out))
    )
    yield made(scores, "contract", (scores.ins[0], swap(scores.ins[1])), w, group="attention")
    yield Op(f"{name}.softmax", "softmax", (w,), (p,), sizes, group="attention")
    yield made(mix, "contract", (p, swap(mix.ins[1])), y, group="attention")
    gate = Tensor(f"{name}.gate", (KV_HEADS, Q_HEADS), WEIGHT)
    yield Op(f"{name}.gate", "mul", (y, gate), (gated,), sizes)
    yield Op(f"{name}.add", "add", (own, gated), (merge.out,), sizes)


def apply(model: Model, task: Task) -> Model:
    """The model with its prompts."""
    t = task.techniques
    return llama_adapter(model, t.prompts, t.prompts_from, rescale=t.rescale)


STAGES = {"adapt": apply}
