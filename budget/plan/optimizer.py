"""Append the optimizer's step: its state, its temporaries, its arithmetic (ir/kinds/).

Plain optimizers take all weights of one dtype at once. Those that look at a weight's shape or take
one weight after the other are in plan/_shaped.py. Temporaries are those of torch 2.13's own loops;
a step's number, four bytes a weight, lies on the host unless the step is fused.
Sources: torch-optim, lion, bitsandbytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..errors import InputError, unknown
from ..fold.count import trained, training
from ..ir import FROZEN, STATE, TEMPORARY, WEIGHT, Model, Node, Op, Tensor, walk
from ..named import TYPE_CHECKING, NamedTuple
from ..size import Size
from ._states import all_gradients, state

if TYPE_CHECKING:
    from ._weights import Weight


class Plain(NamedTuple):
    """An optimizer that treats all elements alike."""

    states: tuple[str, ...] = ()  # what it keeps of each element, by dtype ("" is the weight's own)
    temporary: int = 0  # tensors of all weights' size that live during the step
    kind: str = ""  # the row in ir/kinds/, where it is not the name


PLAIN = {
    "none": Plain(),
    "sgd": Plain(),
    "momentum": Plain(("",)),
    "adam": Plain(("", ""), 1),
    "adamw": Plain(("", ""), 1),  # foreach, torch's default on a GPU: the square root of all second moments
    "adamw_fused": Plain(("", ""), 0, "adamw_fused"),
}
SHAPED = ("adamw_loop", "adamw_8bit", "adafactor", "lion", "muon", "shampoo")  # functions of plan/_shaped.py
CHOICES = (*PLAIN, *SHAPED)
# The names that transformers' TrainingArguments give them. A paged one keeps the same states.
ALIASES = {
    "adamw_torch": "adamw", "adamw_hf": "adamw", "adamw_torch_fused": "adamw_fused",
    "adamw_bnb_8bit": "adamw_8bit", "paged_adamw_8bit": "adamw_8bit",
    "paged_adamw_32bit": "adamw", "lion_32bit": "lion", "paged_lion_32bit": "lion",
}  # fmt: skip


def optimizer(model: Model, name: str, *, master: bool = False) -> Model:
    """The model with the operators behind it that update all trained weights.

    master: it keeps a float32 copy of 16-bit weights, and its state in float32. Raises InputError.
    """
    if name not in CHOICES:
        raise unknown("optimizer", name, CHOICES)
    if any(o.phase == "optimizer" for o, _ in walk(model.nodes)):
        raise InputError("optimizer", "there is one already; allowed: once, as the last technique")
    if name == "none":
        return model
    # Gradients of 16 bits are copied to float32 for the step; Megatron makes them so from the start.
    copied = master and any(
        t.dtype != "float32" for o, _ in walk(model.nodes) for t in o.outs if t.role == WEIGHT
    )
    if name in PLAIN:
        steps = [_step(name, dtype, size, master, copied) for dtype, size in trained(model).items()]
        if name == "adamw_fused":
            steps.append(_counters(model))
    else:
        steps = list(_by_weight(name, model, master, copied))
    return model._replace(nodes=(*model.nodes, *steps))


def _step(name: str, dtype: str, size: Size, master: bool, copied: bool) -> Node:
    """One step of the weights of one dtype: torch's foreach steps take them one dtype at a time."""
    how = PLAIN[name]
    work = "float32" if master else dtype
    operands = [all_gradients(dtype), Tensor("params", ("p",), FROZEN, dtype)]
    operands += [
        Tensor(state(f"state{i}", dtype), ("p",), STATE, own or work) for i, own in enumerate(how.states)
    ]
    outs = [t._replace(role=STATE) for t in operands[1:]]
    outs += [_temporary(f"optimizer#temporary{i}", "p", work) for i in range(how.temporary)]
    if master and dtype != "float32":
        operands.append(Tensor(state("master", dtype), ("p",), STATE, "float32"))
        outs.append(operands[-1])
        if copied:
            outs.append(_temporary("optimizer#grads", "p", "float32"))
    return Op("optimizer", how.kind or name, tuple(operands), tuple(outs), {"p": size}, "optimizer")


def _temporary(name: str, dim: str, dtype: str) -> Tensor:
    return Tensor(name, (dim,), dtype=dtype, part=TEMPORARY)


def _counters(model: Model) -> Node:
    """A fused step keeps its number beside each weight."""
    steps = Tensor("steps", ("n",), STATE, "float32")
    weights = sum(copies for _, _, copies in training(model))
    return Op("optimizer.steps", "sgd", (steps,), (steps,), {"n": weights}, "optimizer")


def _by_weight(name: str, model: Model, master: bool, copied: bool) -> Iterator[Node]:
    """The steps of weights of each dtype, with float32 copies of 16-bit ones where asked for."""
    from . import _shaped
    from ._weights import trained_weights

    weights = trained_weights(model)
    how: Callable[[Sequence[Weight], str], Iterator[Node]] = getattr(_shaped, name)
    for dtype in dict.fromkeys(w.dtype for w in weights):
        same = [w for w in weights if w.dtype == dtype]
        if not master or dtype == "float32":
            yield from how(same, dtype)
            continue
        sizes = {"p": sum(w.size * w.copies for w in same)}
        kept = Tensor(state("master", dtype), ("p",), STATE, "float32")
        grads = _temporary("optimizer#grads", "p", "float32")
        if copied:
            yield Op("optimizer.grads", "cast", (all_gradients(dtype),), (grads,), sizes, "optimizer")
        yield from how(same, "float32")
        # The copies of the gradients are there until all weights have been updated.
        holds = (grads.name,) if copied else ()
        params = Tensor("params", ("p",), STATE, dtype)
        yield Op("optimizer.master", "cast", (kept,), (params,), sizes, "optimizer", holds=holds)
