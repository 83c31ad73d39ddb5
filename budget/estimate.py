"""The public function: what a network costs, given a name, a file, a config, a Model or a torch module."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from .answer import Estimate
from .config import Task, size, table
from .device import Device
from .device import load as load_device
from .device.profile import profile_for
from .dtype import computed
from .errors import InputError, shown, unknown
from .fold.count import Flops, Params, each_flops, params
from .fold.memory import Walked
from .ir import Model
from .named import Any
from .plan import check, chosen
from .plan import techniques as plans
from .plan.fuse import CHOICES as ATTENTION
from .plan.optimizer import ALIASES
from .plan.optimizer import CHOICES as OPTIMIZERS
from .plan.recompute import CHOICES as RECOMPUTED
from .read.source import Named, Ready, find
from .size import Size

CHOICES = {
    "mode": ("train", "forward", "prefill", "decode"),
    "execution": ("compiled", "eager"),
    "attention": tuple(ATTENTION),
    "recompute": tuple(RECOMPUTED),
    "optimizer": OPTIMIZERS,
}
# The parts of an Estimate that do not depend on the device: its fields from `model` on.
Counted = tuple[Model, Model, Params, Flops, Flops, Walked]


def estimate(
    model: object,
    *,
    batch: Size = None,
    seq: Size = None,
    image: Size = None,
    mode: str = "train",
    dtype: str | None = None,
    optimizer: str | None = None,
    recompute: str = "none",
    attention: str | None = None,
    execution: str = "compiled",
    device: str | Device = "h200",
    config: Mapping[str, Any] | None = None,
    inputs: Any = None,
    **techniques: Any,
) -> Estimate:
    """What a network costs, in parameters, FLOPs, bytes and seconds.

    model: a preset's name, an architecture's name, a path to a Hugging Face config.json, such a
    config as a dict, a Model, or a torch module, which brings its own dtype and attention.
    config: settings that override the architecture's. inputs: a torch module's, as a dict, a tuple or
    one tensor (without them, tokens or images of the requested sizes).
    batch, seq, image: sizes on one device; whole numbers or NumPy arrays of one shape.
    techniques: settings of the files of plan/: precision, accumulate, lora_rank, offload, ...
    Raises InputError, which names the field and what is allowed.
    """
    optimizer = ALIASES.get(str(optimizer), optimizer)
    _choices(mode=mode, execution=execution, attention=attention, recompute=recompute, optimizer=optimizer)
    given = {"batch": batch, "seq": seq, "image": image}
    sizes = {name: size(name, x) for name, x in given.items() if x is not None}
    requested = {"recompute": recompute, "attention": attention, **techniques}
    source = find(model, mode, sizes, table("config", config), inputs, dtype, requested)
    task = Task(
        source.workload,
        computed(dtype or source.usual.get("dtype", "bf16")),
        optimizer or source.usual.get("optimizer", "adamw"),
        recompute,
        attention or ("sdpa" if mode == "train" else "flash"),
        execution,
        chosen(techniques),
        source.usual.get("packing"),
        source.usual.get("family", ""),
    )
    target = _device(device)
    check(task, target)
    return Estimate(task, target, profile_for(target, task.dtype), *_counted(source.network, task))


def _choices(**given: str | None) -> None:
    """Raise an InputError for a value that its setting does not allow."""
    for field, value in given.items():
        if value is not None and value not in CHOICES[field]:
            raise unknown(field, value, CHOICES[field])


def _device(device: object) -> Device:
    """A device, by its name or as it is. Raises InputError."""
    found = load_device(device) if isinstance(device, str) else device
    if not isinstance(found, Device):
        raise InputError("device", f"got {shown(device)}; allowed: a device's name, or a Device")
    return found


def _counted(network: Named | Ready, task: Task) -> Counted:
    """The parts of an estimate that do not depend on the device, cached."""
    try:
        hash((network, task))
    except TypeError:  # not hashable: sizes are arrays, or the network is a Model
        return _remembered.__wrapped__(network, task)
    return _remembered(network, task)


@lru_cache(maxsize=64)
def _remembered(network: Named | Ready, task: Task) -> Counted:
    model = network.build(task.workload)
    try:
        built, book, program = plans.apply(model, task)
        counted, hardware = each_flops(book, program)
    except KeyError:
        from .ir.verify import verify

        verify(model)  # names the operator, operand and line of a dimension without a size
        raise
    return built, program, params(built), counted, hardware, Walked(program, task.dtype)
