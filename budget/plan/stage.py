"""Pipeline stages: networks of their own, which begin with what they receive and end in what they send.

Cut before `backward`, so that everything else follows: the gradient of a send is a receive, and the other way
round. Each stage makes the tables that it reads; what a later stage needs passes through those between. The
first stage has the embedding, the last one the head and the loss; both have a copy of a tied weight.
Sources: gpipe, megatron-lm-2021.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ..errors import InputError, wrong
from ..ir import INPUT, LEAF, WEIGHTS, Model, Node, Op, Tensor, walk
from ..layout import Layout
from ..named import NamedTuple
from ..size import Size, is_number
from ._layers import first_layers, layers
from .mesh import PIPELINE


class Stage(NamedTuple):
    """A stage's network, and the ranks of the pipeline, from 0 on, that have one like it."""

    model: Model
    layers: int
    ranks: tuple[int, ...]


def stages(model: Model, layout: Layout) -> tuple[Stage, ...]:
    """The different stages of a network, in order. To be applied before `backward`. Raises InputError."""
    counts = spread(model, layout)
    if len(counts) == 1:
        return (Stage(model, counts[0], (0,)),)
    different: dict[tuple[tuple[str, int], ...], Stage] = {}
    parts = tuple(_cut(model, counts))
    for rank, (part, count) in enumerate(zip(parts, counts, strict=True)):
        before, behind = (_joined(parts[:rank]), _joined(parts[rank + 1 :]))
        key = tuple((o.name, times) for o, times in walk(part))
        known = different.get(key)
        ranks = (*known.ranks, rank) if known else (rank,)
        # One of several equal stages stands for all: the earliest, whose tensors have the shortest names.
        network = known.model if known else _network(model, before, part, behind)
        different[key] = Stage(network, count, ranks)
    return tuple(different.values())


def spread(model: Model, layout: Layout) -> tuple[int, ...]:
    """Layers of each stage. Raises InputError."""
    return even_stages(sum(layers(node) for node in model.nodes), model.name, layout)


def even_stages(total: Size, name: str, layout: Layout) -> tuple[int, ...]:
    """Layers in stages: as requested, or as evenly as possible, the ends with fewer. Raises InputError."""
    n = layout.pp
    if not (is_number(n) and is_number(total)):
        raise InputError("layout.pp", "allowed: one number, of a network with a number of layers")
    if layout.stages != (0,):
        if len(layout.stages) != n or sum(layout.stages) != total:
            asked = "+".join(map(str, layout.stages))
            text = f"got {asked}; allowed: {n} numbers that add up to {total} layers"
            raise InputError("layout.stages", text)
        return tuple(layout.stages)
    if n > max(total, 1):
        raise wrong("layout.pp", n, f"1 to {total or 1}, the layers of {name}")
    low, more = divmod(total, n)
    ends = (n - more + 1) // 2  # so many of the stages with fewer layers come last
    return tuple(low + (n - more - ends <= rank < n - ends) for rank in range(n))


def _cut(model: Model, counts: Sequence[int]) -> Iterator[tuple[Node, ...]]:
    """The nodes of each stage."""
    rest = model
    for count in counts[:-1]:
        low, high = first_layers(rest, "layout.pp", count)
        yield low
        rest = rest._replace(nodes=high)
    yield rest.nodes


def _network(
    model: Model, before: tuple[Node, ...], part: tuple[Node, ...], behind: tuple[Node, ...]
) -> Model:
    """One stage's network: tables, receives, its own operators, sends."""
    makers = {t.name: (o, t) for o, _ in walk((*before, *part)) for t in o.outs}
    early, mine = (set(_written(nodes)) for nodes in (before, part))
    reads = dict.fromkeys(_read(part))
    later = dict.fromkeys(_read(behind))
    tables = [o for o in (*before, *part) if isinstance(o, Op) and _is_table(o, makers)]
    made = {t.name for o in tables for t in o.outs}
    received = [name for name in {**reads, **later} if name in early and name not in mine | made]
    sent = [name for name in later if name in early | mine and name not in made]
    again = _behind([o for o in tables if o not in part], set(reads))
    nodes: list[Node] = [*again]
    for name in received:
        o, t = makers[name]
        far = Tensor(f"{name}@before", t.dims, dtype=t.dtype, on_chip=True)
        here = far._replace(name=name, on_chip=False)
        nodes.append(Op(f"remote.{name}", "remote", (), (far,), o.sizes, tag=LEAF, axis="pp", group=PIPELINE))
        nodes.append(Op(f"receive.{name}", "receive", (far,), (here,), o.sizes, axis="pp", group=PIPELINE))
    nodes += part
    ends = []
    for name in sent:
        o, t = makers[name]
        here = Tensor(name, t.dims, dtype=t.dtype)
        far = here._replace(name=f"{name}@next")
        nodes.append(Op(f"send.{name}", "send", (here,), (far,), o.sizes, axis="pp", group=PIPELINE))
        ends.append(far.name)
    own = (name for name in model.outputs if name in mine)
    return model._replace(nodes=tuple(nodes), outputs=(*ends, *own))


def _behind(tables: Iterable[Op], reads: set[str]) -> list[Op]:
    """The tables that are read, and the tables from which these are made, in their order."""
    needed: list[Op] = []
    for o in reversed(list(tables)):
        if any(t.name in reads for t in o.outs):
            needed.insert(0, o)
            reads = reads | {t.name for t in o.ins}
    return needed


def _is_table(o: Op, makers: dict[str, tuple[Op, Tensor]]) -> bool:
    """Whether an operator makes something of inputs alone that every stage can make for itself."""
    return all(
        t.role == INPUT
        or (t.role not in WEIGHTS and t.name in makers and _is_table(makers[t.name][0], makers))
        for t in o.ins
    )


def _joined(parts: Iterable[tuple[Node, ...]]) -> tuple[Node, ...]:
    return tuple(node for part in parts for node in part)


def _written(nodes: Iterable[Node]) -> Iterator[str]:
    """Names of the tensors that nodes leave for later ones."""
    for node in nodes:
        if isinstance(node, Op):
            yield from (t.name for t in node.outs)
        else:
            yield from (c.leave for c in node.carry)


def _read(nodes: Iterable[Node]) -> Iterator[str]:
    """Names of the tensors that nodes read, or begin with."""
    for node in nodes:
        if isinstance(node, Op):
            yield from (t.name for t in node.ins if t.role not in (*WEIGHTS, INPUT))
        else:
            yield from (c.init for c in node.carry if c.init)
            yield from _read(node.body)
