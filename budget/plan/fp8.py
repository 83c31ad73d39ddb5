"""Linear layers in float8, as in Transformer Engine with delayed scaling, or in NVFP4.

Weights stay in 16 bits. Each pass casts a weight to float8 and to a transposed float8 copy, both kept for
the backward pass; a layer's input is saved in float8; output gradients are cast on arrival. Attention's
own products, the head and everything that is no linear layer stay in 16 bits. NVFP4 is the same in four bits
with a scale for 16 of them, in all three products, and remembers no largest values.
Sources: transformer-engine, transformer-engine-nvfp4.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from ..ir import (
    HEAD,
    NOTHING,
    SAVED,
    SCALE,
    STATE,
    TRANSPOSED,
    WEIGHT,
    WEIGHTS,
    Block,
    Model,
    Node,
    Op,
    Tensor,
    is_convolution,
    walk,
)
from ..named import NamedTuple
from ._names import is_trained

AMAX_HISTORY = 1024  # steps whose largest values are remembered, for each tensor. Source: transformer-engine
TENSORS = 5  # a linear layer's input, weight and output; the gradients of output and input


def is_linear(o: Op, head: bool = False) -> bool:
    """A product of an activation and a weight matrix; no convolution, and no head unless requested."""
    weights = [t for t in o.weights if not t.added and t.role != SCALE]
    return (
        o.phase == "forward"
        and o.kind == "contract"
        and len(weights) == 1
        and len(weights[0].dims) > 1
        and (head or o.tag != HEAD)
        and not is_convolution(o)
    )


def quantized(nodes: Iterable[Node], dtype: str, tag: str) -> Iterator[Node]:
    """The model with copies in few bits before its products; an input is copied once for all of its readers.
    To be applied before `backward`.

    tag: of the operators that copy weights.
    """
    inputs: dict[str, Tensor] = {}
    gone: set[str] = set()  # what is recomputed for the backward pass, and then quantized again
    for node in nodes:
        if isinstance(node, Block):
            yield node._replace(body=tuple(quantized(node.body, dtype, tag)))
            continue
        if not is_linear(node):
            gone.update(t.name for t in node.outs if node.keeps == NOTHING)
            yield node
            continue
        ins = []
        for i, t in enumerate(node.ins):
            if not t.added and t.name not in inputs:
                narrow = Tensor(f"{t.name}~{dtype}", t.dims, dtype=dtype)
                outs = (narrow, _transposed(narrow)) if t.role in WEIGHTS else (narrow,)
                keeps = NOTHING if t.name in gone else "" if t.role in WEIGHTS else node.keeps
                own = tag if t.role in WEIGHTS else ""
                name = f"{node.name}.quantize{i}"
                yield Op(name, "quantize", (t,), outs, node.sizes, tag=own, keeps=keeps)
                inputs[t.name] = narrow
            ins.append(t if t.added else inputs[t.name]._replace(dims=t.dims))
        yield node._replace(ins=tuple(ins))


def trained(model: Model, dtype: str = "float8") -> Model:
    """The training program with outputs' gradients quantized, those of weights not. After `backward`."""
    is_trained(model, "precision")
    copies = [(o, times) for o, times in walk(model.nodes) if o.kind == "quantize"]
    # The gradient of a weight's copy is the weight's: its product writes it straight away.
    backward = (o for o, _ in copies if o.phase == "backward" and o.out.role == WEIGHT)
    direct = {o.ins[0].name: o.out for o in backward}
    made = [(o.out.name, times) for o, times in copies if o.weights and o.phase == "forward"]
    narrow = _Narrow(dtype, direct, frozenset(name for name, _ in made))
    nodes = tuple(narrow.run(model.nodes, set()))
    if dtype != "float8":
        return model._replace(nodes=nodes)
    history, layers = Tensor("fp8.amax", ("n",), STATE, "float32"), sum(times for _, times in made)
    sizes = {"n": AMAX_HISTORY * TENSORS * layers}
    return model._replace(nodes=(*nodes, Op("fp8.amax", "reduce", (history,), (history,), sizes, "backward")))


class _Narrow(NamedTuple):
    """Backward products in few bits. direct: the gradient of a weight, by that of its copy; weights: the
    copies' names.
    """

    dtype: str
    direct: Mapping[str, Tensor]
    weights: Collection[str]

    def run(self, nodes: Iterable[Node], done: set[str]) -> Iterator[Node]:
        """The nodes. done: gradients that are quantized already; one made in a block is known in it alone."""
        for node in nodes:
            if isinstance(node, Block):
                yield node._replace(body=tuple(self.run(node.body, set(done))))
            else:
                yield from self.op(node, done)

    def op(self, o: Op, done: set[str]) -> Iterator[Op]:
        """An operator, a product behind what quantizes its output's gradient."""
        if o.phase != "backward" or not any(t.dtype == self.dtype for t in o.ins):
            if not (o.kind == "quantize" and o.ins[0].name in self.direct):
                yield o
            return
        g, *others = o.ins
        narrow = g._replace(name=f"{g.name}~{self.dtype}", dtype=self.dtype)
        if g.name not in done:
            done.add(g.name)
            both = (narrow, _transposed(narrow))
            yield o._replace(name=f"{o.name}.quantize", kind="quantize", ins=(g,), outs=both)
        weights = {t.name for t in others if t.name in self.weights}
        read = (_transposed(t) if t.name in weights else t for t in others)
        left = narrow if weights else _transposed(narrow)
        outs = tuple(self.direct.get(t.name, t) for t in o.outs)
        yield o._replace(ins=(left, *read), outs=outs, holds=(*o.holds, *weights))


def _transposed(t: Tensor) -> Tensor:
    """A transposed copy. NVFP4's has scales of its own, so it cannot be made from the copy that is there."""
    return t._replace(name=f"{t.name}#t", part=TRANSPOSED if t.dtype == "float8" else SAVED, of=t.name)
