"""A prompt's logits: for its last token, which is all that generation needs, or for all, as in older
software.

transformers before 4.45 makes a prompt's logits for every position and, in almost all its networks, a float32
copy: 6 bytes a logit in 16 bits while it is made. Sources: transformers-logits.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..config import Task, setting
from ..errors import InputError
from ..ir import BATCH, HEAD, SEQ, Model, Op, rewrite, walk

SETTINGS = {
    "prompt_logits": setting(
        "last",
        "of a prompt's tokens: all, or fp32: all, and a float32 copy (transformers before 4.45)",
        choices=("last", "all", "fp32"),
    )
}


def of_all(model: Model, *, copied: bool = False) -> Model:
    """The prefill with logits of all tokens, and a float32 copy of them where `copied`.

    Raises InputError where no head reads a prompt's last token alone.
    """
    read = {t.name for o, _ in walk(model.nodes) if o.tag == HEAD for t in o.ins}
    cut = [o for o, _ in walk(model.nodes) if o.kind == "slice" and o.out.name in read and _narrows(o)]
    if not cut:
        raise InputError(
            "prompt_logits", f"no head of {model.name} takes a prompt's last token; allowed: last"
        )
    whole = {cut[-1].out.name: cut[-1].ins[0]}

    def change(o: Op) -> Iterator[Op]:
        if o is cut[-1]:
            return
        if whole.keys().isdisjoint(t.name for t in o.ins):
            yield o
            return
        outs = tuple(t._replace(dims=(BATCH, SEQ, *t.dims[1:])) for t in o.outs)
        ins = tuple(whole.get(t.name, t) for t in o.ins)
        made = o._replace(ins=ins, outs=outs, sizes={**cut[-1].sizes, **o.sizes})
        whole.update((t.name, t) for t in outs)
        yield made
        if copied and o.out.name in model.outputs:
            yield _copy(made)

    nodes = rewrite(model.nodes, change)
    ends = tuple(_single(name) if copied and name in whole else name for name in model.outputs)
    return model._replace(nodes=nodes, outputs=ends)


def _narrows(o: Op) -> bool:
    return SEQ in o.ins[0].dims and SEQ not in o.out.dims


def _copy(o: Op) -> Op:
    made = o.out._replace(name=_single(o.out.name), dtype="float32")
    return Op(_single(o.name), "cast", (o.out,), (made,), o.sizes, callers=o.callers)


def _single(name: str) -> str:
    return f"{name}~float32"


def check(task: Task, device: object) -> None:
    """Raise an InputError where no prompt is read."""
    mode = task.workload.mode
    if mode != "prefill":
        got = f"got {task.techniques.prompt_logits} in mode {mode}"
        raise InputError("prompt_logits", f"{got}; allowed: prefill")


STAGES = {"store": lambda model, task: of_all(model, copied=task.techniques.prompt_logits == "fp32")}
