"""Which logits a loss reads: a float32 copy of the network's, as in transformers, a second copy, or none.

shifted: before 4.49 transformers copied the float32 logits of all tokens but the last, while its variables
still held the original; a fused loss (`--fuse loss`) in its place reads the copy. replaced: the same, but
before 4.46 its networks returned the float32 logits and held no others. own: torch's cross-entropy of the
network's own logits, as plain loops call it; in 16 bits its log-probabilities are of 16 bits, too.
own_shifted: of a copy of these without the last token, as transformers' older families (GPT-2, OPT, BLOOM,
Falcon, GPT-NeoX) called it
before 4.49. Sources: transformers-shift, transformers-loss, torch-cross-entropy.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..config import Task, setting
from ..ir import LOSS, Model, Op, Tensor, rewrite, walk

SETTINGS = {
    "loss_logits": setting(
        "fp32",
        "what a language model's loss reads: fp32, a copy; shifted: and another one (transformers before "
        "4.49); replaced: so, and the copy takes the logits' place (before 4.46); own: the network's logits "
        "(plain loops); own_shifted: a copy of these in their dtype (GPT-2, OPT, BLOOM before 4.49)",
        choices=("fp32", "shifted", "replaced", "own", "own_shifted"),
    )
}
NEEDS = {"loss_logits": ("train",)}


def shifted(model: Model, *, replaced: bool = False) -> Model:
    """The network whose float32 logits are copied for the loss; where `replaced`, they take the place of its
    own logits. To be applied before `backward`.
    """
    copied: dict[str, Tensor] = {}
    gone = {o.ins[0].name for o, _ in walk(model.nodes) if replaced and _upcasts(o)}

    def change(o: Op) -> Iterator[Op]:
        held = o
        if o.tag == LOSS:
            held = o._replace(callers=(*(name for name in o.callers if name not in gone), *copied))
        yield held._replace(ins=tuple(copied.get(t.name, t) for t in o.ins))
        if _upcasts(o):
            made = o.out._replace(name=f"{o.out.name}~shifted")
            copied[o.out.name] = made
            yield Op(f"{o.name}.shift", "copy", (o.out,), (made,), o.sizes, tag=LOSS, callers=held.callers)

    return model._replace(nodes=rewrite(model.nodes, change))


def own(model: Model, *, laid_out: bool = False) -> Model:
    """The network whose loss reads its logits as they are, or a copy of them where `laid_out`. To be applied
    before `backward`.
    """
    before: dict[str, Tensor] = {}

    def change(o: Op) -> Iterator[Op]:
        if _upcasts(o):
            read = o.ins[0]
            if laid_out:
                read = read._replace(name=f"{read.name}~shifted")
                yield Op(f"{o.name}.shift", "copy", o.ins[:1], (read,), o.sizes, tag=LOSS, callers=o.callers)
            before[o.out.name] = read
        elif o.tag == LOSS:
            ins = tuple(before.get(t.name, _plain(t)) for t in o.ins)
            yield o._replace(ins=ins, outs=tuple(map(_plain, o.outs)))
        else:
            yield o

    return model._replace(nodes=rewrite(model.nodes, change))


def _upcasts(o: Op) -> bool:
    return o.tag == LOSS and o.kind == "cast" and o.out.dtype == "float32"


def _plain(t: Tensor) -> Tensor:
    return t._replace(dtype="")


def apply(model: Model, task: Task) -> Model:
    """The network in training with the logits that its software's loss reads."""
    reads = task.techniques.loss_logits
    if reads.startswith("own"):
        return own(model, laid_out=reads == "own_shifted")
    return shifted(model, replaced=reads == "replaced")


STAGES = {"teach": apply}
