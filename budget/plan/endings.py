"""Epilogues: elementwise operators that inference runs in a product's kernel, before the result is written.

conv: what follows a convolution: its batch norm (folded into the weights), an activation, the residual's sum.
linear: the activation that follows any other product with weights. Sources: tensorrt-fusions,
onnxruntime-conv-fusion.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

from ..ir import Block, Model, Node, Op, Tensor, elements, is_convolution, walk
from ..size import all_of

SUMS = ("add", "add_")
ENDINGS: Mapping[str, tuple[str, ...]] = {
    "conv": ("batch_norm", "activation", *SUMS),
    "linear": ("activation",),
}


def ended(model: Model, names: Collection[str]) -> Model:
    """The model whose convolutions, or other products, have the endings that `names` of ENDINGS list."""
    return model._replace(nodes=_ended(model.nodes, names, times_read(model)))


def times_read(model: Model) -> Counter[str]:
    """How often each tensor is read, by operators, as a result and from one repetition to the next."""
    read = Counter([t.name for o, _ in walk(model.nodes) for t in o.ins])
    read.update([*model.outputs, *_handed_on(model.nodes)])
    return read


def _handed_on(nodes: Sequence[Node]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, Block):
            yield from _handed_on(node.body)
            yield from (name for c in node.carry for name in (c.init, c.leave))


def _ended(nodes: Sequence[Node], names: Collection[str], read: Mapping[str, int]) -> tuple[Node, ...]:
    out: list[Node] = []
    chain: list[Op] = []  # a product and what it ends in so far
    for node in nodes:
        if isinstance(node, Op) and chain and _joins(node, chain, read):
            made = chain[-1].out.name
            chain = [_part(o, made, chain[0].name) for o in (*chain, node)]
            continue
        out += chain
        chain = [node] if isinstance(node, Op) and _product(node) in names else []
        if isinstance(node, Block):
            out.append(node._replace(body=_ended(node.body, names, read)))
        elif not chain:
            out.append(node)
    return (*out, *chain)


def _product(o: Op) -> str:
    """The name in ENDINGS of a product with weights that is in no other kernel; "" for other operators."""
    alone = o.kind == "contract" and o.weights and not (o.kernel or o.group)
    return ("conv" if is_convolution(o) else "linear") if alone else ""


def _joins(o: Op, chain: Sequence[Op], read: Mapping[str, int]) -> bool:
    """Whether it takes the result of a chain, its product and its last operator, and nobody else does."""
    product, made = chain[0], chain[-1].out.name
    kinds = ENDINGS[_product(product)]
    return (
        (o.kind in kinds or o.rule.family in kinds)
        and [t.name for t in o.ins].count(made) == read[made] == 1
        and all_of(elements(o.out, o.sizes) == elements(product.out, product.sizes))
    )


def _part(o: Op, made: str, product: str) -> Op:
    """An operator as part of a product's kernel, which never writes one tensor, nor overwrites it."""

    def within(t: Tensor) -> Tensor:
        return t._replace(on_chip=True) if t.name == made else t

    kind = o.rule.plain if o.rule.inplace and o.ins[0].name == made else o.kind
    return o._replace(kind=kind, ins=tuple(map(within, o.ins)), outs=tuple(map(within, o.outs)), ends=product)
