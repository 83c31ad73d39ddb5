"""Batch norms folded into the convolutions before them, which get a bias for it: libraries do so to a
network's weights before inference. Sources: tensorrt-fusions, ultralytics-fuse.
"""

from __future__ import annotations

from ..ir import Model, Op, Tensor, is_convolution, rewrite, walk
from .endings import times_read


def folded(model: Model) -> Model:
    """The model without the batch norms whose input a convolution makes for them alone."""
    read = times_read(model)
    norms = {o.ins[0].name: o for o, _ in walk(model.nodes) if o.kind == "batch_norm"}
    made = {
        o.name: norms[o.out.name]
        for o, _ in walk(model.nodes)
        if is_convolution(o) and o.weights and o.out.name in norms and read[o.out.name] == 1
    }
    gone = {norm.name for norm in made.values()}

    def change(o: Op) -> tuple[Op, ...]:
        if o.name not in made:
            return () if o.name in gone else (o,)
        out = o.out._replace(name=made[o.name].out.name)
        added = () if any(t.added for t in o.ins) else (_bias(o, made[o.name]),)
        return (o._replace(ins=(*o.ins, *added), outs=(out, *o.outs[1:])),)

    return model._replace(nodes=rewrite(model.nodes, change))


def _bias(o: Op, norm: Op) -> Tensor:
    """A norm's own, by the names that a convolution has for its channels."""
    bias = next(t for t in norm.ins if t.added)
    weight = next(t for t in o.weights if not t.added)
    return bias._replace(dims=tuple(d for d in o.out.dims if d in weight.dims))
