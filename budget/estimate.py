"""The public function: what a network costs, given a name, a file, a config, a Model or a torch module."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from . import defaults
from .answer import Estimate
from .config import Task, sizes, table, without_none
from .defaults import choices
from .device import Device, several
from .device import load as load_device
from .device import reserve as reserves
from .device.profile import profile_for
from .errors import InputError, shown, unknown, wrong
from .fold.count import Flops, Params, each_flops, params
from .fold.memory import Walked
from .ir import Model
from .named import TYPE_CHECKING, Any
from .plan import check, chosen, fields, only_trains
from .plan import techniques as plans
from .plan.optimizer import named as optimizer_named
from .read.source import Named, Ready, built, find
from .size import Size, any_of, once
from .stack import Stack

if TYPE_CHECKING:
    from typing import Unpack

    from .cluster import Cluster
    from .keywords import Attention, Each, Execution, Mode, Optimizer, Recompute, Techniques
    from .layout import Layout
    from .search.best import Found

OF_NETWORKS = ("packing", "kept", "family", "published")  # fields of a Task that the network's source sets
# The fields of an Estimate that do not depend on the device: those from `model` to `spread`.
Counted = tuple[Model, Model, Params, Flops, Flops, Walked, Any]


def estimate(
    model: object,
    *,
    batch: Size = None,
    seq: Size = None,
    image: Size = None,
    sound: Size = None,
    mode: Mode | None = "train",
    dtype: str | None = None,
    optimizer: Optimizer | None = None,
    recompute: Recompute | None = "none",
    attention: Attention | None = None,
    execution: Execution | None = None,
    stack: str | Stack | None = None,
    device: str | Device | None = None,
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

    budget.estimate("llama-3-8b", batch=4, seq=8192, device="h100", recompute="full").times.step
    budget.estimate("transformer", config={"d_model": 512, "heads": 8})

    model: a preset's name, an architecture's name, a path to a Hugging Face config.json, such a
    config as a dict, a Model, or a torch module, which brings its own dtype and attention.
    config: settings of the network itself, over the architecture's or the preset's (`budget list
    architectures` has them). inputs: a torch module's, as a dict, a tuple or one tensor (without them, tokens
    or images of the requested sizes).
    mode: train (a step), forward, prefill (a prompt) or decode (a token of each sequence). None: not said.
    batch, seq, image, sound: sizes on one device (tokens, pixels along a side, seconds); whole numbers or
    NumPy arrays of one shape.
    device: its name, or a Device (the first that the cluster is sold with, or h200).
    layout: how a step is spread over devices, as `tp=8,pp=4,dp=16`, a table or a Layout. devices: how many;
    without a layout, the best one of a small search (budget.plan has all that it tried). cluster: what joins
    them. global_batch: samples of all devices in a step, or tokens (`4M-tokens`: the nearest number of whole
    samples). micro_batch: of one device at once; so is batch.
    stack: the software that runs it (data/stacks/), with its defaults of what is not given here.
    reserve: memory that is not for tensors, in bytes or as `2GiB` or `10%` (data/reserve.json).
    techniques: precision, accumulate, lora_rank, offload, quantize, ...: each is a flag of `budget estimate
    --help` and explained in docs/techniques.md.
    Raises InputError, which names the field and what is allowed.
    """
    mode, recompute = "train" if mode is None else mode, "none" if recompute is None else recompute
    device, devices = several(usual_device(cluster) if device is None else device, devices)
    if devices is not None and layout is None:
        settings = {
            k: v for k, v in locals().items() if k not in ("model", "devices", "layout", "techniques")
        }
        return plan(model, devices, **settings, **techniques).best.estimate  # type: ignore[return-value] # has one
    updated_by = optimizer_named(optimizer) if isinstance(optimizer, str) else optimizer
    choices(mode=mode, execution=execution, attention=attention, recompute=recompute, optimizer=updated_by)
    if mode != "train" and (updated_by or "none") != "none":
        raise only_trains("optimizer", mode)
    given, spread = without_none(techniques), None if layout is None else _layout(layout, mode, devices)
    input_sizes = _sizes(
        batch=_one_of(batch=batch, micro_batch=micro_batch), seq=seq, image=image, sound=sound
    )
    requested = {"recompute": recompute, "attention": attention, **given}
    source = find(model, mode, input_sizes, table("config", config), inputs, dtype, requested)
    target = as_device(device)
    software = defaults.software(stack, execution, target, source, given)
    kind = defaults.dtype(dtype, source, target, software)
    usual = defaults.settings(software, recompute, kind, source, given)
    if global_batch is not None:
        from .search.batches import micro_batches

        given = {**given, "accumulate": micro_batches(global_batch, spread, source, given)}
    arguments = {"optimizer": updated_by, "attention": attention, "execution": execution}
    of_stack = {name: value for name, value in usual.items() if name not in arguments}
    task = Task(
        workload=source.workload,
        dtype=kind,
        recompute=recompute,
        layout=spread,
        techniques=_chosen(of_stack, given, source.network),
        **{name: value or usual[name] for name, value in arguments.items()},
        **{field: source.usual[field] for field in OF_NETWORKS if field in source.usual},
    )
    check(task, target)
    return _estimate(source.network, task, target, software, cluster, reserve)


