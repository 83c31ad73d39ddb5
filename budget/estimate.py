"""The public function: what a network costs, given a name, a file, a config, a Model or a torch module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from .answer import Estimate
from .config import Task, sizes, table
from .device import Device, several
from .device import load as load_device
from .device import reserve as reserves
from .device.profile import profile_for
from .dtype import computed
from .errors import InputError, shown, unknown
from .fold.count import Flops, Params, each_flops, params
from .fold.memory import Walked
from .ir import Model
from .named import TYPE_CHECKING, Any
from .plan import check, chosen, keeps_weights, only_trains
from .plan import techniques as plans
from .plan.fuse import CHOICES as ATTENTION
from .plan.optimizer import CHOICES as OPTIMIZERS
from .plan.optimizer import named as optimizer_named
from .plan.recompute import CHOICES as RECOMPUTED
from .read.source import Named, Ready, Source, built, find
from .size import Size, any_of, once
from .stack import BESIDES, Stack, usual
from .stack import load as load_stack

if TYPE_CHECKING:
    from typing import Unpack

    from .cluster import Cluster
    from .keywords import Attention, Execution, Mode, Optimizer, Recompute, Techniques
    from .layout import Layout
    from .search import Found

CHOICES = {
    "mode": ("train", "forward", "prefill", "decode"),
    "execution": ("compiled", "eager", "fused", "graph"),
    "attention": tuple(ATTENTION),
    "recompute": tuple(RECOMPUTED),
    "optimizer": OPTIMIZERS,
}
OF_STACKS = ("execution", "attention", "optimizer")  # of these; a stack may have any technique's, too
# The parts of an Estimate that do not depend on the device: its fields from `model` on.
Counted = tuple[Model, Model, Params, Flops, Flops, Walked, Any]


def estimate(
    model: object,
    *,
    batch: Size = None,
    seq: Size = None,
    image: Size = None,
    sound: Size = None,
    mode: Mode = "train",
    dtype: str | None = None,
    optimizer: Optimizer | None = None,
    recompute: Recompute = "none",
    attention: Attention | None = None,
    execution: Execution | None = None,
    stack: str | Stack | None = None,
    device: str | Device = "h200",
    reserve: float | str | None = None,
    layout: str | Mapping[str, Any] | Layout | None = None,
    devices: int | None = None,
    cluster: Any = None,
    global_batch: Size = None,
    micro_batch: Size = None,
    config: Mapping[str, Any] | None = None,
    inputs: Any = None,
    **techniques: Unpack[Techniques],
) -> Estimate:
    """What a network costs, in parameters, FLOPs, bytes and seconds.

    model: a preset's name, an architecture's name, a path to a Hugging Face config.json, such a
    config as a dict, a Model, or a torch module, which brings its own dtype and attention.
    config: settings that override the architecture's. inputs: a torch module's, as a dict, a tuple or
    one tensor (without them, tokens or images of the requested sizes).
    batch, seq, image, sound: sizes on one device (tokens, pixels along a side, seconds); whole numbers or
    NumPy arrays of one shape.
    layout: how a step is spread over devices, as `tp=8,pp=4,dp=16`, a table or a Layout. devices: how many;
    without a layout, the best one of a small search (search.py). cluster: what joins them. global_batch:
    samples of all devices in a step, or tokens (`4M-tokens`: the nearest number of whole samples).
    micro_batch: of one device at once; so is batch.
    stack: the software that runs it (data/stacks/), with its defaults of what is not given here.
    reserve: memory that is not for tensors, in bytes or as `2GiB` or `10%` (data/reserve.json).
    techniques: settings of the files of plan/: precision, accumulate, lora_rank, offload, ...
    Raises InputError, which names the field and what is allowed.
    """
    device, devices = several(device, devices)
    if devices is not None and layout is None:
        settings = {
            k: v for k, v in locals().items() if k not in ("model", "devices", "layout", "techniques")
        }
        return plan(model, devices, **settings, **techniques).best.estimate  # type: ignore[return-value] # has one
    stepped = optimizer_named(optimizer) if isinstance(optimizer, str) else optimizer
    _choices(mode=mode, execution=execution, attention=attention, recompute=recompute, optimizer=stepped)
    if mode != "train" and (stepped or "none") != "none":
        raise only_trains("optimizer", mode)
    divided = None if layout is None else _layout(layout, mode, devices)
    batch = _one_of(batch=batch, micro_batch=micro_batch)
    asked = _sizes(batch=batch, seq=seq, image=image, sound=sound)
    requested = {"recompute": recompute, "attention": attention, **techniques}
    source = find(model, mode, asked, table("config", config), inputs, dtype, requested)
    target = _device(device)
    software = _stack(stack, mode, target, _engine(source, techniques))
    if software.graphs and mode == "decode" and execution == "graph":
        software = load_stack(software.graphs)
    kind = computed(
        dtype or _usual_dtype(source.usual.get("dtype"), source.network, target, software.weights)
    )
    usually = partial(software.settings, mode, recompute, seq=source.workload.seq)
    defaults = {"attention": "flash", "execution": "compiled", "optimizer": "adamw"}
    defaults |= _defaults(usually, kind, source, techniques)
    own = {name: defaults.pop(name) for name in ("attention", "execution", "optimizer")}
    if global_batch is not None:
        from .batches import micro_batches

        techniques = {**techniques, "accumulate": micro_batches(global_batch, divided, source, techniques)}
    task = Task(
        workload=source.workload,
        dtype=kind,
        optimizer=stepped or source.usual.get("optimizer") or own["optimizer"],
        recompute=recompute,
        attention=attention or own["attention"],
        execution=execution or own["execution"],
        techniques=chosen({**defaults, **techniques}),
        packing=source.usual.get("packing"),
        kept=source.usual.get("kept"),
        layout=divided,
        family=source.usual.get("family", ""),
        published=source.usual.get("published", ""),
    )
    check(task, target)
    apart = divided is not None and mode != "train" and any_of(divided.devices > 1)
    ran = software._replace(dispatch=1.0) if task.execution == "eager" else software  # nothing is compiled
    profile = profile_for(target, task.dtype, ran, several=apart)
    counted, groups, joined = _joined(_counted(source.network, task), task, target, cluster, software)
    kept = reserves.reserve(target, groups, software.context_mib, reserve)
    return Estimate(task, target, software, kept, profile, *counted, joined)


def _joined(
    counted: Counted, task: Task, target: Device, cluster: Any, software: Stack
) -> tuple[Counted, float, Cluster | None]:
    """Of several devices, what they keep beside their programs as well; their groups, and their cluster."""
    if task.layout is None or counted[-1] is None:
        return counted, 0.0, None
    from . import spread
    from .cluster import holds

    counted = (*counted[:-1], spread.kept_beside(counted[-1], software, task))
    joined = spread.cluster_of(target, cluster, software)
    holds(joined, task.layout.devices, "layout")
    return counted, spread.groups(task.layout, software), joined


def plan(model: object, devices: int, **settings: Any) -> Found:
    """The layouts of so many devices, the best first. settings: as those of `estimate`. Raises InputError."""
    from .planning import layouts

    return layouts(partial(estimate, model), devices, settings)


def _layout(layout: object, mode: str, devices: int | None) -> Layout:
    """A layout, of text, a table or as it is; of so many devices. Raises InputError."""
    from .layout import layout as as_layout

    found = as_layout(layout, train=mode == "train")
    if devices is not None and any_of(found.devices != devices):
        allowed = f"the layout's {shown(found.devices)}, or no layout"
        raise InputError("devices", f"got {shown(devices)}; allowed: {allowed}")
    return found


def _usual_dtype(own: str | None, network: Named | Ready, device: Device, served: str) -> str:
    """A network's own dtype, the device's usual one where it has none or the device lacks it, or that in
    which an engine's weights are `served`, where the usual one is of 32 bits. A network whose tensors have
    their dtypes already keeps them.
    """
    if own and (isinstance(network, Ready) or device.has(own)):
        return own
    usual = device.usual_dtype
    return served if served and usual == "fp32" else usual


def _engine(source: Source, techniques: Mapping[str, Any]) -> str:
    """The engine whose own format the weights have, as they are stored or asked for; "" of any engine's."""
    if stored := source.usual.get("packing"):
        return str(stored.engine)
    asked = techniques.get("quantize", "none")
    if asked == "none" or not isinstance(asked, str):
        return ""
    from .plan.quantize import engine

    return engine(asked.lower())


