"""Embeddings whose outputs require a gradient, whether or not anything below them trains.

transformers' gradient_checkpointing_enable() does so (enable_input_require_grads): frozen layers below the
lowest trained one then run backward too. torchtune and litgpt do not. Source: transformers.
"""

from __future__ import annotations

from ..config import Task, setting
from ..ir import EMBED, LEAF, Model, rewrite
from ._names import untrained

SETTINGS = {"input_gradients": setting(False, "what embeddings make requires a gradient (transformers)")}
NEEDS = {"input_gradients": ("train",)}


def input_gradients(model: Model) -> Model:
    """The model with a gradient of what its embeddings make. To be applied before `backward`."""
    untrained(model, "input_gradients")
    nodes = rewrite(model.nodes, lambda o: (o._replace(tag=LEAF) if o.tag == EMBED else o,))
    return model._replace(nodes=nodes)


def apply(model: Model, task: Task) -> Model:
    """The model with a gradient of what its embeddings make."""
    return input_gradients(model) if task.techniques.input_gradients else model


STAGES = {"cast": apply}
