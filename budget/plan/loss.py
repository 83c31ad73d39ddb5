"""How a training loop makes its loss, and what its variables hold of it. After `backward`.

In chunks: head and loss take some tokens of each sequence at a time. What the backward pass needs is
kept for all of them, but gradients of logits exist for one chunk only. Sources: litgpt, torchtune.
Held: a loop's variables keep the logits until the step ends, or until the next step's are there, and
the graph, with what operators keep in it by themselves, until the next loss is. Logits are float32, as
Lightning Fabric returns them. Source: lightning-fabric.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import InputError
from ..model import Model, rewrite, walk
from ..op import Op, Tensor, elements
from ..size import Size, minimum

HOLDS = ("none", "step", "next")


def in_chunks(model: Model, tokens: Size) -> Model:
    """The training program whose logits have gradients for so many tokens of each sequence at a time.

    Raises InputError where no logits of a sequence are compared with classes.
    """
    softmax = _softmax(model, "loss_chunk")
    dims = softmax.out.dims
    if "s" not in dims:
        raise InputError("loss_chunk", f"the loss of {model.name} is of no sequence; allowed: 0")
    sizes = {"chunk": minimum(tokens, softmax.sizes["s"])}
    part = tuple("chunk" if d == "s" else d for d in dims)
    made: set[str] = set()

    def change(o: Op) -> tuple[Op]:
        reads = (f"{t.name}#chunk" for t in o.ins if t.name in made)
        whole = [t for t in o.outs if t.dims == dims and _passing(o, t)]
        made.update(t.name for t in whole)
        outs = (t._replace(on_chip=True) if t in whole else t for t in o.outs)
        chunks = (t._replace(name=f"{t.name}#chunk", dims=part) for t in whole)
        return (o._replace(outs=(*outs, *chunks), holds=(*o.holds, *reads), sizes={**o.sizes, **sizes}),)

    return model._replace(nodes=rewrite(model.nodes, change))


def hold_logits(model: Model, until: str) -> Model:
    """The training program whose logits are there until the step ends, or the next step's are.

    Raises InputError where there are none.
    """
    softmax = _softmax(model, "hold_logits")
    logits = softmax.ins[0]
    model = model._replace(outputs=(*model.outputs, logits.name))
    if until == "step":
        return model
    return _beside_last(model, logits._replace(name=f"{logits.name}@last"), softmax.sizes, logits.name)


def hold_inputs(model: Model) -> Model:
    """The training program whose last step's products keep their inputs until the new loss is there."""
    held = {
        (i, t.name): elements(t, o.sizes) * times
        for i, node in enumerate(model.nodes)  # names are a block's own
        for o, times in walk((node,))
        for t in o.ins
        if o.phase == "forward" and t.name in o.holds
    }
    return _beside_last(model, Tensor("inputs@last", ("n",)), {"n": sum(held.values())}, model.outputs[0])


def _beside_last(model: Model, last: Tensor, sizes: Mapping[str, Size], until: str) -> Model:
    """The program beside a tensor of the last step that is there until a new one is made."""

    def change(o: Op) -> tuple[Op]:
        makes = o.phase == "forward" and o.out.name == until
        return (o._replace(holds=(*o.holds, last.name)) if makes else o,)

    start = Op(f"last_step.{last.name}", "table", (), (last,), sizes)
    return model._replace(nodes=(start, *rewrite(model.nodes, change)))


def _softmax(model: Model, field: str) -> Op:
    for o, _ in walk(model.nodes):
        if o.kind == "log_softmax" and o.phase == "forward":
            return o
    raise InputError(field, f"{model.name} has no logits that a loss reads; allowed: with a language model")


def _passing(o: Op, t: Tensor) -> bool:
    """Gradients, and what adapters beside the head make on the way (plan/lora.py)."""
    return o.phase == "backward" or "~" in t.name
