"""Compute again in the backward pass what the forward pass did not keep.

One rule serves flash attention (what stays on chip), selective recomputation (attention's
scores and probabilities) and full recomputation (everything but a layer's input): the forward
operators that lead to a tensor that was not kept are run again before its first reader.
Sources: flash-attention-2, korthikanti-2022.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ..errors import unknown
from ..model import Block, Model, Node
from ..op import Op, Tensor

Lost = Callable[[Op, Tensor], bool]

CHOICES: dict[str, Lost] = {
    "none": lambda o, t: t.on_chip,
    "selective": lambda o, t: t.on_chip or o.group == "attention",
    "full": lambda o, t: True,
}


def recompute(model: Model, choice: str) -> Model:
    """The training program with lost tensors computed again. To be applied after `backward`.

    Raises InputError for an unknown choice.
    """
    if choice not in CHOICES:
        raise unknown("recompute", choice, CHOICES)
    forward = [node for node in model.nodes if _phase(node) == "forward"]
    back = [node for node in model.nodes if _phase(node) != "forward"]
    return model._replace(nodes=(*forward, *_again(forward, back, CHOICES[choice], top=True)))


def _phase(node: Node) -> str:
    return node.phase if isinstance(node, Op) else "backward" if node.mirrors else "forward"


def _again(forward: Iterable[Node], back: Iterable[Node], lost: Lost, top: bool = False) -> Iterator[Node]:
    """Backward nodes with what they need computed again before them, level by level."""
    forward, back = tuple(forward), tuple(back)
    blocks = {node.name: node for node in forward if isinstance(node, Block)}
    ops = [node for node in forward if isinstance(node, Op)]
    # Outside the repeated layers only what stays on chip is lost.
    gone = CHOICES["none"] if top else lost
    makers = {t.name: o for o in ops for t in o.outs if gone(o, t)}
    done: set[str] = set()
    for node in back:
        if isinstance(node, Block):
            inner = blocks.get(node.mirrors)
            yield node if inner is None else node._replace(body=tuple(_again(inner.body, node.body, lost)))
            continue
        wanted: set[str] = set()
        _lead(node.ins, makers, done, wanted)
        if wanted:
            done |= wanted
            for o in ops:
                if any(t.name in wanted for t in o.outs):
                    # Besides its output, an operator makes again only what was lost.
                    outs = (o.out, *(t for t in o.outs[1:] if t.name in wanted))
                    yield o._replace(phase="backward", of=o.name, outs=outs)
        yield node


def _lead(reads: Iterable[Tensor], makers: dict[str, Op], done: set[str], wanted: set[str]) -> None:
    """Collect in `wanted` the lost tensors that lead to `reads`."""
    for t in reads:
        if t.name in makers and t.name not in done and t.name not in wanted:
            wanted.add(t.name)
            _lead(makers[t.name].ins, makers, done, wanted)
