"""Embeddings whose outputs require a gradient, whether or not anything below them trains.

transformers' gradient_checkpointing_enable() makes them so (enable_input_require_grads) in a network whose
main input is tokens: frozen layers below the lowest trained one then run backward too. torchtune and litgpt
do not. Within a reentrant checkpoint (recompute_every) nothing has a gradient unless its input needs one;
this goes for images, too.
Source: transformers.
"""

from __future__ import annotations

from ..config import setting
from ..ir import EMBED, INPUT, LEAF, Model, rewrite, walk
from ._names import untrained

SETTINGS = {"input_gradients": setting(False, "what embeddings make requires a gradient (transformers)")}
TOKENS = ("int64", "int32")
NEEDS = {"input_gradients": ("train",)}


def input_gradients(model: Model, *, reentrant: bool = False) -> Model:
    """The model whose embeddings' outputs have a gradient. To be applied before `backward`."""
    untrained(model, "input_gradients")
    given = [t for o, _ in walk(model.nodes) for t in o.ins if t.role == INPUT]
    if not reentrant and given and given[0].dtype not in TOKENS:
        return model
    nodes = rewrite(model.nodes, lambda o: (o._replace(tag=LEAF) if o.tag == EMBED else o,))
    return model._replace(nodes=nodes)


STAGES = {"cast": lambda model, _: input_gradients(model)}
