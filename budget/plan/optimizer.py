"""Append the optimizer's step: its state, its temporaries, its arithmetic (ir/kinds/).

Plain optimizers take all weights of one dtype at once. Those that depend on a weight's shape or update
one weight at a time are in plan/_shaped.py. Temporaries are those of torch 2.13's own loops;
a step's number, four bytes a weight, lies on the host unless the step is fused.
Sources: torch-optim, lion, bitsandbytes, transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

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
    "rmsprop": Plain(("",), 1),  # neither centered nor with momentum
    "adagrad": Plain(("",), 2),  # the roots, and the gradients by the rate
}
SHAPED = ("adamw_loop", "adafactor", "lion", "muon", "shampoo")  # functions of plan/_shaped.py
# bitsandbytes': how many states an element has, and whether in eight bits, or in float32 whatever it is.
BITSANDBYTES = {
    f"{name}_{bits}bit": (name, states, bits == 8)
    for name, states in {"adamw": 2, "ademamix": 3, "lamb": 2, "lion": 1, "rmsprop": 1}.items()
    for bits in (8, 32)
}
CHOICES = (*PLAIN, *SHAPED, *BITSANDBYTES)
# The names that transformers' TrainingArguments give them. A paged one keeps the same states.
ALIASES = {
    "adamw_torch": "adamw", "adamw_hf": "adamw", "adamw_torch_fused": "adamw_fused",
    "adamw_bnb_8bit": "adamw_8bit", "paged_adamw_8bit": "adamw_8bit", "paged_adamw_32bit": "adamw_32bit",
    "ademamix": "ademamix_32bit", "paged_ademamix_32bit": "ademamix_32bit",
    "paged_ademamix_8bit": "ademamix_8bit", "lamb": "lamb_32bit",
    "paged_lion_32bit": "lion_32bit", "paged_lion_8bit": "lion_8bit",
    "rmsprop_bnb": "rmsprop_32bit", "rmsprop_bnb_32bit": "rmsprop_32bit", "rmsprop_bnb_8bit": "rmsprop_8bit",
}  # fmt: skip
_GALORE, _APOLLO = "projects gradients to few dimensions", "keeps states of random projections"
_FREE = "is schedule-free, which keeps a second copy of the weights"
REFUSED = {  # the other names, each with what of it is not modelled
    "adamw_torch_xla": "is torch_xla's step", "adamw_torch_npu_fused": "is torch_npu's step",
    "adamw_torch_4bit": "is torchao's", "adamw_torch_8bit": "is torchao's",
    "adamw_anyprecision": "is torchdistx's, whose states have dtypes of their own",
    "galore_adamw": _GALORE, "galore_adamw_8bit": _GALORE, "galore_adafactor": _GALORE,
    "galore_adamw_layerwise": _GALORE, "galore_adamw_8bit_layerwise": _GALORE,
    "galore_adafactor_layerwise": _GALORE, "apollo_adamw": _APOLLO, "apollo_adamw_layerwise": _APOLLO,
    "lomo": "steps within the backward pass", "adalomo": "steps within the backward pass",
    "grokadamw": "is grokadamw's, with slow gradients of its own", "stable_adamw": "is torch-optimi's",
    "schedule_free_radam": _FREE, "schedule_free_adamw": _FREE, "schedule_free_sgd": _FREE,
}  # fmt: skip


def named(name: str) -> str:
    """An optimizer's name here, from torch's (`AdamW`) or TrainingArguments'. Raises InputError for one that
    is not modelled.
    """
    name = name.lower()
    if name in REFUSED:
        text = f"got {name}, which {REFUSED[name]}, and is not modelled"
        raise InputError("optimizer", f"{text}; allowed: {', '.join(CHOICES)}")
    return ALIASES.get(name, name)


def optimizer(model: Model, name: str, *, master: bool = False, among: Size = 1) -> Model:
    """The model with the operators behind it that update all trained weights.

    master: it keeps a float32 copy of 16-bit weights, and its state in float32. among: how many devices
    share out the matrices that Muon steps. Raises InputError.
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
        steps = list(_by_weight(name, model, master, copied, among))
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
    outs += [_temporary(f"optimizer#temporary{i}", work) for i in range(how.temporary)]
    if master and dtype != "float32":
        operands.append(Tensor(state("master", dtype), ("p",), STATE, "float32"))
        outs.append(operands[-1])
        if copied:
            outs.append(_temporary("optimizer#grads", "float32"))
    return Op("optimizer", how.kind or name, tuple(operands), tuple(outs), {"p": size}, "optimizer")


def _temporary(name: str, dtype: str) -> Tensor:
    return Tensor(name, ("p",), dtype=dtype, part=TEMPORARY)


def _counters(model: Model) -> Node:
    """A fused step keeps its number beside each weight."""
    steps = Tensor("steps", ("n",), STATE, "float32")
    weights = sum(copies for _, _, copies in training(model))
    return Op("optimizer.steps", "sgd", (steps,), (steps,), {"n": weights}, "optimizer")


def _by_weight(name: str, model: Model, master: bool, copied: bool, among: Size) -> Iterator[Node]:
    """The steps of weights of each dtype, with float32 copies of 16-bit ones where requested."""
    from . import _shaped
    from ._weights import trained_weights

    weights = trained_weights(model)
    how: Callable[[Sequence[Weight], str], Iterator[Node]]
    if name in BITSANDBYTES:
        how = partial(_shaped.bitsandbytes, *BITSANDBYTES[name])
    elif name == "muon":
        how = partial(_shaped.muon, among=among)
    else:
        how = getattr(_shaped, name)
    for dtype in dict.fromkeys(w.dtype for w in weights):
        same = [w for w in weights if w.dtype == dtype]
        if not master or dtype == "float32":
            yield from how(same, dtype)
            continue
        sizes = {"p": sum(w.size * w.copies for w in same)}
        kept = Tensor(state("master", dtype), ("p",), STATE, "float32")
        grads = _temporary("optimizer#grads", "float32")
        if copied:
            yield Op("optimizer.grads", "cast", (all_gradients(dtype),), (grads,), sizes, "optimizer")
        yield from how(same, "float32")
        # The copies of the gradients are there until all weights have been updated.
        holds = (grads.name,) if copied else ()
        params = Tensor("params", ("p",), STATE, dtype)
        yield Op("optimizer.master", "cast", (kept,), (params,), sizes, "optimizer", holds=holds)
