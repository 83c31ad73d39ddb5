"""What peft's adapters share: which layers have one, in which dtype, and what trains beside them.

The adapters themselves are files of their own: lora, adalora, ia3, vera, loha, lokr, oft, boft. Source: peft.
"""

from __future__ import annotations

from ..config import Task, setting
from ..errors import InputError
from ..ir import FROZEN, WEIGHT, Model, Op, Tensor, rewrite
from . import adapter_settings
from ._beside import in_ours
from ._names import chosen, wide

KEEPS_WEIGHTS = True
SETTINGS = {
    "target_modules": setting(
        "", "names of the products that adapters are of, or all-linear; peft's default"
    ),
    "adapter_dtype": setting("", "dtype of adapters (peft: fp32), where it is not the model's own"),
    "rank_dropout": setting(
        0.0, "part of the rows of LoHa's or LoKr's changes that is dropped", least=0, most=1
    ),
    "module_dropout": setting(
        0.0, "part of LoHa's, LoKr's or OFT's layers skipped in a step", least=0, most=1
    ),
    "modules_to_save": setting("", "names of operators that train as copies, beside an adapter"),
}

NEEDS = {
    "rank_dropout": (("loha_rank", "lokr_rank"),),
    "module_dropout": (("loha_rank", "lokr_rank", "oft_block_size"),),  # counted: a step that skips none
    "modules_to_save": ("adapter",),
}


def modules_to_save(model: Model, patterns: str) -> Model:
    """The model with trained copies of the modules that match; the originals stay beside them, frozen.

    Raises InputError.
    """
    names = chosen(model, "modules_to_save", in_ours(model, patterns))

    def change(o: Op) -> tuple[Op, ...]:
        own = [t for t in o.weights if t.role == FROZEN]
        if o.name not in names or not own:
            return (o,)
        new = {t: t._replace(name=f"{t.name}.saved", role=WEIGHT) for t in own}
        seen = tuple(
            Op(f"{t.name}.original", "resident", (t._replace(added=False),), (_seen(t),), o.sizes)
            for t in own
        )
        return (*seen, o._replace(ins=tuple(new.get(t, t) for t in o.ins)))

    return model._replace(nodes=rewrite(model.nodes, change))


def _seen(t: Tensor) -> Tensor:
    return Tensor(f"{t.name}~original", t.dims, dtype=t.dtype)


def check(task: Task, device: object) -> None:
    """Raise an InputError for an adapter's settings without an adapter, or with one that lacks them."""
    t = task.techniques
    wide("adapter_dtype", t.adapter_dtype)
    peft_s = [name for name, where in adapter_settings().items() if where in ("target_modules", "")]
    with_targets = [name for name in peft_s if adapter_settings()[name]]
    for field, with_it in (("target_modules", with_targets), ("adapter_dtype", peft_s)):
        if field in t.used and not any(name in t.used for name in with_it):
            lora = "lora_targets" if field == "target_modules" else "lora_dtype"
            raise InputError(
                field,
                f"there is none of {', '.join(with_targets)}; allowed: with one ({lora} is lora_rank's)",
            )


def apply(model: Model, task: Task) -> Model:
    """The model with the copies of modules that train beside its adapters."""
    patterns = task.techniques.modules_to_save
    return modules_to_save(model, patterns) if patterns else model


STAGES = {"bottom": apply}