def _stack(stack: object, mode: str, device: Device, engine: str) -> Stack:
    """A stack, by its name or as it is; the usual one for None. Raises InputError."""
    if stack is None:
        return usual(mode, device.vendor, engine, device.generation)
    found = load_stack(stack) if isinstance(stack, str) else stack
    if not isinstance(found, Stack):
        raise InputError("stack", f"got {shown(stack)}; allowed: a stack's name, or a Stack")
    if isinstance(stack, str) and stack.endswith(".json"):
        settings_of(found)
    return found


def settings_of(stack: Stack) -> None:
    """Raise an InputError for a default of a stack that its setting does not allow, or for no setting."""
    told = [(mode, getattr(stack, mode) or {}) for mode in ("train", "serve", *BESIDES)]
    for where, given in (*told, *(("formats", {"quantize": form}) for form in stack.formats)):
        try:
            for name in given.keys() & set(OF_STACKS):
                if given[name] not in CHOICES[name]:
                    raise unknown(name, given[name], CHOICES[name])
            chosen({name: value for name, value in given.items() if name not in OF_STACKS})
        except InputError as error:
            raise InputError("stack", f"{stack.name}.json: {where}.{error}") from None


OF_MODULES = ("execution", "memory_format", "cache_implementation")  # a stack's, that a torch module can have


