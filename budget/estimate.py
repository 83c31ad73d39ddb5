"""The face: what a network costs, from a name, a file, a config or a Model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, lru_cache

from . import arch as architectures
from .config import Settings, Task, Workload, one_shape, size, table
from .device import Device
from .device import load as load_device
from .dtype import computed
from .errors import InputError, shown, unknown
from .fold.count import Flops, Params, flops, params
from .fold.memory import Memory, Walked
from .fold.time import Times, time
from .form import Profile
from .model import Model
from .named import Any, NamedTuple
from .plan import check, chosen
from .plan import techniques as plans
from .plan.fuse import CHOICES as ATTENTIONS
from .plan.optimizer import CHOICES as OPTIMIZERS
from .plan.recompute import CHOICES as RECOMPUTED
from .profile import profile_for
from .read import module as modules
from .read.source import captured, resolve
from .size import Size

MODES = ("train", "forward", "prefill", "decode")
ATTENTION = tuple(ATTENTIONS)
EXECUTION = ("compiled", "eager")


class _Estimate(NamedTuple):
    task: Task
    device: Device
    profile: Profile
    model: Model
    program: Model
    params: Params
    flops: Flops  # as the formula book has it: attention in full, nothing computed twice
    hardware: Flops  # what the device really does, recomputation included
    walked: Walked


# What no device changes: the fields of an estimate from `model` on.
Counted = tuple[Model, Model, Params, Flops, Flops, Walked]


class Estimate(_Estimate):
    """The answer. Counts are exact; `times` is a prediction with an interval.

    Memory and time are worked out when they are asked for.
    """

    def __repr__(self) -> str:
        task, device = self.task, self.device.name
        batch = shown(task.workload.batch)
        return f"Estimate({self.model.name}, {task.workload.mode}, batch={batch}, {task.dtype}, {device})"

    @property
    def memory(self) -> Memory:
        """Bytes on one device."""
        return self.walked.memory

    @cached_property
    def times(self) -> Times:
        """Seconds of one step or pass."""
        compiled = self.task.execution == "compiled"
        return time(self.program, self.device, self.profile, self.task.dtype, compiled)

    @property
    def fits(self) -> Any:
        """Whether the peak is within the device's memory (an array of answers for arrays)."""
        return self.memory.peak <= self.device.usable_bytes

    def cost(self) -> dict[str, Any]:
        """Money at the mean of the device's low and high price, energy at its full power.

        None where the device's data has no price or no power. Energy is an upper bound: few
        programs draw a device's full power all the time.
        """
        hours = self.times.step / 3600
        prices, watts = self.device.usd_per_hour, self.device.tdp_w
        price = sum(prices) / 2 if prices else None
        work = self.model.tokens if self.model.counts_tokens else self.model.samples
        return {
            "usd_per_hour": price,
            "usd_per_step": None if price is None else price * hours,
            "usd_per_million": None if price is None else price * hours / work * 1e6,
            "joules_per_step": None if watts is None else watts * self.times.step,
        }

    def to_dict(self) -> dict[str, Any]:
        """The contract's JSON."""
        from .report.json import to_dict

        return to_dict(self)


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
    one tensor (without them, tokens or images of the sizes asked for).
    batch, seq, image: sizes on one device; whole numbers or NumPy arrays of one shape.
    techniques: the settings of plan/techniques.py: precision, accumulate, lora_rank, offload, ...
    Raises InputError, which names the field and what is allowed.
    """
    config = table("config", config)
    asked = {"batch": batch, "seq": seq, "image": image}
    sizes = {name: size(name, x) for name, x in asked.items() if x is not None}
    _choice("mode", mode, MODES)
    _choice("execution", execution, EXECUTION)
    if modules.is_module(model) or modules.is_captured(model):
        modules.check(model, mode, recompute, attention, config, techniques)
    if isinstance(model, Model):
        for field in (*sizes, *config):
            raise InputError(field, "a Model has its own; allowed: with a preset or an architecture")
    if modules.is_module(model):
        model = modules.program(model, inputs=inputs, mode=mode, dtype=dtype, **asked)
    elif inputs is not None:
        raise InputError("inputs", "allowed: for a torch module only")
    elif (found := captured(model, mode=mode, dtype=dtype, **asked)) is not None:
        modules.check(found, mode, recompute, attention, config, techniques)
        model = found
    attention = attention or ("fused" if mode == "train" else "flash")
    _choice("attention", attention, ATTENTION)
    if isinstance(model, Model):
        usual: Mapping[str, Any] = {k: v for k, v in model.config.items() if k == "dtype"}
        workload = Workload(mode, model.samples)
    else:
        name, module, settings, usual, uncounted = resolve(model, config)
        architectures.check(module, name, mode, sizes)
        one_shape({**vars(settings), **sizes})
        usual_sizes = {k: size(k, usual[k]) for k in ("batch", "seq", "image") if k in usual}
        workload = Workload(mode, **{**usual_sizes, **sizes})
    task = Task(
        workload,
        computed(dtype or usual.get("dtype", "bf16")),
        optimizer or usual.get("optimizer", "adamw"),
        recompute,
        attention,
        execution,
        chosen(techniques),
        usual.get("packing"),
    )
    _choice("recompute", task.recompute, tuple(RECOMPUTED))
    _choice("optimizer", task.optimizer, OPTIMIZERS)
    target = _device(device)
    check(task, target)
    if isinstance(model, Model):
        counted = _program(model, task)
    else:
        counted = _of_architecture(name, module, settings, task, uncounted)
    return Estimate(task, target, profile_for(target, task.dtype), *counted)


def _device(device: object) -> Device:
    """The device that is named or given. Raises InputError."""
    found = load_device(device) if isinstance(device, str) else device
    if not isinstance(found, Device):
        raise InputError("device", f"got {shown(device)}; allowed: a device's name, or a Device")
    return found


def _of_architecture(*key: Any) -> Counted:
    """An architecture's program, remembered for the next one who asks."""
    try:
        hash(key)
    except TypeError:  # sizes are arrays
        return _remembered.__wrapped__(*key)
    return _remembered(*key)


@lru_cache(maxsize=64)
def _remembered(
    name: str, module: Any, settings: Settings, task: Task, uncounted: tuple[str, ...]
) -> Counted:
    built: Model = module.build(settings, task.workload)
    return _program(built._replace(name=name, uncounted=(*built.uncounted, *uncounted)), task)


def _program(model: Model, task: Task) -> Counted:
    """A network with its techniques, and what is counted of it."""
    network, book, program = plans.apply(model, task)
    known: dict[int, tuple[Size, Size]] = {}
    counted = flops(book, known)
    hardware = counted if program is book else flops(program, known)
    return network, program, params(network), counted, hardware, Walked(program, task.dtype)


def _choice(field: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise unknown(field, value, allowed)
