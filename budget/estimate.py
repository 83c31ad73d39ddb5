"""The public function: what a network costs, given a name, a file, a config, a Model or a torch module."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from .answer import Estimate
from .config import Task, size, table
from .device import Device
from .device import load as load_device
from .device import reserve as reserves
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
from .read.module import is_captured
from .read.source import Named, Ready, find
from .size import Size
from .stack import Stack, usual
from .stack import load as load_stack

CHOICES = {
    "mode": ("train", "forward", "prefill", "decode"),
    "execution": ("compiled", "eager", "graph"),
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
    execution: str | None = None,
    stack: str | Stack | None = None,
    device: str | Device = "h200",
    reserve: float | str | None = None,
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
    stack: the software that runs it (data/stacks/), with its defaults of what is not given here.
    reserve: memory that is not for tensors, in bytes or as `2GiB` or `10%` (data/reserve.json).
    techniques: settings of the files of plan/: precision, accumulate, lora_rank, offload, ...
    Raises InputError, which names the field and what is allowed.
    """
    optimizer = ALIASES.get(str(optimizer), optimizer)
    _choices(mode=mode, execution=execution, attention=attention, recompute=recompute, optimizer=optimizer)
    given = {"batch": batch, "seq": seq, "image": image}
    sizes = {name: size(name, x) for name, x in given.items() if x is not None}
    requested = {"recompute": recompute, "attention": attention, **techniques}
    source = find(model, mode, sizes, table("config", config), inputs, dtype, requested)
    software, target = _stack(stack, mode), _device(device)
    kind = computed(dtype or _usual_dtype(source.usual.get("dtype"), source.network, target))
    defaults = {"attention": "flash", "execution": "compiled", "optimizer": "adamw"}
    defaults |= _defaults(software.settings(mode), kind, source.network)
    own = {name: defaults.pop(name) for name in ("attention", "execution", "optimizer")}
    task = Task(
        source.workload,
        kind,
        optimizer or source.usual.get("optimizer") or own["optimizer"],
        recompute,
        attention or own["attention"],
        execution or own["execution"],
        chosen({**defaults, **techniques}),
        source.usual.get("packing"),
        source.usual.get("kept"),
        source.usual.get("family", ""),
    )
    check(task, target)
    profile = profile_for(target, task.dtype, software)
    kept = reserves.usual(target) if reserve is None else reserves.asked(reserve, target)
    return Estimate(task, target, software, kept, profile, *_counted(source.network, task))


def _usual_dtype(own: str | None, network: Named | Ready, device: Device) -> str:
    """A network's own dtype, the device's usual one where it has none or the device lacks it. A network whose
    tensors have their dtypes already keeps them.
    """
    return own if own and (isinstance(network, Ready) or device.has(own)) else device.usual_dtype


def _stack(stack: object, mode: str) -> Stack:
    """A stack, by its name or as it is; the mode's usual one for None. Raises InputError."""
    found = usual(mode) if stack is None else load_stack(stack) if isinstance(stack, str) else stack
    if not isinstance(found, Stack):
        raise InputError("stack", f"got {shown(stack)}; allowed: a stack's name, or a Stack")
    return found


def _defaults(settings: Mapping[str, Any], dtype: str, network: Named | Ready) -> dict[str, Any]:
    """A stack's settings, without those that this dtype or a torch module, which has its own, cannot have."""
    captured = isinstance(network, Ready) and is_captured(network.model)
    narrow = dtype in ("bfloat16", "float16")
    return {
        name: value
        for name, value in settings.items()
        if (name == "execution" or not captured) and (name != "precision" or narrow)
    }


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
    return (
        built,
        program,
        params(built),
        counted,
        hardware,
        Walked(program, task.dtype, task.workload.mode == "decode"),
    )
