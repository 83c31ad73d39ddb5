"""Recompute in the backward pass what the forward pass did not keep (activation checkpointing).

One rule serves flash attention (what stays on chip), selective recomputation (attention's
scores and probabilities) and full recomputation (everything but a layer's input): the forward
operators that produce a tensor that was not kept are recomputed before its first reader.
plan/_policies.py has what is kept of a recomputed layer besides its input.
plan/regroup.py makes groups of layers, of which only a group's input is kept, or leaves layers out.
Sources: flash-attention-2, korthikanti-2022, chen-2016.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from ..errors import unknown
from ..ir import (
    ACTIVATION,
    ALL,
    COPY,
    INPUT_ONLY,
    NOTHING,
    REMADE,
    SCALE,
    SCORES,
    SHAPED,
    WEIGHTS,
    Block,
    Model,
    Node,
    Op,
    Tensor,
    batch_leads,
    rewrite,
    walk,
)
from ._sdpa import ATTENTION

POLICIES = ("keep_attention", "keep_second_products", "keep_products")  # plan/_policies.py
Lost = Callable[[Op, Tensor, bool], bool]  # an operator, its output, and whether only its group reads it


def _never_kept(o: Op, t: Tensor, inner: bool) -> bool:
    """Whether nothing keeps an output: it is on the chip only (but not in a chunked loss, whose backward pass
    is over), is a weight widened for one product, or is freed by its module.
    """
    gone = o.keeps == NOTHING or (inner and o.keeps == INPUT_ONLY)
    return gone or _is_remade(o) or (t.on_chip and o.kernel != "chunked")


def _is_remade(o: Op) -> bool:
    """Whether an operator widens a weight for one product, whose backward pass widens it again."""
    return o.rule.lost or o.tag == REMADE


CHOICES: dict[str, Lost] = {
    "none": _never_kept,
    # Attention's scores and probabilities; what the output projection reads stays.
    "selective": lambda o, t, inner: _never_kept(o, t, inner) or (inner and o.group in ATTENTION),
    "full": lambda o, t, inner: True,
    **{policy: (lambda o, t, inner: True) for policy in POLICIES},
}


def recompute(model: Model, choice: str) -> Model:
    """The training program with its recomputation. To be applied after `backward`.

    Raises InputError for an unknown choice.
    """
    if choice not in CHOICES:
        raise unknown("recompute", choice, CHOICES)
    forward = [node for node in model.nodes if _phase(node) == "forward"]
    back = [node for node in model.nodes if _phase(node) != "forward"]
    return model._replace(nodes=(*forward, *_again(forward, back, choice, top=True)))


def _phase(node: Node) -> str:
    return node.phase if isinstance(node, Op) else "backward" if node.mirrors else "forward"


def _again(forward: Iterable[Node], back: Iterable[Node], choice: str, top: bool = False) -> Iterator[Node]:
    """Backward nodes, each after the recomputation that it needs, level by level."""
    forward, back = tuple(forward), tuple(back)
    blocks = {node.name: node for node in forward if isinstance(node, Block)}
    ops = [node for node in forward if isinstance(node, Op)]
    # Outside the repeated layers only what stays on chip is lost.
    here = "none" if top else choice
    again = _Recomputation(ops, _makers(ops, CHOICES[here]))
    for node in _with_arguments(ops, back, selective=here == "selective"):
        if isinstance(node, Op):
            yield from again.before(node)
            yield again.holding_copies(node)
        elif inner := blocks.get(node.mirrors):
            yield node._replace(body=tuple(_inside(inner, node, choice)))
        else:
            yield node


def _makers(ops: Sequence[Op], lost: Lost) -> dict[str, Op]:
    """The tensors that are lost, by name, each with the operator that makes it."""
    outside = {t.name for o in ops if o.group not in ATTENTION for t in o.ins}
    others = {t.name for o in ops if o.keeps != INPUT_ONLY for t in o.ins}
    return {
        t.name: o
        for o in ops
        for t in o.outs
        if lost(o, t, t.name not in (others if o.keeps == INPUT_ONLY else outside))
    }


class _Recomputation:
    """Forward operators that run again, each before the first backward one that reads what it makes."""

    def __init__(self, ops: Sequence[Op], makers: Mapping[str, Op]):
        self.ops, self.makers = ops, makers
        self.places = {t.name: i for i, o in enumerate(ops) for t in o.outs} if makers else {}
        self.done: set[str] = set()  # the tensors that were made again
        self.copies: dict[str, str] = {}  # of operands that stayed
        self.heads_first = all(batch_leads(o, o.ins[0]) for o in ops if o.tag == SCORES)
        self.in_order = {*makers, *(o.out.name for o in ops if o.kind == "repeat")}

    def before(self, node: Op) -> Iterator[Op]:
        """What runs again before a backward operator."""
        wanted = self._wanted(node)
        self.done |= wanted
        for o in [self.ops[i] for i in sorted({self.places[name] for name in wanted})]:
            # Apart from its output, an operator that runs again makes only the saved tensors that were lost.
            outs = (o.out, *(t for t in o.outs[1:] if t.name in wanted))
            cast = {t.of: t for t in o.outs[1:] if t.part == COPY and t.name not in wanted}
            again = _rerun(o)._replace(ins=tuple(cast.get(t.name, t) for t in o.ins), outs=outs)
            plain = self.heads_first or o.kernel
            strided = [] if plain else [t for t in o.ins if t.name not in self.in_order]
            yield from _contiguous(again, strided, self.copies)

    def _wanted(self, node: Op) -> set[str]:
        """The lost tensors that a backward operator reads, and those that they are computed from."""
        reads, wanted = [*[t.name for t in node.ins], *node.holds], set[str]()
        if self.makers.keys().isdisjoint(reads):
            return wanted
        _lead(reads, self.makers, self.done, wanted)
        modules = [self.makers[name] for name in wanted if self.makers[name].keeps]
        return wanted | {t.name for o in modules for t in o.outs if t.name in self.makers}  # made at once

    def holding_copies(self, node: Op) -> Op:
        """A backward operator that holds the copies that were made of its operands."""
        held = [self.copies[t.name] for t in node.ins if t.name in self.copies] if self.copies else ()
        return node._replace(holds=(*node.holds, *held)) if held else node


def _with_arguments(ops: Sequence[Op], back: Sequence[Node], *, selective: bool) -> Iterator[Node]:
    """Backward nodes; the last one of each attention or module holds what its checkpoint holds: its inputs
    and, where no result was kept, what it has recomputed.
    """

    def part_of(o: Op) -> tuple[str, str]:
        core = selective and o.group in ATTENTION and not o.kernel
        return ("core_attn", "") if core else (o.module if o.keeps else "", o.keeps)

    given: dict[str, tuple[str, ...]] = {}  # by the operators of such a part
    for (name, keeps), run in groupby(ops, part_of):
        if name:
            part = tuple(run)
            made = tuple(o.out.name for o in part if keeps == NOTHING and not o.out.on_chip)
            given |= dict.fromkeys((o.name for o in part), (*_arguments(part), *made))
    if not given:
        yield from back
        return
    last: dict[tuple[str, ...], int] = {}
    for i, node in enumerate(back):
        if isinstance(node, Op) and node.of in given:
            last[given[node.of]] = i
    ends = {i: names for names, i in last.items()}
    for i, node in enumerate(back):
        yield node._replace(holds=(*node.holds, *ends[i])) if i in ends and isinstance(node, Op) else node


def _contiguous(o: Op, operands: Iterable[Tensor], copies: dict[str, str]) -> Iterator[Op]:
    """An attention's recomputed product, behind the contiguous copies that it makes of operands in another
    layout and that its backward pass keeps.
    """
    for t in operands if o.group in ATTENTION and o.kind == "contract" else ():
        if not batch_leads(o, t):
            copies[t.name] = f"{t.name}~{o.name}"
            out = t._replace(name=copies[t.name], part="")
            yield Op(f"{o.name}.{t.label}_copy", "copy", (t,), (out,), o.sizes, "backward", o.name, o.group)
    yield o


def _inside(forward: Block, back: Block, choice: str) -> Iterator[Node]:
    """The body of a backward block; a layer that kept only its input is first recomputed as a whole."""
    if forward.keeps == ALL:
        choice = "none"
    elif choice in ("full", *POLICIES) and (forward.keeps == INPUT_ONLY or _is_layer(forward)):
        group = forward.keeps == INPUT_ONLY
        body = forward.body if group else _until_needed(forward.body, back.body)
        made = {t.name for node in body[:-1] if isinstance(node, Op) for t in node.outs}
        # Variables of the layer's code that nothing reads which runs again.
        unread = made.intersection(_arguments(forward.body[len(body) :]))
        held = _arguments(body)
        if group:  # a reentrant checkpoint holds its results and their gradients too
            held += (*(c.leave for c in forward.carry), *(c.enter for c in back.carry))
        if choice in POLICIES:
            from ._policies import without_kept

            body, more = without_kept(forward.body, body, choice)
            held += more
        made = {t.name for o, _ in walk(body) for t in o.outs} | set(held)
        again = rewrite(body, lambda o: (_rerun(o, made),))
        after = back.body if group else _letting_go(body, back.body)
        passes = tuple(holding(_again(forward.body, after, "none"), held))
        first = 0 if group else _first_unpacking(forward.body, passes)
        yield from passes[:first]
        yield from again[:-1]
        for last in again[-1:]:
            yield last._replace(callers=(*last.callers, *sorted(unread))) if isinstance(last, Op) else last
        yield from passes[first:]
        return
    yield from _again(forward.body, back.body, choice)


def _first_unpacking(body: Sequence[Node], back: Sequence[Node]) -> int:
    """The first of a layer's backward nodes that reads a weight or a saved tensor: there torch's checkpoint
    runs the layer again. Weights of few bits are widened anew, which is no saved tensor.
    """
    ops = [o for o, _ in walk(body)]
    saved = {t.name for o in ops for t in (*o.ins, *o.outs) if t.role not in WEIGHTS}
    saved -= {t.name for o in ops if _is_remade(o) for t in o.outs}

    def unpacks(node: Node) -> bool:
        if isinstance(node, Block):
            return True
        stored = any(t.role in WEIGHTS and t.role != SCALE for t in node.ins) and not _is_remade(node)
        return stored or not saved.isdisjoint((*(t.name for t in node.ins), *node.holds))

    return next((i for i, node in enumerate(back) if unpacks(node)), len(back))


def _letting_go(body: Sequence[Node], back: Sequence[Node]) -> tuple[Node, ...]:
    """A layer's backward pass under a non-reentrant checkpoint: what is recomputed lives until it is read."""
    made = {t.name for o, _ in walk(body) for t in o.outs}

    def change(o: Op) -> tuple[Op]:
        if o.rule.lets_go:
            o = o._replace(kind=o.rule.lets_go)
        return (o._replace(holds=tuple(n for n in o.holds if n not in made)) if o.tag == SHAPED else o,)

    return rewrite(back, change)


