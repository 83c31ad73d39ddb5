"""Weights that transformers keeps in float32 in a model of 16 bits, and what is float32 because of them.

T5's residual stream is float32 from the first MLP on. A product with such a weight casts its input, and what
is added to its output is promoted, until a norm returns the dtype of its own weight.
Source: transformers (`_keep_in_fp32_modules`, in float16 alone, and `_keep_in_fp32_modules_strict`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..ir import WEIGHTS, Block, Model, Node, Op, Tensor, rewrite
from ..named import NamedTuple

SINGLE = "float32"


class Kept(NamedTuple):
    """Operators whose weights stay in float32, by their tags, kinds, or families of kinds (`norm`)."""

    float16: tuple[str, ...] = ()  # where the model's dtype is float16
    always: tuple[str, ...] = ()  # or bfloat16

    @property
    def unpacked(self) -> tuple[str, ...]:
        """The operators whose weights no format of few bits holds, whatever the dtype."""
        return (*self.float16, *self.always)

    def tags(self, dtype: str) -> tuple[str, ...]:
        """The operators whose weights stay float32 in a model of a dtype."""
        return {"float16": self.unpacked, "bfloat16": self.always}.get(dtype, ())


def kept(model: Model, tags: tuple[str, ...]) -> Model:
    """The model with the weights of some operators in float32. To be applied before any other technique."""
    return model._replace(nodes=tuple(_Widened(tags).run(model.nodes)))


def given_single(model: Model, tags: tuple[str, ...]) -> Model:
    """The model whose products with such weights get inputs cast to float32, the weights' dtype; autocast
    casts them back.
    """

    def change(o: Op) -> Iterator[Op]:
        if o.kind != "contract" or o.tag not in tags:
            yield o
            return
        x, *rest = o.ins
        wide = _single(x._replace(name=f"{x.name}~{o.name}"))
        yield Op(f"{o.name}.widen", "cast", (x,), (wide,), o.sizes)
        yield o._replace(ins=(wide, *rest))

    return model._replace(nodes=rewrite(model.nodes, change))


class _Widened:
    """Follows the tensors that are float32 through the program, by their names."""

    def __init__(self, tags: tuple[str, ...]):
        self.tags = frozenset(tags)
        self.wide: set[str] = set()
        self.made: dict[str, tuple[Tensor, Op]] = {}  # every tensor so far, and what made it

    def run(self, nodes: Iterable[Node]) -> Iterator[Node]:
        for node in nodes:
            yield from self.block(node) if isinstance(node, Block) else self.op(node)

    def block(self, node: Block) -> Iterator[Node]:
        """A block whose carried tensor becomes float32 inside finds it so each time: it is cast before."""
        self.wide.update(c.enter for c in node.carry if c.enter and c.init in self.wide)
        body = tuple(self.run(node.body))
        late = [c for c in node.carry if c.enter and c.leave in self.wide and c.enter not in self.wide]
        renamed = {}
        for c in late:
            t, o = self.made[c.init]
            renamed[c.init] = f"{c.init}~wide"
            yield Op(
                f"{node.name}.widen", "cast", (t,), (_single(t._replace(name=renamed[c.init])),), o.sizes
            )
            self.wide.update((renamed[c.init], c.enter))
        if late:
            body = tuple(self.run(node.body))
        carry = tuple(c._replace(init=renamed.get(c.init, c.init)) for c in node.carry)
        yield node._replace(body=body, carry=carry)

    def op(self, o: Op) -> Iterator[Op]:
        ins = tuple(_single(t) if t.name in self.wide else t for t in o.ins)
        outs = o.outs
        keeps = not self.tags.isdisjoint((o.tag, o.kind, o.rule.family))
        if keeps:
            ins = tuple(_single(t) if t.role in WEIGHTS else t for t in ins)
        if keeps and o.kind == "contract":
            casts = {t.name: f"{t.name}~{o.name}" for t in ins if not t.dtype and t.role not in WEIGHTS}
            for t in ins:
                if t.name in casts:
                    yield Op(
                        f"{o.name}.widen", "cast", (t,), (_single(t._replace(name=casts[t.name])),), o.sizes
                    )
            ins = tuple(_single(t._replace(name=casts[t.name])) if t.name in casts else t for t in ins)
        promoted = o.rule.family != "norm" and not o.rule.casts
        if promoted and any(t.dtype == SINGLE and t.name in (*self.wide, *_weights(ins, keeps)) for t in ins):
            outs = tuple(t if t.dtype else _single(t) for t in outs)
            self.wide.update(t.name for t in outs if t.dtype == SINGLE)
        self.made.update((t.name, (t, o)) for t in outs)
        yield o._replace(ins=ins, outs=outs)


def _weights(ins: tuple[Tensor, ...], keeps: bool) -> tuple[str, ...]:
    return tuple(t.name for t in ins if keeps and t.role in WEIGHTS)


def _single(t: Tensor) -> Tensor:
    return t._replace(dtype=SINGLE)
