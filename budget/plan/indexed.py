"""Sparse attention as inference engines run it: an indexer's scores never reach memory, and a query reads
only the keys and values that it chose. The scores' product takes its operands as they are, not widened.

Code without such a kernel computes the scores of all positions and masks them (arch/_indexer.py).
Sources: vllm-indexer, vllm-deepseek-v32.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..ir import INDEX, KEY_SEQ, Model, Op, rewrite, walk
from ..size import minimum

ATTENTION = "attention"


def indexed(model: Model, *, decodes: bool) -> Model:
    """The model with its indexers as parts of attention's kernels. To be applied before `fuse`."""
    indexers = [o for o, _ in walk(model.nodes) if o.tag == INDEX]
    most = indexers[-1].window
    casts = {o.out.name: o.ins[0] for o in indexers if o.kind == "cast"}

    def change(o: Op) -> Iterator[Op]:
        if o.tag == INDEX:
            ins = tuple(casts.get(t.name, t) for t in o.ins)
            if o.kind != "cast":
                yield o._replace(ins=ins, group=ATTENTION, causal=not decodes, window=0)
        elif o.group != ATTENTION:
            yield o
        elif decodes:
            yield o._replace(sizes={**o.sizes, KEY_SEQ: minimum(o.sizes[KEY_SEQ], most)})
        else:
            yield o._replace(window=most)

    return model._replace(nodes=rewrite(model.nodes, change))
