"""Keep what the backward pass will read elsewhere (on the host) or smaller (in float8) in the meantime.

A tensor is copied away when it is made and freed after its last reader of the forward pass; it is fetched
before the first reader of the backward pass. Derived.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ..ir import STATE, WEIGHTS, Block, Model, Node, Op, Tensor
from ..named import NamedTuple

Known = tuple[Tensor, Op]  # a tensor, and an operator that knows its sizes


class How(NamedTuple):
    """Which tensors are put away, and the operators that put one away and fetch it."""

    goes: Callable[[Known], bool]
    moves: Callable[[Known], tuple[Op, Op]]


def exchanged(
    model: Model, goes: Callable[[Known], bool], moves: Callable[[Known], tuple[Op, Op]]
) -> tuple[Node, ...]:
    """The nodes of a training program whose repeated layers put away some of what they keep; without such
    layers the program as a whole does. After `recompute`.
    """
    how = How(goes, moves)
    if any(isinstance(n, Block) and n.mirrors for n in model.nodes):
        return tuple(_levels(model.nodes, how))
    at = next(i for i, n in enumerate(model.nodes) if isinstance(n, Op) and n.phase == "backward")
    forward, back = Block("", model.nodes[:at]), Block("", model.nodes[at:])
    forward_nodes, back_nodes = _exchanged(forward, back, how, model.outputs)
    return (*forward_nodes, *back_nodes)


def _levels(nodes: tuple[Node, ...], how: How) -> Iterator[Node]:
    """Each pair of a forward and a backward block with its exchange."""
    back = {n.mirrors: n for n in nodes if isinstance(n, Block) and n.mirrors}
    bodies: dict[str, tuple[Node, ...]] = {}
    for node in nodes:
        if isinstance(node, Block) and not node.mirrors and node.name in back:
            body, bodies[node.name] = _pair(node, back[node.name], how)
            yield node._replace(body=body)
        elif isinstance(node, Block) and node.mirrors in bodies:
            yield node._replace(body=bodies[node.mirrors])
        else:
            yield node


def _pair(forward: Block, back: Block, how: How) -> tuple[tuple[Node, ...], tuple[Node, ...]]:
    """The bodies of a layer's two blocks; in a period of unlike layers, each layer's. A recomputed group of
    layers (its backward pass has blocks that mirror none) keeps only its input, as one layer does.
    """
    nodes = (*forward.body, *back.body)
    if all(isinstance(n, Block) for n in forward.body) and all(
        n.mirrors for n in back.body if isinstance(n, Block)
    ):
        levels = tuple(_levels(nodes, how))
        return levels[: len(forward.body)], levels[len(forward.body) :]
    return _exchanged(forward, back, how)


def _exchanged(
    forward: Block, back: Block, how: How, stay: tuple[str, ...] = ()
) -> tuple[tuple[Node, ...], tuple[Node, ...]]:
    """The bodies of a forward block, which puts tensors away, and a backward one, which fetches them."""
    found = _sent(forward, back).items()
    sent = {name: known for name, known in found if name not in stay and how.goes(known)}
    fetched = _fetch(back.body, dict(sent), _views(forward), how)
    return tuple(_send(forward.body, dict(sent), how)), tuple(fetched)


def _views(block: Block) -> dict[str, Op]:
    """Views of tensors, by name, with the operators that make them; without input one is a constant."""
    ops = (n for n in block.body if isinstance(n, Op) and n.rule.view and n.ins)
    return {t.name: o for o in ops for t in o.outs}


def _sent(forward: Block, back: Block) -> dict[str, Known]:
    """Tensors of the forward body that the backward one reads, with an operator that knows their sizes: what
    this level's operators make, or what enters; of a view, the tensor that it views.
    """
    ops, views = [n for n in forward.body if isinstance(n, Op)], _views(forward)
    inner = ((t, o) for o in ops for t in o.outs if not (t.on_chip or o.rule.view or t.role == STATE))
    made = {t.name: (t, o) for t, o in inner}
    enters = {c.enter for c in forward.carry if c.enter}
    entering = {t.name: (t, o) for t, o in _reads(forward.body) if t.name in enters}
    again = {t.name for n in back.body if isinstance(n, Op) and n.again for t in n.outs}
    read: dict[str, Known] = {}
    for t, _ in _reads(back.body):
        name = t.name
        while name in views:
            name = views[name].ins[0].name
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


def _send(body: Iterable[Node], sent: dict[str, Known], how: How) -> Iterator[Node]:
    """What puts tensors away, each behind its tensor's maker or before its first reader."""
    for node in body:
        for t, _ in _reads((node,)):
            if t.name in sent and _enters(t, sent):
                yield how.moves(sent.pop(t.name))[0]
        yield node
        if isinstance(node, Op):
            yield from (how.moves(sent.pop(t.name))[0] for t in node.outs if t.name in sent)


def _enters(t: Tensor, sent: dict[str, Known]) -> bool:
    return all(t.name != out.name for out in sent[t.name][1].outs)


def _fetch(body: Iterable[Node], sent: dict[str, Known], views: dict[str, Op], how: How) -> Iterator[Node]:
    """What fetches tensors, each before its first reader; views of them are made anew."""
    for node in body:
        for t, _ in _reads((node,)):
            again = []
            name = t.name
            while name in views:
                again.append(views.pop(name))
                name = again[-1].ins[0].name
            if name in sent:
                yield how.moves(sent.pop(name))[1]
            yield from (v._replace(phase="backward", of=v.name) for v in reversed(again))
        yield node
