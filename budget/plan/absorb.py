"""Latent attention as inference engines decode it: weight absorption.

The up-projection from latent vectors to keys and values (arch/_latent.py) is absorbed into the queries and
the outputs: all heads attend to one cached latent vector per token. Code written for training recomputes
the keys and values of the whole cache for each token. Source: deepseek-v2.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..ir import (
    BATCH,
    KEY_SEQ,
    KV_HEADS,
    LATENT_DIVIDE,
    LATENT_JOIN,
    LATENT_UP,
    MERGE,
    MIX,
    SCORES,
    WEIGHTS,
    Block,
    Model,
    Node,
    Op,
    Tensor,
    beside,
)

PARTS = (LATENT_UP, LATENT_DIVIDE, LATENT_JOIN)  # what is not made any more


def absorb(model: Model) -> Model:
    """A decoding program with its latent attentions absorbed, others unchanged. After `fuse`."""
    return model._replace(nodes=tuple(_nodes(model.nodes)))


def _nodes(nodes: Iterable[Node]) -> Iterator[Node]:
    made: dict[str, Op] = {}  # the operators of this attention that are replaced
    for node in nodes:
        if isinstance(node, Block):
            yield node._replace(body=tuple(_nodes(node.body)))
        elif node.tag == LATENT_UP and node.ins[1].role in WEIGHTS:
            made = {node.tag: node}
        elif made and node.tag in PARTS:
            made[node.tag] = node
        elif made and node.tag in (SCORES, MIX, MERGE):
            yield from _attend(node, made)
            made = {} if node.tag == MERGE else made
        else:
            yield node


def _attend(o: Op, made: dict[str, Op]) -> Iterator[Op]:
    """The products with keys and values, with the absorbed projections before and after them."""
    (cn, weight), kr = made[LATENT_UP].ins, made[LATENT_JOIN].ins[1]
    sizes = {**o.sizes, **made[LATENT_JOIN].sizes, KEY_SEQ: o.sizes[KEY_SEQ]}
    sizes["l"] = sizes["c"] + sizes["m"]
    latent = Tensor(f"{cn.name}~latent", (BATCH, KEY_SEQ, "l"), dtype=cn.dtype)

    def new(name: str, kind: str, ins: tuple[Tensor, ...], *outs: Tensor) -> Op:
        return Op(beside(o, name), kind, ins, outs, sizes)

    def weights(which: str, dim: str) -> Tensor:
        return weight._replace(name=f"{weight.name}.{which}", dims=("c", KV_HEADS, dim))

    if o.tag == SCORES:
        q = o.ins[0]
        qn, qr, qc, ql = (Tensor(f"{q.name}~{d}", (*q.dims[:-1], d)) for d in "pmcl")
        yield new("q_divide", "view", (q,), qn, qr)
        yield new("q_absorb", "contract", (qn, weights("keys", "p")), qc)
        yield new("q_join", "cat", (qc, qr), ql)
        yield new("latent", "view", (cn, kr), latent)  # they lie beside each other in the cache
        yield o._replace(ins=(ql, latent), sizes=sizes)
        return
    narrow = tuple(t._replace(name=f"{t.name}~c", dims=(*t.dims[:-1], "c")) for t in o.outs)
    if o.tag == MIX:
        values = Tensor(f"{cn.name}~values", (BATCH, KEY_SEQ, "c"), on_chip=bool(o.kernel))
        yield new("values", "slice", (latent,), values)._replace(group=o.group, kernel=o.kernel)
        yield o._replace(ins=(o.ins[0], values), outs=narrow, sizes=sizes)
        return
    before = o.ins[0]._replace(name=f"{o.ins[0].name}~c", dims=(*o.ins[0].dims[:-1], "c"))
    yield o._replace(ins=(before,), outs=narrow, sizes=sizes)
    yield new("v_absorb", "contract", (narrow[0], weights("values", "u")), o.out)