def _arguments(body: Sequence[Node]) -> tuple[str, ...]:
    """What a layer reads from outside, weights aside."""
    made = {t.name for o, _ in walk(body) for t in o.outs}
    reads = (t.name for o, _ in walk(body) for t in o.ins if t.role not in WEIGHTS)
    return tuple(dict.fromkeys(name for name in reads if name not in made))


def holding(nodes: Iterable[Node], names: tuple[str, ...]) -> Iterator[Node]:
    """Nodes, the last of which holds some tensors, so that they live until it ends."""
    *rest, last = nodes
    yield from rest
    if isinstance(last, Op):
        yield last._replace(holds=(*last.holds, *names))
        return
    yield last
    *_, (o, _) = walk((last,))
    end = o.out._replace(name=f"{o.out.name}~end", role=ACTIVATION)
    yield Op(f"{o.name}.end", "view", (o.out,), (end,), o.sizes, "backward", o.of, holds=names)


def _is_layer(node: Block) -> bool:
    """Whether a block is recomputed as a whole: whether it is one layer, not a period of several."""
    return not node.shared and all(isinstance(n, Op) or n.shared for n in node.body)


def _until_needed(body: Sequence[Node], back: Sequence[Node]) -> Sequence[Node]:
    """A layer up to the last tensor that its backward pass reads: there torch's checkpoint stops."""
    reads = {name for o, _ in walk(back) for name in (*(t.name for t in o.ins), *o.holds)}
    needed = [
        i for i, node in enumerate(body) if isinstance(node, Block) or any(t.name in reads for t in node.outs)
    ]
    return body[: needed[-1] + 1] if needed else ()


def _rerun(o: Op, known: Collection[str] = ()) -> Op:
    """A forward operator recomputed in the backward pass, without the tensors that it held; of its variables
    those in `known` stay.
    """
    callers = tuple(name for name in o.callers if name in known)
    return o._replace(phase="backward", of=o.name, holds=(), callers=callers)


def _lead(names: Iterable[str], makers: Mapping[str, Op], done: set[str], wanted: set[str]) -> None:
    """Collect in `wanted` the lost tensors that these tensors are computed from."""
    for name in names:
        if name in makers and name not in done and name not in wanted:
            wanted.add(name)
            _lead((t.name for t in makers[name].ins), makers, done, wanted)
