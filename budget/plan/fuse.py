"""Fuse neighbours into one kernel: tensors that only they read stay on the chip.

For attention's group that is flash attention: scores and probabilities never reach device
memory, and the backward pass computes them again (plan/recompute.py). Source: flash-attention-2.
`fused` is torch's SDPA as transformers calls it with a mask: the mask in the model's dtype and
the repeated keys and values do reach device memory, and so does the output where queries are
laid out another way; without a kernel it is written out (plan/_sdpa.py). `causal` is the same told
that attention is causal, without a mask. `flash` is the kernel alone;
selective scans (the group "scan") have one too. Source: mamba.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from ..config import Task
from ..model import Block, Model, Node, walk
from ..op import Op, Tensor
from ._sdpa import laid_out, trained, without_kernels

CHOICES: Mapping[str, tuple[str, ...]] = {  # kinds of operators that stay outside the kernel
    "fused": ("repeat", "table"),
    "causal": ("repeat",),
    "flash": (),
    "eager": (),
}
# What a fused kernel keeps for its backward pass besides what eager code does.
_KERNEL = {"softmax": "softmax_fused", "softcap": "softcap_fused", "dropout": "dropout_fused"}
KEEPS = {"fused": {**_KERNEL, "mask": "mask_dense"}, "causal": _KERNEL, "flash": _KERNEL}
SDPA = ("fused", "causal")


def fuse(model: Model, groups: Collection[str], choice: str = "flash") -> Model:
    """The model with its operators of the named groups fused. To be applied before `backward`."""
    if choice == "eager":
        return model
    needs = trained(model) if choice in SDPA else ()
    # A mask that all layers share is no layer's own, and yet made by each kernel for itself.
    masks = {o.out.name for o, _ in walk(model.nodes) if _inside(o, groups, choice) and o.kind == "table"}
    return model._replace(nodes=tuple(_fuse(model.nodes, groups, choice, needs, masks)))


def attention(model: Model, task: Task) -> Model:
    """The model with the kernels that the choice of attention has."""
    groups = {"attention", "scan"} if task.attention == "flash" else {"attention"}
    return fuse(model, groups, task.attention)


def _inside(node: Node, groups: Collection[str], choice: str) -> bool:
    """Whether an operator is part of a fused kernel."""
    return isinstance(node, Op) and node.group in groups and node.kind not in CHOICES[choice]


def _fuse(
    nodes: Iterable[Node], groups: Collection[str], choice: str, needs: Collection[str], masks: set[str]
) -> Iterator[Node]:
    nodes = tuple(without_kernels(nodes, needs) if choice in SDPA else nodes)
    readers: dict[str, set[str]] = {}
    for node in nodes:
        for name, group in _reads(node):
            readers.setdefault(name, set()).add(group)
    inside = [n for n in nodes if isinstance(n, Op) and _inside(n, groups, choice)]
    chip = {t.name for o in inside for t in o.outs if readers.get(t.name) == {o.group}} | masks
    fused = set(map(id, inside))
    apart = set(laid_out(inside)) if choice in SDPA else set()
    for node in nodes:
        if isinstance(node, Block):
            yield node._replace(body=tuple(_fuse(node.body, groups, choice, needs, masks)))
        elif id(node) in fused:
            ins, outs = (tuple(_on_chip(t, chip - apart) for t in ts) for ts in (node.ins, node.outs))
            kind = "merge" if node.ins[0].name in apart else KEEPS[choice].get(node.kind, node.kind)
            # The kernel's backward pass reads its output, whether or not the next product needs it.
            holds = (*node.holds, node.out.name) if kind == "copy" else node.holds
            sizes = node.sizes
            if choice in SDPA and "window" in sizes:  # its kernel goes through all pairs
                sizes = {d: n for d, n in sizes.items() if d != "window"}
            yield Op(node.name, kind, ins, outs, sizes, group=node.group, kernel=node.group, holds=holds)
        else:
            yield node


def _on_chip(t: Tensor, chip: set[str]) -> Tensor:
    return t._replace(on_chip=True) if t.name in chip else t


def _reads(node: Node) -> Iterator[tuple[str, str]]:
    if isinstance(node, Op):
        yield from ((t.name, node.group) for t in node.ins)
    else:
        for inner in node.body:
            yield from ((name, "") for name, _ in _reads(inner))
        yield from ((c.leave, "") for c in node.carry)
        yield from ((c.init, "") for c in node.carry)
