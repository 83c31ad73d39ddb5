"""Each recomputed layer's input and that input's gradient stay until the backward pass ends.

FSDP1 hangs a hook on the input of a unit of frozen weights (register_multi_grad_hook), and removes it after
the backward pass. Within a reentrant checkpoint that input is a leaf, whose node in the graph holds the input
and, since leaves accumulate, its gradient. This happens where the checkpoint is around FSDP's unit, as in
transformers before 4.52, not where the unit is around the checkpoint. Sources: torch-fsdp1, transformers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ..config import Task, setting
from ..errors import InputError
from ..ir import ACTIVATION, INPUT_ONLY, Block, Model, Node, Op, walk
from ._layers import is_stack
from .input_gradients import input_gradients

SETTINGS = {
    "hold_checkpoints": setting(
        False,
        "each recomputed layer's input and its gradient stay until the backward pass ends (FSDP1, LoRA)",
    )
}
NEEDS = {"hold_checkpoints": ("train",)}
EXCLUDES = {"hold_checkpoints": ("recompute_every",)}


def reentrant(model: Model) -> Model:
    """The model whose layers are each in a reentrant checkpoint. To be applied before `backward`."""
    return input_gradients(model._replace(nodes=tuple(map(_reentrant, model.nodes))), reentrant=True)


def _reentrant(node: Node) -> Node:
    if not isinstance(node, Block) or node.shared:
        return node
    if any(is_stack(n) for n in node.body):
        return node._replace(body=tuple(map(_reentrant, node.body)))
    return node._replace(keeps=node.keeps or INPUT_ONLY)


def hold_checkpoints(model: Model) -> Model:
    """The training program that keeps its layers' inputs and their gradients until it ends."""
    forward = {n.name: n for n in model.nodes if isinstance(n, Block) and not n.mirrors}
    return model._replace(nodes=(*model.nodes, *_letting_go(model.nodes, forward)))


def _letting_go(nodes: Iterable[Node], forward: Mapping[str, Block]) -> Iterator[Block]:
    """For each backward block another one, in which its repetitions let go of what they held."""
    for node in nodes:
        if not isinstance(node, Block) or node.shared or node.mirrors not in forward:
            continue
        own = forward[node.mirrors]
        inner = {n.name: n for n in own.body if isinstance(n, Block)}
        parts: Iterable[Node] = (
            _of_layer(node, own) if own.keeps == INPUT_ONLY else _letting_go(node.body, inner)
        )
        body = tuple(parts)
        if body:
            yield Block(f"{node.name}~end", body, node.count, mirrors=node.name)


def _of_layer(node: Block, forward: Block) -> Iterator[Op]:
    """Operators that keep a layer's inputs and their gradients alive until they run."""
    makers = {t.name: (o, t) for o, _ in walk(node.body) for t in o.outs}
    held = tuple(c.enter for c in forward.carry if c.enter)
    for c in node.carry:
        if c.enter and c.leave in makers:
            o, t = makers[c.leave]
            end = t._replace(name=f"{t.name}~end", role=ACTIVATION)
            yield Op(f"{o.name}.end", "view", (t,), (end,), o.sizes, "backward", o.of, holds=held)


def check(task: Task, device: object) -> None:
    """Raise an InputError where nothing is recomputed."""
    if task.techniques.hold_checkpoints and task.recompute != "full":
        raise InputError("hold_checkpoints", f"got recompute {task.recompute}; allowed: with recompute full")


def checkpointed(model: Model, task: Task) -> Model:
    """The model with its layers' checkpoints."""
    return reentrant(model)


STAGES = {"group": checkpointed, "loop": lambda model, _: hold_checkpoints(model)}
