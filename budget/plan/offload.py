"""Offload to the host's memory: activations until the backward pass needs them, optimizer states
until the step does. What leaves the device crosses the host's link, twice.

Activations: what a layer saves is copied when it is made and let go after its last reader; it comes
back before the first reader in the backward pass. Where layers are recomputed that is their input.
Sources: zero-infinity, torch-save-on-cpu.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..config import Task, setting
from ..errors import InputError, unknown
from ..ir import HOST, STATE, WEIGHTS, Block, Model, Node, Op, Tensor, rewrite, walk
from ._names import is_trained

OFFLOADED = ("none", "activations", "optimizer")
SETTINGS = {"offload": setting("none", "activations, optimizer, or both by commas, to the host")}
NEEDS = {"offload": ("train",)}
UNNAMED = True


def offloaded(names: str) -> frozenset[str]:
    """What is offloaded, from names by commas. Raises InputError."""
    chosen = frozenset(name.strip() for name in names.split(",") if name.strip())
    for name in chosen:
        if name not in OFFLOADED:
            raise unknown("offload", name, OFFLOADED)
    return chosen - {"none"}


def offload_activations(model: Model) -> Model:
    """The training program with what its repeated layers keep on the host; without such layers, with all
    that the forward pass keeps. After `recompute`.
    """
    is_trained(model, "offload")
    if any(isinstance(n, Block) and n.mirrors for n in model.nodes):
        nodes = tuple(_levels(model.nodes))
    else:
        at = next(i for i, n in enumerate(model.nodes) if isinstance(n, Op) and n.phase == "backward")
        forward, back = _exchanged(Block("", model.nodes[:at]), Block("", model.nodes[at:]), model.outputs)
        nodes = (*forward, *back)
    if not any(o.kind == "offload" for o, _ in walk(nodes)):
        raise InputError("offload", f"{model.name} keeps no activations of its layers; allowed: optimizer")
    return model._replace(nodes=nodes)


def offload_optimizer(model: Model) -> Model:
    """The training program with its optimizer's states on the host. After `optimizer`."""
    if not any(t.role == STATE for o, _ in walk(model.nodes) for t in o.ins):
        raise InputError("offload", "the optimizer has no state; allowed: one that has, as adamw")

    def hosted(ts: tuple[Tensor, ...], o: Op) -> tuple[Tensor, ...]:
        own = {t.name for t in o.ins if t.role == STATE}
        return tuple(t._replace(role=HOST) if t.name in own else t for t in ts)

    def change(o: Op) -> tuple[Op]:
        return (o._replace(ins=hosted(o.ins, o), outs=hosted(o.outs, o)) if o.phase == "optimizer" else o,)

    return model._replace(nodes=rewrite(model.nodes, change))


def _levels(nodes: tuple[Node, ...]) -> Iterator[Node]:
    """Each pair of a forward and a backward block with its exchange."""
    back = {n.mirrors: n for n in nodes if isinstance(n, Block) and n.mirrors}
    bodies: dict[str, tuple[Node, ...]] = {}
    for node in nodes:
        if isinstance(node, Block) and node.name in back:
            body, bodies[node.name] = _pair(node, back[node.name])
            yield node._replace(body=body)
        elif isinstance(node, Block) and node.mirrors in bodies:
            yield node._replace(body=bodies[node.mirrors])
        else:
            yield node


def _pair(forward: Block, back: Block) -> tuple[tuple[Node, ...], tuple[Node, ...]]:
    """The bodies of a layer's two blocks; of a period of unlike layers, each layer's. A group of layers that
    is run again (it has blocks that mirror none in its backward pass) keeps its input only, as one layer.
    """
    nodes = (*forward.body, *back.body)
    if all(isinstance(n, Block) for n in forward.body) and all(
        n.mirrors for n in back.body if isinstance(n, Block)
    ):
        levels = tuple(_levels(nodes))
        return levels[: len(forward.body)], levels[len(forward.body) :]
    return _exchanged(forward, back)