def _estimate(
    network: Named | Ready, task: Task, device: Device, software: Stack, cluster: Any, reserve: Any
) -> Estimate:
    """The estimate of a network that is run as a task says. Raises InputError."""
    mode = task.workload.mode
    several = mode != "train" and task.layout is not None and any_of(task.layout.devices > 1)
    ran = software.run(mode, task.execution, task.attention)
    profile = profile_for(device, task.dtype, ran, several=several, mode=mode)
    counted, groups, joined = _joined(_counted(network, task), task, device, cluster, software)
    kept = reserves.reserve(device, groups, software.context_mib, reserve)
    return Estimate(task, device, software, kept, profile, *counted, joined)


def _joined(
    counted: Counted, task: Task, target: Device, cluster: Any, software: Stack
) -> tuple[Counted, float, Cluster | None]:
    """On several devices: what was counted, with what they keep beside their programs; the number of their
    process groups; and their cluster. For one device a cluster is only checked.
    """
    if cluster is None and (task.layout is None or counted[-1] is None):
        return counted, 0.0, None
    from .answer import spread
    from .cluster import holds

    joined = spread.cluster_of(target, cluster, software)
    if task.layout is None or counted[-1] is None:
        return counted, 0.0, None
    counted = (*counted[:-1], spread.kept_beside(counted[-1], software, task))
    holds(joined, task.layout.devices, "layout")
    return counted, spread.groups(task.layout, software), joined


def plan(model: object, devices: int | None = None, **settings: Unpack[Each]) -> Found:
    """The layouts of so many devices, the best first. Raises InputError.

    budget.plan("llama-3-70b", 64, device="h100", global_batch=128).best.layout

    settings: those of budget.estimate. Its devices=64 is the best one's estimate.
    """
    from .search.layouts import layouts

    given = without_none(settings)
    usual = usual_device(given.get("cluster"))
    given["device"], number = several(given.get("device", usual), devices)
    if number is None or "layout" in given:
        raise InputError("devices", "missing; allowed: how many devices, and no layout")
    return layouts(partial(estimate, model), number, given)


def _layout(layout: object, mode: str, devices: int | None) -> Layout:
    """A layout from text, a table or a Layout, checked against the number of devices. Raises InputError."""
    from .layout import layout as as_layout

    spread = as_layout(layout, train=mode == "train", devices=devices)
    if devices is not None and any_of(spread.devices != devices):
        allowed = f"the layout's {shown(spread.devices)}, or no layout"
        raise wrong("devices", devices, allowed)
    return spread


def _sizes(**given: Size) -> dict[str, Size]:
    """The sizes that are given, checked. Raises InputError."""
    return {name: sizes(name, x) for name, x in given.items() if x is not None}


def _one_of(**sizes: Size) -> Size:
    """The size that is given by one of its names. Raises InputError where they contradict each other."""
    given = {name: x for name, x in sizes.items() if x is not None}
    if len(given) > 1 and len({str(x) for x in given.values()}) > 1:
        raise InputError(list(given)[1], f"given together with {next(iter(given))}; allowed: one of the two")
    return next(iter(given.values()), None)


def _chosen(usual: Mapping[str, Any], asked: Mapping[str, Any], network: Named | Ready) -> Any:
    """The techniques' settings: the stack's and those that are asked for. Raises InputError."""
    try:
        return chosen({**usual, **asked})
    except InputError as error:
        name = error.field
        if name in fields() or name not in asked:
            raise
    own = network.settings.fields if isinstance(network, Named) else {}
    if name in own:
        config = {k: v for k, v in asked.items() if k in own and k not in fields()}
        raise InputError(name, f"the network's own; allowed: config={shown(config, 200)}") from None
    if name in (Estimate.priced.__kwdefaults__ or ()):
        raise InputError(name, f"allowed: of an answer, estimate(...).priced({name}=...)") from None
    known = {*fields(), *own, *(estimate.__kwdefaults__ or ())}
    raise unknown(name, name, known, "each is a flag of `budget estimate --help`") from None


def usual_device(cluster: object) -> str:
    """The first device that a cluster is sold with; H200 where none is given. Raises InputError."""
    sold: tuple[str, ...] = ()
    if cluster is not None:
        from .cluster import named

        sold = named(cluster).sold
    return next(iter(sold), "h200")


def as_device(device: object) -> Device:
    """A device, by its name or as it is. Raises InputError."""
    loaded = load_device(device) if isinstance(device, str) else device
    if not isinstance(loaded, Device):
        allowed = "a device's name, or a Device; of several: budget.compare"
        raise wrong("device", device, allowed)
    return loaded


@once
def _counted(network: Named | Ready, task: Task) -> Counted:
    """The parts of an estimate that do not depend on the device."""
    model = built(network, task.workload)
    try:
        if task.layout is not None and any_of(task.layout.devices > 1):
            from .answer import spread

            return spread.counted(network, task)
        with_techniques, book, program = plans.apply(model, task)
        counted, hardware = each_flops(book, program)
    except KeyError:
        from .ir.verify import verify

        verify(model)  # names the operator, operand and line of a dimension without a size
        raise
    walked = Walked(program, task.dtype, task.workload.mode == "decode")
    return with_techniques, program, params(with_techniques), counted, hardware, walked, None
