"""Fuse adjacent operators into one kernel: tensors that only they read never reach device memory.

For attention that is flash attention: the backward pass recomputes scores and probabilities
(plan/recompute.py). Source: flash-attention-2.
`sdpa`, the default in training, is torch's SDPA as transformers calls it for sequences without padding:
no mask and no repeated keys, except in layers whose window is no longer than the sequence; where SDPA has
no kernel, scores are materialized (plan/_sdpa.py). `fused` is the same for a padded batch: the mask, in
booleans and for each layer in the model's dtype, and the repeated keys and values reach device memory. Both
copy the output where the queries' layout requires it. `causal` has no mask, but repeated keys. `flash` is the
kernel alone; `per_head` the same, but of a cache each query head reads keys and values for itself, as the
decoding kernels of engines did before they knew grouped queries. Source: xqa.
Selective scans (the group "scan") have a kernel too, with `sdpa` and `flash`.
Sources: transformers, torch-sdpa, mamba.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from ..config import Task
from ..ir import (
    ACTIVATION,
    INDEX,
    KEY_SEQ,
    MERGE,
    MIX,
    SCORES,
    Block,
    Model,
    Node,
    Op,
    Same,
    Tensor,
    batch_leads,
    rewrite,
    walk,
)
from ..size import is_number, is_zero, once
from ._sdpa import laid_out, trained, without_kernels

CHOICES: Mapping[str, tuple[str, ...]] = {  # kinds of operators that stay outside the kernel
    "sdpa": (),
    "fused": ("repeat", "table"),
    "causal": ("repeat",),
    "flash": (),
    "per_head": ("repeat",),
    "eager": (),
}
DENSE = {"fused": {"mask": "mask_dense"}}  # kinds whose operands a choice wants in full
BESIDE = ("mask_dense", "softmax_fused")  # kinds that make what a kernel reads, or leaves, in any pass
SDPA = ("sdpa", "fused", "causal")
BY_HEADS = ("repeat", "cache", "join")  # kinds whose result has a head's tokens side by side
SCALES = ("scale", "mul")  # kinds that scale scores


def fuse(
    model: Model, groups: Collection[str], choice: str = "flash", *, checkpointed: bool = False
) -> Model:
    """The model with its operators of the named groups fused. To be applied before `backward`.

    checkpointed: what attention adds from outside requires a gradient: T5's zeros in cross-attention.
    """
    needs = trained(model, checkpointed=checkpointed) if choice in SDPA else frozenset[str]()
    return _fused(Same(model), frozenset(groups), choice, needs)


@once
def _fused(same: Same, groups: frozenset[str], choice: str, needs: frozenset[str]) -> Model:
    model = same.model
    if choice == "eager":
        return model._replace(nodes=_contiguous(model))
    ops = [o for o, _ in walk(model.nodes)]
    dense = "fused" in [_of(o, choice) for o in ops]
    # Without a dense mask each kernel generates its own, so the shared one never reaches memory.
    masks = {o.out.name for o in ops if o.kind == "table" and o.group in groups and not dense}
    choices = {o.ins[1].name for o in ops if o.kind == "mask" and choice in SDPA}
    nodes = rewrite(model.nodes, lambda o: (_with_choices(o, choices),)) if choices else model.nodes
    return model._replace(nodes=tuple(_fuse(nodes, groups, choice, needs, masks)))


def _contiguous(model: Model) -> tuple[Node, ...]:
    """The nodes with the copies that eager attention's products make of a fused projection's output, so that
    the output itself need not be kept. Copies of other operands that lie token by token count as kernels of
    the products.
    """
    parts = {t.name for o, _ in walk(model.nodes) if o.kind == "view" and len(o.outs) > 1 for t in o.outs}
    by_heads = {t.name for o, _ in walk(model.nodes) if o.kind in BY_HEADS for t in o.outs}
    scaled = {o.ins[0].name for o, _ in walk(model.nodes) if o.kind in SCALES}

    def change(o: Op) -> Iterator[Op]:
        strided = [t for t in o.ins if t.name in parts] if o.tag in (SCORES, MIX) else []
        new = {t.name: t._replace(name=f"{t.name}~{o.name}") for t in strided}
        for t in strided:
            yield Op(f"{o.name}.{t.label}_copy", "contiguous", (t,), (new[t.name],), o.sizes, group=o.group)
        if o.tag in (SCORES, MIX):
            ins = tuple(new.get(t.name, t) for t in o.ins)
            copied = [t for t in o.ins if not (t.name in new or t.name in by_heads or batch_leads(o, t))]
            by_1 = int(o.tag == SCORES and o.out.name not in scaled)  # scaled all the same (T5)
            o = o._replace(ins=ins, beside=(by_1, by_1), copies=(tuple(copied),) * 2)
        yield o

    return rewrite(model.nodes, change)


def _with_choices(o: Op, masks: set[str]) -> Op:
    """An operator with its masks as transformers gives them to SDPA: in booleans."""
    if masks.isdisjoint([t.name for t in (*o.ins, *o.outs)]):
        return o
    ins, outs = (
        tuple(t._replace(dtype="bool") if t.name in masks else t for t in ts) for ts in (o.ins, o.outs)
    )
    return o._replace(ins=ins, outs=outs)


def attention(model: Model, task: Task) -> Model:
    """The model with the kernels that the choice of attention has."""
    decodes = task.workload.mode == "decode"
    choice = "flash" if task.attention == "per_head" and not decodes else task.attention
    groups = {"attention", "scan"} if choice in ("sdpa", "flash", "per_head") else {"attention"}
    serves = task.workload.mode in ("prefill", "decode")
    if serves and choice in ("flash", "per_head") and any(o.tag == INDEX for o, _ in walk(model.nodes)):
        from .indexed import indexed

        model = indexed(model, decodes=decodes)
    return fuse(model, groups, choice, checkpointed=task.recompute == "full")


def _inside(node: Node, groups: Collection[str], choice: str) -> bool:
    """Whether an operator is part of a fused kernel."""
    return isinstance(node, Op) and node.group in groups and node.kind not in CHOICES[_of(node, choice)]


def _of(o: Op, choice: str) -> str:
    """The choice for one attention: SDPA needs a mask where the sequence is as long as the window."""
    if choice != "sdpa" or is_zero(o.window):
        return choice
    t = o.sizes[KEY_SEQ]
    return choice if is_number(o.window) and is_number(t) and o.window > t else "fused"


def _fuse(
    nodes: Iterable[Node], groups: Collection[str], choice: str, needs: Collection[str], masks: set[str]
) -> Iterator[Node]:
    nodes = tuple(without_kernels(nodes, needs) if choice in SDPA else nodes)
    readers: dict[str, set[str]] = {}
    for node in nodes:
        group = node.group if isinstance(node, Op) else ""
        for name in _reads(node):
            readers.setdefault(name, set()).add(group)
    inside = [n for n in nodes if isinstance(n, Op) and _inside(n, groups, choice)]
    chip = {t.name for o in inside for t in o.outs if readers.get(t.name) == {o.group}} | masks
    fused = set(map(id, inside))
    held: dict[str, None] = {}  # a kernel's operands and extra results, alive until it ends
    made: set[str] = set()  # the part of it that the kernel makes
    apart = set(laid_out(nodes)) if choice in SDPA else set()
    chip -= apart
    for node in nodes:
        if isinstance(node, Block):
            yield node._replace(body=tuple(_fuse(node.body, groups, choice, needs, masks)))
        elif id(node) in fused:
            own = _of(node, choice)
            kind = "merge" if node.ins[0].name in apart else node.rule.fused or node.kind
            new = _as_part(node, DENSE.get(own, {}).get(kind, kind), chip)
            held |= {
                t.name: None for t in (*new.ins, *new.outs[1:]) if not t.on_chip and t.role == ACTIVATION
            }
            made |= {t.name for t in new.outs[1:]}
            if node.tag in (MIX, MERGE):  # going forward: the backward pass has what it reads
                alive = (name for name in held if kind != "merge" or name not in made)  # it comes behind
                new = new._replace(callers=(*new.callers, *alive))
            if node.tag == MERGE:
                held, made = {}, set()
            # SDPA's kernels know no window, and go through all pairs where they are given a dense mask.
            window = 0 if choice in SDPA else node.window
            yield new._replace(window=window, causal=own != "fused" and node.causal)
        elif choice == "per_head" and node.kind == "repeat":
            yield node._replace(kind="expand")  # read as often as there are heads, and never written
        else:
            yield node


def _as_part(o: Op, kind: str, chip: set[str]) -> Op:
    """An operator with a given kind as part of a kernel, which keeps some of its tensors on the chip."""
    ins, outs = (tuple([_on_chip(t, chip) for t in ts]) for ts in (o.ins, o.outs))
    # The kernel's backward pass reads its output and its values, whatever else needs a gradient.
    read = [o.out.name] if kind == "copy" else [t.name for t in ins if not t.on_chip]
    holds = (*o.holds, *read) if kind == "copy" or o.tag == MIX else o.holds
    new = o._replace(kind=kind, ins=ins, outs=outs, kernel=o.group, holds=holds)
    return new._replace(outs=(*outs, *new.kept(()))) if kind in BESIDE else new


def _on_chip(t: Tensor, chip: set[str]) -> Tensor:
    return t._replace(on_chip=True) if t.name in chip else t


def _reads(node: Node) -> list[str]:
    """The names that a node reads; for a block also those that it hands on."""
    if isinstance(node, Op):
        return [t.name for t in node.ins]
    names = [name for inner in node.body for name in _reads(inner)]
    return names + [name for c in node.carry for name in (c.leave, c.init)]