def _exchanged(
    forward: Block, back: Block, stay: tuple[str, ...] = ()
) -> tuple[tuple[Node, ...], tuple[Node, ...]]:
    """The bodies of a forward and a backward block: the one sends, the other fetches all but what stays."""
    sent = {name: known for name, known in _sent(forward, back).items() if name not in stay}
    views = {t.name: n for n in forward.body if isinstance(n, Op) and n.rule.view for t in n.outs}
    return tuple(_send(forward.body, dict(sent))), tuple(_fetch(back.body, dict(sent), views))


def _sent(forward: Block, back: Block) -> dict[str, tuple[Tensor, Op]]:
    """Tensors, with an operator that knows their sizes, that the backward body reads of the forward one:
    roots of views, what is made by this level's operators or enters.
    """
    ops = [n for n in forward.body if isinstance(n, Op)]
    views = {t.name: o.ins[0].name for o in ops if o.rule.view for t in o.outs}
    inner = ((t, o) for o in ops for t in o.outs if not (t.on_chip or o.rule.view or t.role == STATE))
    made = {t.name: (t, o) for t, o in inner}
    enters = {c.enter for c in forward.carry if c.enter}
    entering = {t.name: (t, o) for t, o in _reads(forward.body) if t.name in enters}
    again = {t.name for n in back.body if isinstance(n, Op) and n.again for t in n.outs}
    read: dict[str, tuple[Tensor, Op]] = {}
    for t, _ in _reads(back.body):
        name = t.name
        while name in views:
            name = views[name]
        known = made.get(name) or entering.get(name)
        if known and name not in again and t.role not in WEIGHTS:
            read[name] = known
    return read


def _reads(nodes: Iterable[Node]) -> Iterator[tuple[Tensor, Op]]:
    """What operators read; what enters a block within, by its name outside."""
    for node in nodes:
        if isinstance(node, Op):
            yield from ((t, node) for t in node.ins)
        else:
            outside = {c.enter: c.init for c in node.carry if c.enter and c.init}
            for t, o in _reads(node.body):
                yield t._replace(name=outside.get(t.name, t.name)), o


def _send(body: Iterable[Node], sent: dict[str, tuple[Tensor, Op]]) -> Iterator[Node]:
    """Copies to the host, each behind its tensor's maker or before its first reader."""
    for node in body:
        for t, _ in _reads((node,)):
            if t.name in sent and _enters(t, sent):
                yield _copy("offload", sent.pop(t.name))
        yield node
        if isinstance(node, Op):
            yield from (_copy("offload", sent.pop(t.name)) for t in node.outs if t.name in sent)


def _enters(t: Tensor, sent: dict[str, tuple[Tensor, Op]]) -> bool:
    return all(t.name != out.name for out in sent[t.name][1].outs)


def _fetch(body: Iterable[Node], sent: dict[str, tuple[Tensor, Op]], views: dict[str, Op]) -> Iterator[Node]:
    """Copies from the host, each before its first reader; views of them are made anew."""
    for node in body:
        for t, _ in _reads((node,)):
            again = []
            name = t.name
            while name in views:
                again.append(views.pop(name))
                name = again[-1].ins[0].name
            if name in sent:
                yield _copy("reload", sent.pop(name))
            yield from (v._replace(phase="backward", of=v.name) for v in reversed(again))
        yield node


def _copy(kind: str, known: tuple[Tensor, Op]) -> Op:
    t, o = known
    there = t._replace(name=f"{t.name}@host", role=HOST)
    ins, outs = ((t,), (there,)) if kind == "offload" else ((there,), (t,))
    return Op(
        f"{o.name}.{kind}", kind, ins, outs, o.sizes, "forward" if kind == "offload" else "backward", o.name
    )


def check(task: Task, device: object) -> None:
    """Raise an InputError for a name of something else."""
    offloaded(task.techniques.offload)


def apply(model: Model, task: Task) -> Model:
    """The training program with its activations on the host, where they are named."""
    return offload_activations(model) if "activations" in offloaded(task.techniques.offload) else model


def apply_states(model: Model, task: Task) -> Model:
    """The training program with its optimizer's states on the host, where they are named."""
    return offload_optimizer(model) if "optimizer" in offloaded(task.techniques.offload) else model


STAGES = {"offload": apply, "states": apply_states}
