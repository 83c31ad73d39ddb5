"""torch.autocast as it runs: casts where its lists say, and a cache of weights' casts.

Sources: torch-autocast.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..ir import (
    FROZEN,
    INPUT,
    WEIGHT,
    WEIGHTS,
    Block,
    Carry,
    Model,
    Node,
    Op,
    Tensor,
    is_picked,
    window,
)
from ..ir.kinds.rule import ANSWERS_SINGLE, AS_INPUT, LOW, SINGLE
from ._sdpa import FUSABLE, MATERIALIZED

DEVICES = ("cuda", "cpu")
REPEATS = ("repeat", "broadcast")


class Autocast:
    """Follows the dtype of every tensor through the program: "" is the low one."""

    def __init__(self, device: str, frozen: str):
        self.device = DEVICES.index(device)
        self.frozen = frozen
        self.known: dict[str, str] = {}
        self.makers: dict[str, tuple[Tensor, Op]] = {}
        self.inside: set[str] = set()  # made by attention without a kernel

    def run(self, nodes: Iterable[Node], low: dict[str, Tensor], lifted: set[str]) -> Iterator[Node]:
        """`low` holds the weights' casts, each kept for the whole pass."""
        for node in nodes:
            if isinstance(node, Op):
                yield from self.op(node, low)
                continue
            for c in node.carry:
                if c.enter:
                    self.known[c.enter] = self.known.get(c.init, "")
            if not node.shared:
                layer = tuple(self.run(node.body, dict(low), lifted))
                carry = node.carry
                if growing := [
                    c for c in carry if self.grows(c)
                ]:  # all repetitions as those behind the first
                    wide = {c: self.widened(c) for c in growing}
                    yield from wide.values()
                    carry = tuple(c._replace(init=wide[c].out.name) if c in wide else c for c in carry)
                    layer = tuple(self.run(node.body, dict(low), lifted))
                yield node._replace(body=layer, carry=carry)
                continue
            # Casts of weights that every repetition reads are made once, before the first.
            body = list(self.run(node.body, low, lifted))
            yield from (o for o in body if _casts_weight(o))
            yield node._replace(body=tuple(o for o in body if not _casts_weight(o)))

    def grows(self, c: Carry) -> bool:
        """Whether what goes from one repetition to the next enters the first in 16 bits, and leaves in 32."""
        leaves = c.leave and self.known.get(c.leave) == SINGLE
        return bool(c.enter and leaves and not self.known.get(c.init, "") and c.init in self.makers)

    def widened(self, c: Carry) -> Op:
        """The cast to the dtype that later repetitions receive, before the first one."""
        own, maker = self.makers[c.init]
        wide = own._replace(name=f"{c.init}~wide", dtype=SINGLE)
        self.known |= {wide.name: SINGLE, c.enter: SINGLE}
        return Op(f"{maker.name}.widen", "cast", (own,), (wide,), maker.sizes, module=maker.module)

    def op(self, o: Op, low: dict[str, Tensor]) -> Iterator[Op]:
        """An operator behind the casts of its operands, and before a cast back where its layer makes one."""
        if o.rule.autocasts_as and DEVICES[self.device] == "cuda":
            o = o._replace(kind=o.rule.autocasts_as)
        if o.group == MATERIALIZED:
            yield from self.materialized(o, low)
            return
        ins, how = tuple([self.typed(t) for t in o.ins]), o.rule.autocast[self.device]
        back = how == LOW and self.is_packed(o) and any(t.dtype == SINGLE for t in ins if not t.added)
        if o.kernel == FUSABLE and o.kind in REPEATS:  # the kernel is given what it repeats itself
            how = LOW
        casts = [self.cast(o, t, i, how, low) for i, t in enumerate(ins)]
        yield from [cast for _, cast in casts if cast]
        ins = tuple([t for t, _ in casts])
        dtype = self.answers(o, ins, how)
        if back:
            low_out = o.out._replace(name=f"{o.out.name}~low")
            yield o._replace(ins=ins, outs=(low_out,))
            o, ins, dtype = Op(f"{o.name}.back", "cast", (low_out,), o.outs, o.sizes), (low_out,), SINGLE
        outs = tuple([t if t.dtype or not dtype else t._replace(dtype=dtype) for t in o.outs])
        for t in outs:
            self.known[t.name] = t.dtype
            self.makers[t.name] = t, o
        yield o._replace(ins=ins, outs=outs)

    def cast(self, o: Op, t: Tensor, i: int, how: str, low: dict[str, Tensor]) -> tuple[Tensor, Op | None]:
        """The i-th operand as a list of autocast has it, and the cast that makes it so, if any."""
        if how == LOW and t.dtype == SINGLE:
            return self.down(o, t, i, low)
        return self.up(o, t, i) if how == SINGLE and not t.dtype else (t, None)

    def answers(self, o: Op, ins: tuple[Tensor, ...], how: str) -> str:
        """The dtype of an operator's results that have none of their own."""
        if how in (LOW, SINGLE):
            return SINGLE if how == SINGLE else ""
        if o.rule.casts:
            return o.out.dtype
        if how == AS_INPUT:
            return ins[0].dtype
        single = how == ANSWERS_SINGLE or any(t.dtype == SINGLE for t in ins)
        return SINGLE if single else self.frozen if o.kind == "table" else ""

    def is_packed(self, o: Op) -> bool:
        """Whether a product's weight is in few bits: such a layer's output has its input's dtype."""
        known = (self.makers[t.name][1] for t in o.ins if t.name in self.makers)
        return o.kind == "contract" and any(maker.rule.family == "dequantize" for maker in known)

    def materialized(self, o: Op, low: dict[str, Tensor]) -> Iterator[Op]:
        """An operator of an SDPA without a kernel: one call, given 16 bits, with dtypes of its own inside."""
        ins = tuple(self.typed(t) for t in o.ins)
        given = [t.dtype == SINGLE and t.name not in self.inside for t in ins]
        casts = [self.down(o, t, i, low) if given[i] else (t, None) for i, t in enumerate(ins)]
        yield from (cast for _, cast in casts if cast)
        self.inside.update(t.name for t in o.outs)
        self.known.update((t.name, t.dtype) for t in o.outs)
        yield o._replace(ins=tuple(t for t, _ in casts))

    def typed(self, t: Tensor) -> Tensor:
        if t.role in WEIGHTS or t.role == INPUT:
            return t if t.dtype else t._replace(dtype=self.frozen if t.role in (FROZEN, INPUT) else SINGLE)
        dtype = self.known.get(t.name, t.dtype)
        return t if t.dtype == dtype else t._replace(dtype=dtype)

    def down(self, o: Op, t: Tensor, i: int, low: dict[str, Tensor]) -> tuple[Tensor, Op | None]:
        """An operand in the low dtype: a weight's cast is made once, an activation's for each reader."""
        if t.name in low:
            return low[t.name]._replace(added=t.added, dims=t.dims), None
        weight = t.role in WEIGHTS
        name = f"{t.name}~low" if t.role == WEIGHT else f"{t.name}~{o.name}.{i}"
        own, maker = self.makers.get(t.name, (t, o))
        if len(own.dims) != len(t.dims) or any(is_picked(d) or len(window(d)) > 1 for d in t.dims):
            own, maker = t, o
        # Along the axes with which it was made: keys are cast before they are gathered for queries.
        made = Tensor(name, own.dims, on_chip=t.on_chip)
        if t.role == WEIGHT:  # the cache is of what trains
            low[t.name] = made
        read = t._replace(added=False, dims=own.dims)
        group, kernel = "" if weight else o.group, o.kernel if t.on_chip else ""
        cast = Op(f"{o.name}.cast{i}", "cast", (read,), (made,), maker.sizes, group=group, kernel=kernel)
        return made._replace(added=t.added, dims=t.dims), cast._replace(callers=o.callers, module=o.module)

    def up(self, o: Op, t: Tensor, i: int) -> tuple[Tensor, Op]:
        made = Tensor(f"{t.name}~{o.name}.{i}", t.dims, dtype=SINGLE, on_chip=t.on_chip)
        kernel = o.kernel if t.on_chip else ""
        cast = Op(f"{o.name}.cast{i}", "cast", (t,), (made,), o.sizes, group=o.group, kernel=kernel)
        return made, cast._replace(module=o.module)


def _casts_weight(node: Node) -> bool:
    return isinstance(node, Op) and node.rule.casts and node.ins[0].role == WEIGHT


def until_the_end(model: Model) -> Model:
    """The training program that keeps its casts of weights until the forward pass ends: autocast's cache.

    To be applied after `recompute` and `offload`: what is recomputed has a cache of its own.
    """
    forward = [n for n in model.nodes if not _is_backward(n)]
    ends = tuple(end for node in forward for end in _ends((node,)))
    return model._replace(nodes=(*forward, *ends, *model.nodes[len(forward) :]))


def _is_backward(node: Node) -> bool:
    return bool(node.mirrors) if isinstance(node, Block) else node.phase != "forward"


def _ends(nodes: Iterable[Node]) -> Iterator[Node]:
    """Where the casts that these nodes make are freed: in a block, those of each repetition."""
    for node in nodes:
        if isinstance(node, Block):
            inner = tuple(_ends(node.body))
            if inner:
                yield Block(f"{node.name}.cache", inner, node.count, node.shared, (), node.name)
        elif _casts_weight(node):
            end = node.out._replace(name=f"{node.out.name}~end")
            yield Op(f"{node.name}.end", "view", (node.out,), (end,), node.sizes)