def _defaults(
    settings: Callable[..., Mapping[str, Any]], dtype: str, source: Source, techniques: Mapping[str, Any]
) -> dict[str, Any]:
    """A stack's settings (by precision), without those that this dtype, this network or a torch module, which
    has its own, cannot have.

    Precision is that of weights that are trained: what adapters or few bits leave as it is stays so.
    """
    network = source.network
    captured = isinstance(network, Ready) and network.model.captured
    mixed = dtype in ("bfloat16", "float16") and not (techniques and keeps_weights(techniques))
    usual = settings().get("precision", "pure") if mixed and not captured else "pure"
    found = {
        name: value
        for name, value in settings(precision=techniques.get("precision", usual)).items()
        if (name in OF_MODULES or not captured) and (name != "precision" or mixed)
    }
    if "fuse" in found.keys() - techniques.keys():
        from .plan.fused import those_of

        found["fuse"] = those_of(built(network, source.workload), found["fuse"])
    return found


def _sizes(**given: Size) -> dict[str, Size]:
    """The sizes that are given, checked. Raises InputError."""
    return {name: sizes(name, x) for name, x in given.items() if x is not None}


def _one_of(**sizes: Size) -> Size:
    """The size that is given by one of its names. Raises InputError where they contradict each other."""
    given = {name: x for name, x in sizes.items() if x is not None}
    if len(given) > 1 and len({str(x) for x in given.values()}) > 1:
        raise InputError(list(given)[1], f"given together with {next(iter(given))}; allowed: one of the two")
    return next(iter(given.values()), None)


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


@once
def _counted(network: Named | Ready, task: Task) -> Counted:
    """The parts of an estimate that do not depend on the device."""
    model = built(network, task.workload)
    try:
        if task.layout is not None and any_of(task.layout.devices > 1):
            from . import spread

            return spread.counted(network, task)
        with_techniques, book, program = plans.apply(model, task)
        counted, hardware = each_flops(book, program)
    except KeyError:
        from .ir.verify import verify

        verify(model)  # names the operator, operand and line of a dimension without a size
        raise
    walked = Walked(program, task.dtype, task.workload.mode == "decode")
    return with_techniques, program, params(with_techniques), counted, hardware, walked, None
