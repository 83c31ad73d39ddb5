"""Which layers are recomputed together: groups that keep only their input, or the first layers only.

Source: chen-2016.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import groupby

from ..config import Task, setting
from ..errors import InputError
from ..ir import ALL, INPUT_ONLY, Block, Carry, Model, Node, pieces, read_by, renamed
from ..size import ceil_div
from ._layers import cut, first_layers, in_one, is_stack, layers
from .input_gradients import input_gradients

SETTINGS = {
    "recompute_every": setting(1, "layers in a group of which recomputation keeps the input only"),
    "recompute_layers": setting(0, "layers that are recomputed, from the first on; 0: all", least=0),
}
NEEDS = {"recompute_every": ("train",), "recompute_layers": ("train",)}


def regroup(model: Model, every: int = 1, first: int = 0) -> Model:
    """The model with its repeated layers in groups of `every`, or with only the first ones recomputed.

    To be applied before `backward`. Raises InputError where nothing repeats, or there are fewer layers.
    """
    field = "recompute_every" if every > 1 else "recompute_layers"
    stacks = [n for n in model.nodes if isinstance(n, Block) and not n.shared]
    if not stacks or not all(isinstance(n.count, int) for n in stacks):
        allowed = "1" if every > 1 else "0"
        raise InputError(field, f"{model.name} has no counted stack of layers; allowed: {allowed}")
    low, kept = first_layers(model, "recompute_layers", first) if first else (model.nodes, ())
    nodes: list[Node] = []
    for together, run in groupby(low, is_stack if every > 1 else lambda _: False):
        part = tuple(run)
        after = {*model.outputs, *read_by(n for n in (*low, *kept) if n not in part)}
        nodes += _chunks(tuple(filter(is_stack, part)), every, after) if together else part
    nodes += (n._replace(keeps=ALL) if is_stack(n) else n for n in kept)
    return model._replace(nodes=tuple(nodes))


def _chunks(stacks: tuple[Block, ...], every: int, after: Collection[str]) -> Iterator[Block]:
    """Neighbouring stacks, whose layers may differ, in groups of `every` layers that cross their borders."""
    left: tuple[Node, ...] = stacks
    while left:
        node, *others = left
        assert isinstance(node, Block)
        per, n = in_one(node), layers(node)
        whole = n - n % every if others else n
        if (every % per == 0 and whole) or (n <= every and not others):
            head, *rest = pieces(node, whole // per) if whole < n else (node,)
            yield from _groups(head, every)
            left = (*rest, *others)
        else:
            one, left = cut(left, "recompute_every", min(every, sum(map(layers, left))))
            yield _unlike(tuple(filter(is_stack, one)), {*after, *read_by(left)})


def _unlike(blocks: tuple[Block, ...], after: Collection[str]) -> Block:
    """Different layers as one group; only tensors that are read after it leave it."""
    first, last = blocks[0], blocks[-1]
    name = f"{first.name}..{last.name}"
    enters = {c.init: f"{c.init}@{name}" for c in first.carry if c.enter}
    body = (
        first._replace(carry=tuple(c._replace(init=enters.get(c.init, "")) for c in first.carry)),
        *blocks[1:],
    )
    ends = [c.leave for c in last.carry if c.enter]
    inits = [*enters.items(), *[("", "")] * len(ends)]
    carry = [Carry(*init, leave) for init, leave in zip(inits, ends, strict=False)]
    made = (c.leave for b in blocks for c in b.carry)
    carry += [Carry("", "", leave) for leave in made if leave in after and leave not in ends]
    return Block(name, body, 1, carry=tuple(carry), piece=True, keeps=INPUT_ONLY)


def _groups(node: Block, every: int) -> Iterator[Block]:
    """A stack of n layers as n / every groups of `every`, and one of those left over."""
    per = in_one(node)
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
