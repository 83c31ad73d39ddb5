"""Which dtype weights, gradients, products and states have.

`pure`, the model as it is without this, has one dtype throughout. `autocast` is torch.autocast: float32
weights and gradients, and casts where its lists have them. `master` is Megatron's and DeepSpeed's mixed
precision: 16-bit weights, and the optimizer's float32 copy of them. `fp8` is Transformer Engine's, `fsdp`
FSDP2's: float32 weights that are cast before anything reads them (plan/fsdp.py).
Sources: torch-autocast, megatron-lm, transformer-engine.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..config import Task, setting
from ..dtype import IN_FEW_BITS, full_name
from ..errors import InputError, unknown, wrong
from ..fold.count import trained
from ..ir import (
    ACTIVATION,
    FIRST,
    GRADIENT,
    ONCE,
    WEIGHT,
    Model,
    Op,
    Tensor,
    rewrite,
)
from ..ir.kinds.rule import SINGLE
from ..named import TYPE_CHECKING
from ._names import is_trained, untrained, wide

if TYPE_CHECKING:
    from ..device import Device

PRECISION = ("pure", "autocast", "master", "fp8", "nvfp4", "fsdp")
UNTRAINED = ("pure", "autocast")  # the others differ in what a training step keeps
SETTINGS = {
    "precision": setting("pure", "what has which dtype", choices=PRECISION),
    "frozen_dtype": setting("", "under autocast: dtype of what is frozen (bf16: loaded so), not fp32"),
    "quantize_weights": setting(
        "pass",
        "with fp8, nvfp4: how often weights are cast, in each pass or a step",
        choices=("pass", "step"),
    ),
    "grad_dtype": setting("", "dtype of the weights' gradients, where it is not the weights' own"),
}
NEEDS = {
    "quantize_weights": ("train",),
    "frozen_dtype": ("train",),
    "grad_dtype": ("train",),
}
UNNAMED = True

# Their moments have the weights' dtype; they raise for gradients in another. Source: torch-optim
ONE_DTYPE = ("adam", "adamw", "adamw_loop", "adamw_fused", "muon")


def check(task: Task, device: Device) -> None:
    """Raise an InputError for a precision that the model's dtype or the device contradicts."""
    choice, dtype, mode = task.techniques.precision, task.dtype, task.workload.mode
    if mode != "train" and choice not in UNTRAINED:
        allowed = f"{', '.join(UNTRAINED)}, or mode train"
        raise InputError("precision", f"got {choice} in mode {mode}; allowed: {allowed}")
    if choice in IN_FEW_BITS and not _has(device, choice):
        raise InputError("precision", f"{device.name} has no {choice}; allowed: pure, autocast, master")
    if task.techniques.quantize_weights != "pass" and choice not in IN_FEW_BITS:
        allowed = f"with precision {', '.join(IN_FEW_BITS)}"
        raise InputError("quantize_weights", f"got precision {choice}; allowed: {allowed}")
    if choice != "pure" and dtype not in ("bfloat16", "float16"):
        raise InputError("precision", f"got {choice} with {dtype}; allowed: pure, or dtype bf16 or fp16")
    wide("grad_dtype", task.techniques.grad_dtype)
    frozen = task.techniques.frozen_dtype
    if frozen and choice != "autocast":
        raise InputError("frozen_dtype", f"got precision {choice}; allowed: with precision autocast")
    if frozen and full_name(frozen) not in (dtype, SINGLE):
        raise wrong("frozen_dtype", frozen, f"fp32, or {dtype} as autocast has")


def _has(device: Device, choice: str) -> bool:
    """Whether a device multiplies in these few bits; NVFP4's scales are NVIDIA's."""
    if choice == "nvfp4":
        return "fp4" in device.flops and device.vendor == "NVIDIA"
    return choice in device.flops


