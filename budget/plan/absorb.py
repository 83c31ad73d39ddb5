"""Latent attention as engines decode it: from the cached vectors themselves.

The product that makes each head's keys and values of a latent vector (arch/_latent.py) moves to the other
side: queries are multiplied by its keys' part once, outputs by its values' part, and all heads attend to
the one cached vector of each token. Code that is written for training makes keys and values of the whole
cache anew for each token. Source: deepseek-v2.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..model import Block, Model, Node
from ..op import WEIGHTS, Op, Tensor

PARTS = ("kv_up", "kv_divide", "k_join")  # of arch/_latent.py: what is not made any more


def absorb(model: Model) -> Model:
    """A decoding program with its latent attentions absorbed, others unchanged. After `fuse`."""
    return model._replace(nodes=tuple(_nodes(model.nodes)))


def _nodes(nodes: Iterable[Node]) -> Iterator[Node]:
    found: dict[str, dict[str, Op]] = {}  # attentions by name, with the operators that are left out
    for node in nodes:
        if isinstance(node, Block):
            yield node._replace(body=tuple(_nodes(node.body)))
            continue
        attention, _, part = node.name.rpartition(".")
        if part == "kv_up" and node.ins[1].role in WEIGHTS:
            found[attention] = {part: node}
        elif attention in found and part in PARTS:
            found[attention][part] = node
        elif attention in found and part in ("scores", "mix", "merge"):
            yield from _attend(attention, part, node, found[attention])
        else:
            yield node


def _attend(attention: str, part: str, o: Op, made: dict[str, Op]) -> Iterator[Op]:
    """The products with keys and values, and what comes before and after them."""
    (cn, weight), kr = made["kv_up"].ins, made["k_join"].ins[1]
    sizes = {**o.sizes, **made["k_join"].sizes}
    sizes["l"] = sizes["c"] + sizes["m"]
    latent = Tensor(f"{cn.name}~latent", ("b", "t", "l"))

    def new(name: str, kind: str, ins: tuple[Tensor, ...], *outs: Tensor) -> Op:
        return Op(f"{attention}.{name}", kind, ins, outs, sizes)

    def weights(which: str, dim: str) -> Tensor:
        return weight._replace(name=f"{weight.name}.{which}", dims=("c", "h", dim))

    if part == "scores":
        q = o.ins[0]
        qn, qr, qc, ql = (Tensor(f"{q.name}~{d}", (*q.dims[:-1], d)) for d in "pmcl")
        yield new("q_divide", "view", (q,), qn, qr)
        yield new("q_absorb", "contract", (qn, weights("keys", "p")), qc)
        yield new("q_join", "cat", (qc, qr), ql)
        yield new("latent", "view", (cn, kr), latent)  # they lie beside each other in the cache
        yield o._replace(ins=(ql, latent), sizes=sizes)
        return
    narrow = tuple(t._replace(name=f"{t.name}~c", dims=(*t.dims[:-1], "c")) for t in o.outs)
    if part == "mix":
        yield o._replace(ins=(o.ins[0], latent._replace(dims=("b", "t", "c"))), outs=narrow, sizes=sizes)
        return
    before = o.ins[0]._replace(name=f"{o.ins[0].name}~c", dims=(*o.ins[0].dims[:-1], "c"))
    yield o._replace(ins=(before,), outs=narrow, sizes=sizes)
    yield new("v_absorb", "contract", (narrow[0], weights("values", "u")), o.out)
