"""Which activations need a gradient, what is kept for it, and the repetitions that need less than the others.

A repetition of a block that needs less is split off: the first one where its input needs no gradient (a
recurrence's initial state, frozen layers below a trained one), the last one where nothing reads its result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..ir import LEAF, WEIGHT, Block, Node, Op, pieces


def flow(nodes: Iterable[Node], needs: set[str]) -> Iterator[Node]:
    """Add to `needs` the activations that need a gradient; split off first repetitions."""
    for node in nodes:
        if isinstance(node, Op):
            if node.tag == LEAF:
                needs.update(out.name for out in node.outs)
            elif not node.rule.stops:
                for t in node.ins:
                    if t.role == WEIGHT or t.name in needs:
                        for out in node.outs:
                            needs.add(out.name)
                        break
            yield node
            continue
        first = inside(node, needs)
        nested = any(isinstance(inner, Block) for inner in node.body)
        late = [c for c in node.carry if c.enter and c.leave in first and c.init not in needs]
        if late and not (isinstance(node.count, int) and node.count == 1):
            head, rest = pieces(node, 1, f"{node.name}[0]")
            first = inside(head, needs)
            yield head._replace(body=tuple(flow(head.body, set(first))))
            needs.update(c.leave for c in head.carry if c.leave in first)
            yield from flow((rest._replace(name=node.name, piece=node.piece),), needs)
            continue
        needs.update(c.leave for c in node.carry if c.leave in first)
        yield node._replace(body=tuple(flow(node.body, set(first)))) if nested else node


def last_apart(nodes: Iterable[Node], reads: set[str], needs: set[str]) -> Iterator[Node]:
    """Split off last repetitions whose result nothing reads: what makes it has no gradient in them."""
    for node in nodes:
        if isinstance(node, Op):
            yield node
            continue
        if any(isinstance(inner, Block) for inner in node.body):
            left = reads | {c.leave for c in node.carry}
            node = node._replace(body=tuple(last_apart(node.body, left, inside(node, needs))))  # noqa: PLW2901
        if isinstance(node.count, int) and node.count == 1:
            yield node
            continue
        makers = {t.name: o for o in node.body if isinstance(o, Op) for t in o.outs}
        lost = {c.leave for c in node.carry if c.enter and c.leave in makers} - reads
        if not any(reads.isdisjoint(t.name for t in makers[name].outs) for name in lost & needs):
            yield node
            continue
        head, rest = pieces(node, node.count - 1, f"{node.name}[:-1]")
        needs.update(c.leave for c, last in zip(head.carry, node.carry, strict=True) if last.leave in needs)
        yield from (head, rest._replace(name=node.name, piece=node.piece))


def inside(node: Block, needs: set[str]) -> set[str]:
    """The tensors that need a gradient inside a block, given those outside."""
    inner = needs | {c.enter for c in node.carry if c.init in needs}
    for _ in flow(node.body, inner):
        pass
    return inner


def kept(nodes: Iterable[Node], needs: set[str]) -> Iterator[Node]:
    """Forward operators with the additional tensors that they save for the backward pass."""
    for node in nodes:
        if isinstance(node, Block):
            yield node._replace(body=tuple(kept(node.body, inside(node, needs))))
        else:
            saved, tracks = node.kept(needs), node.rule.tracks
            if saved or tracks:
                made = {t.name for t in node.outs}
                kernels, back = node.beside
                outs = (*node.outs, *[t for t in saved if t.name not in made])
                yield node._replace(outs=outs, beside=(kernels + tracks, back))
            else:
                yield node