def precision(
    model: Model, choice: str, device: str = "cuda", *, frozen: str = SINGLE, tag: str = ONCE
) -> Model:
    """The model with its casts. To be applied before `backward`, as the last technique.

    tag: of the operators that cast weights to few bits. frozen: under autocast, the dtype of the weights that
    do not train; "" is the low one. Raises InputError.
    """
    if choice not in PRECISION:
        raise unknown("precision", choice, PRECISION)
    untrained(model, "precision")
    if choice == "autocast":
        from ._autocast import Autocast

        return model._replace(nodes=tuple(Autocast(device, frozen).run(model.nodes, {}, set())))
    if choice in IN_FEW_BITS:
        from . import fp8

        return model._replace(nodes=tuple(fp8.quantized(model.nodes, IN_FEW_BITS[choice], tag)))
    if choice == "fsdp":
        from .fsdp import cast_weights

        return cast_weights(model)
    return model


def gradients(model: Model, dtype: str, *, fused: bool = False) -> Model:
    """The training program with its weights' gradients cast to a dtype of their own.

    fused: products write that dtype themselves (Megatron's gradient accumulation fusion). Raises InputError.
    """
    is_trained(model, "grad_dtype")

    def typed(t: Tensor) -> Tensor:
        return t._replace(dtype=dtype) if t.role == WEIGHT and t.part == GRADIENT else t

    def change(o: Op) -> Iterator[Op]:
        made = [t for t in o.outs if _is_gradient(o, t) and t.dtype != dtype]
        adds = o.kind == "accumulate"  # another product's to what is there (tied weights)
        if not made:
            yield o
        elif fused and (adds or o.kind == "contract"):
            yield o._replace(ins=tuple(map(typed, o.ins)), outs=tuple(map(typed, o.outs)))
        elif adds:
            part, total = o.ins
            wide = part._replace(name=f"{part.name}~wide", dtype=dtype)
            yield Op(f"{o.name}.grad_cast", "cast", (part,), (wide,), o.sizes, "backward", o.of)
            yield o._replace(ins=(wide, typed(total)), outs=tuple(map(typed, o.outs)))
        else:
            own = {t: t._replace(name=f"{t.name}~own", role=ACTIVATION) for t in made}
            yield o._replace(outs=tuple(own.get(t, t) for t in o.outs))
            for t in made:
                cast = Op(f"{o.name}.grad_cast", "cast", (own[t],), (typed(t),), o.sizes, "backward", o.of)
                yield cast._replace(module=o.module)

    return model._replace(nodes=rewrite(model.nodes, change))


def _is_gradient(o: Op, t: Tensor) -> bool:
    return o.phase == "backward" and t.role == WEIGHT and t.part == GRADIENT


def apply(model: Model, task: Task) -> Model:
    """The model with its casts."""
    t = task.techniques
    low = t.frozen_dtype and full_name(t.frozen_dtype) == task.dtype
    tag = FIRST if t.quantize_weights == "step" else ONCE
    return precision(model, t.precision, frozen="" if low else SINGLE, tag=tag)


def apply_gradients(model: Model, task: Task) -> Model:
    """The training program with its gradients in the dtypes of its precision."""
    t = task.techniques
    if t.precision in IN_FEW_BITS:
        from . import fp8

        model = fp8.trained(model, IN_FEW_BITS[t.precision])
    if not t.grad_dtype or (dtype := full_name(t.grad_dtype)) == task.dtype:
        return model
    dtypes = {own or task.dtype for own in trained(model)} - {dtype}
    if dtypes and not task.master and task.optimizer in ONE_DTYPE:
        text = f"got {t.grad_dtype} for weights in {min(dtypes)}, which torch's {task.optimizer} refuses"
        raise InputError("grad_dtype", f"{text}; allowed: the weights' own dtype, or precision master")
    return gradients(model, dtype, fused=t.gradient_accumulation_fusion)


def apply_cache(model: Model, task: Task) -> Model:
    """The program with autocast's cache."""
    if task.techniques.precision != "autocast":
        return model
    from ._autocast import until_the_end

    return until_the_end(model)


STAGES = {"cast": apply, "gradients": apply_gradients, "offload": apply_cache}
