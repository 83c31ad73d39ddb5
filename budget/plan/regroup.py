"""Which layers are recomputed together: groups of which only the input is kept, or the first layers only.

Source: chen-2016.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..config import Task, setting
from ..errors import InputError
from ..ir import ALL, INPUT_ONLY, Block, Carry, Model, Node, renamed
from ..size import ceil_div
from ._layers import first_layers, in_one, is_stack, layers
from .input_gradients import input_gradients

SETTINGS = {
    "recompute_every": setting(1, "layers in a group of which recomputation keeps the input only"),
    "recompute_layers": setting(0, "layers that are recomputed, from the first on; 0: all", least=0),
}
NEEDS = {"recompute_every": ("train",), "recompute_layers": ("train",)}


def regroup(model: Model, every: int = 1, first: int = 0) -> Model:
    """The model with its repeated layers in groups of `every`, or with only the first ones recomputed.

    To be applied before `backward`. Raises InputError where nothing repeats, where there are fewer layers,
    and for groups that end within a period of unlike layers.
    """
    field = "recompute_every" if every > 1 else "recompute_layers"
    stacks = [n for n in model.nodes if isinstance(n, Block) and not n.shared]
    if not stacks or not all(isinstance(n.count, int) for n in stacks):
        allowed = "1" if every > 1 else "0"
        raise InputError(field, f"{model.name} has no counted stack of layers; allowed: {allowed}")
    low, kept = first_layers(model, "recompute_layers", first) if first else (model.nodes, ())
    nodes: list[Node] = []
    for node in low:
        nodes += _groups(node, every) if is_stack(node) and every > 1 else (node,)
    nodes += (n._replace(keeps=ALL) if is_stack(n) else n for n in kept)
    return model._replace(nodes=tuple(nodes))


def _groups(node: Block, every: int) -> Iterator[Block]:
    """A stack of n layers as n / every groups of `every`, and one of those left over."""
    per = in_one(node)
    if every % per and every < layers(node):
        text = f"got {every}, layers come in periods of {per}; allowed: multiples of {per}"
        raise InputError("recompute_every", text)
    length = min(ceil_div(every, per), node.count)
    done, inits, rest = 0, [c.init for c in node.carry], node.count % length
    for size, count in ((length, node.count // length), (rest, 1)):
        if size and count:
            name = f"{node.name}[{done or ''}::{size}]"
            enters = [c.enter and f"{c.enter}{name}" for c in node.carry]
            new = {c.leave: f"{c.leave}@{name}" for c in node.carry} if rest and not done else {}
            leaves = [new.get(c.leave, c.leave) for c in node.carry]
            inner = tuple(map(Carry, enters, (c.enter for c in node.carry), leaves))
            body = (node._replace(body=renamed(node.body, new), count=size, carry=inner),)
            outer = tuple(map(Carry, inits, enters, leaves))
            yield Block(name, body, count, carry=outer, piece=True, keeps=INPUT_ONLY)
            done, inits = size * count, [e and x for e, x in zip(enters, leaves, strict=True)]


def check(task: Task, device: object) -> None:
    """Raise an InputError where nothing is recomputed that could be grouped."""
    t = task.techniques
    if task.recompute == "none":
        name = "recompute_every" if t.recompute_every > 1 else "recompute_layers"
        raise InputError(name, "nothing is recomputed; allowed: with recompute full")
    if t.recompute_every > 1 and task.recompute != "full":
        raise InputError("recompute_every", f"got recompute {task.recompute}; allowed: with recompute full")


def apply(model: Model, task: Task) -> Model:
    """The model with its layers in the groups that are recomputed."""
    t = task.techniques
    grouped = regroup(model, t.recompute_every, t.recompute_layers)
    return input_gradients(grouped, reentrant=True) if t.recompute_every > 1 else grouped


STAGES = {"group": apply}
