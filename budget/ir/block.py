"""Programs: operators in the order in which they run; what repeats is a block, stored once with a count."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from ..named import Any, NamedTuple
from ..size import Size, is_number, is_zero
from .op import Op
from .tensor import STATE, WEIGHTS, Tensor


class Carry(NamedTuple):
    """A tensor handed from one repetition to the next, by its three names.

    One that every repetition only makes anew has no `init` and no `enter`.
    """

    init: str  # outside, before the first repetition
    enter: str  # inside, as a repetition finds it
    leave: str  # inside, as it leaves it; outside, after the last


class Block(NamedTuple):
    """Operators that are repeated `count` times.

    `shared`: each time with the same weights (a recurrence over t, ALBERT's layers). `mirrors`: for a
    backward block, the forward block whose saved tensors it reads. `piece`: other blocks repeat the same
    operators with weights of their own (see `pieces`). `keeps`: what is kept of a repetition whatever
    recomputation says: ALL, INPUT_ONLY or NOTHING. `inline`: statements in a loop, not calls of layers, so
    that no caller's variable holds a layer's input.
    """

    name: str
    body: tuple[Node, ...]
    count: Size = 1
    shared: bool = False
    carry: tuple[Carry, ...] = ()
    mirrors: str = ""
    piece: bool = False
    keeps: str = ""
    inline: bool = False


Node = Op | Block
ALL = "all"  # of layers that are not recomputed
INPUT_ONLY = "input"  # of a group of layers that is recomputed at once (plan/regroup.py)
NOTHING = "nothing"  # of a micro-batch when the next one starts (plan/accumulate.py)


class Model(NamedTuple):
    """A network at a given size of input.

    `outputs` are the tensors that a loss is taken of; `samples` and `tokens` what one forward pass works
    through, `sound` the seconds of sound in a sample; `uncounted` names what the operators leave out;
    `cached` are the tokens of a sample that a step of decoding finds in a cache.
    """

    name: str
    arch: str
    nodes: tuple[Node, ...]
    config: Mapping[str, Any]
    outputs: tuple[str, ...]
    samples: Size = 1
    tokens: Size = 0
    uncounted: tuple[str, ...] = ()
    sound: Size = 0
    cached: Size = 0

    @property
    def counts_tokens(self) -> bool:
        """Whether the model works through tokens (text, sound, time steps), not just samples."""
        return not is_zero(self.tokens)

    @property
    def captured(self) -> bool:
        """Whether it is a torch module's, as it ran: operators in a row, dimensions without names."""
        return self.arch == "module"


class Same:
    """A Model as a key of remembered answers (size.once): equal if it is the same object. A torch module's
    cannot be a key: it is large, and captured anew each time.
    """

    __slots__ = ("model",)

    def __init__(self, model: Model):
        self.model = model

    def __hash__(self) -> int:
        if self.model.captured:
            raise TypeError("captured")
        return id(self.model)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.model is other.model


def block(
    name: str, body: Iterable[Node], count: Size = 1, *, shared: bool = False, inline: bool = False
) -> Block:
    """Operators repeated `count` times, one after the other."""
    return Block(name, tuple(body), count, shared, inline=inline)


def walk(nodes: Iterable[Node], times: Size = 1) -> list[tuple[Op, Size]]:
    """Every operator with the number of times that it runs."""
    ops: list[tuple[Op, Size]] = []
    for node in nodes:
        if isinstance(node, Block):
            ops += walk(node.body, times * node.count)
        else:
            ops.append((node, times))
    return ops


def rewrite(nodes: Iterable[Node], change: Callable[[Op], Iterable[Node]]) -> tuple[Node, ...]:
    """The program with each operator replaced by others."""
    new: list[Node] = []
    for node in nodes:
        if isinstance(node, Block):
            new.append(node._replace(body=rewrite(node.body, change)))
        else:
            new += change(node)
    return tuple(new)


def read_by(nodes: Iterable[Node]) -> Iterator[str]:
    """Names of tensors that operators read, or that blocks begin with."""
    for node in nodes:
        if isinstance(node, Op):
            yield from (t.name for t in node.ins)
        else:
            yield from (c.init for c in node.carry)
            yield from read_by(node.body)


def pieces(node: Block, first: Size, name: str = "") -> tuple[Block, ...]:
    """A block as its first repetitions, `name[:3]` or as they are called, and the others, `name[3:]`."""
    name = name or f"{node.name}[:{first}]"
    if is_number(node.count) and node.count <= first:
        return (node._replace(name=name, piece=True),)
    new = {c.leave: f"{c.leave}@{name}" for c in node.carry}  # what one piece makes, the other makes too
    enters = tuple(c._replace(leave=new[c.leave]) for c in node.carry)
    carry = tuple(c._replace(init=new[c.leave]) if c.enter else c for c in node.carry)
    head = renamed(node.body, new)
    return (
        node._replace(name=name, body=head, count=first, carry=enters, piece=True),
        node._replace(name=f"{node.name}[{first}:]", count=node.count - first, carry=carry, piece=True),
    )


def renamed(nodes: Iterable[Node], new: Mapping[str, str]) -> tuple[Node, ...]:
    """The same program with other names for some tensors."""

    def tensors(ts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(
            t._replace(name=new.get(t.name, t.name), of=new.get(t.of, t.of))
            if t.name in new or t.of in new
            else t
            for t in ts
        )

    def visit(node: Node) -> Node:
        if isinstance(node, Op):
            holds, callers = (tuple(new.get(n, n) for n in names) for names in (node.holds, node.callers))
            ins, outs = tensors(node.ins), tensors(node.outs)
            return node._replace(ins=ins, outs=outs, holds=holds, callers=callers)
        carry = (Carry(*(new.get(name, name) for name in c)) for c in node.carry)
        return node._replace(body=tuple(visit(n) for n in node.body), carry=tuple(carry))

    return tuple(visit(node) for node in nodes)


def weights(nodes: Iterable[Node], copies: Size = 1) -> Iterator[tuple[Tensor, Op, Size]]:
    """Every weight once, with an operator that reads it and the number of copies."""
    seen: set[str] = set()
    yield from _weights(nodes, copies, seen)


def _weights(nodes: Iterable[Node], copies: Size, seen: set[str]) -> Iterator[tuple[Tensor, Op, Size]]:
    for node in nodes:
        if isinstance(node, Block):
            inner = set(seen)
            yield from _weights(node.body, copies if node.shared else copies * node.count, inner)
            if node.shared or not node.piece:
                seen |= inner
        elif node.phase == "forward":
            for t in node.ins:
                if t.role in WEIGHTS and t.name not in seen:
                    seen.add(t.name)
                    yield t, node, copies


def states(nodes: Iterable[Node], copies: Size = 1) -> Iterator[tuple[Tensor, Op, Size]]:
    """Every state of an optimizer once, with an operator that reads it and the number of copies."""
    seen: set[str] = set()
    for node in nodes:
        if isinstance(node, Block):
            for state in states(node.body, copies if node.shared else copies * node.count):
                if state[0].name not in seen:
                    seen.add(state[0].name)
                    yield state
            continue
        for t in node.ins:
            if t.role == STATE and t.name not in seen:
                seen.add(t.name)
                yield t, node, copies
