"""What an estimate for several devices needs in addition: each stage's program, process groups, a cluster."""

from __future__ import annotations

from ..cluster import Cluster, joining
from ..config import Task
from ..device import Device
from ..device.generation import nearest
from ..dtype import full_name
from ..errors import InputError
from ..fold.count import Flops, Params, each_flops, params
from ..fold.memory import Walked
from ..fold.pipeline import check as check_schedule
from ..fold.step import Rank, Spread
from ..ir import Model
from ..layout import Layout
from ..plan.ranks import spread
from ..read.source import Named, Ready, built
from ..size import any_of, exact_div, is_zero, once
from ..stack import AXES, Stack

# The network, one device's program; parameters, the model's FLOPs, the hardware's, the walk over its memory.
Counted = tuple[Model, Model, Params, Flops, Flops, Walked]


def counted(network: Named | Ready, task: Task) -> tuple[*Counted, Spread]:
    """What several devices compute and hold together, and the program of each. Raises InputError."""
    layout, micro = task.layout, task.techniques.used.get("accumulate", 1)
    if hasattr(layout.vpp, "shape"):  # how many stages a device runs
        raise InputError("layout.vpp", "got an array; allowed: one number")
    check_schedule(layout, micro, task.workload.mode == "train")
    if any_of(layout.ep > 1):
        network = network.routed()
    ranks, counts = _ranks(network, task._replace(layout=layout.unscheduled))
    return *counts, Spread(ranks, layout, micro, task.dtype)


@once
def _ranks(network: Named | Ready, task: Task) -> tuple[tuple[Rank, ...], Counted]:
    """The program of one device of each different stage, whatever the schedule, and what they count."""
    layout = task.layout
    model, book, ranks = spread(built(network, task.workload), task)
    flops, *each = each_flops(book, *(rank.program for rank in ranks))
    copies = exact_div(layout.devices, layout.pp)
    stages = (hardware.times(copies * len(rank.stages)) for rank, hardware in zip(ranks, each, strict=True))
    first = ranks[0].program
    walked = Walked(first, task.dtype, task.workload.mode == "decode")
    return ranks, (model, first, params(model), flops.times(layout.dp), Flops.total(stages), walked)


def kept_beside(several: Spread, software: Stack, task: Task) -> Spread:
    """The same with what the software keeps in memory on several devices, in training."""
    if task.workload.mode != "train":
        return several
    grads = task.techniques.used.get("grad_dtype", "")
    summed = grads and full_name(grads) != task.dtype
    kept = tuple(name for name in software.keeps if name != "gradients" or summed)
    if "buckets" in kept and is_zero(task.layout.zero) and any_of(task.layout.dp > 1):
        several = several._replace(ranks=tuple(r._replace(buckets=True) for r in several.ranks))
    return several._replace(keeps=kept)


def groups(layout: Layout, software: Stack) -> float:
    """The number of a process's communication groups: one for each axis, and the software's own."""
    axes = [axis for axis in AXES if any_of(getattr(layout, axis) > 1)]
    return len(axes) + sum(software.groups.get(axis, 0) for axis in ("", *axes))


def cluster_of(device: Device, cluster: object, software: Stack) -> Cluster:
    """What joins the devices, as a stack uses it. Raises InputError."""
    all_reduce = nearest(software.all_reduce, device.generation) if software.all_reduce else None
    return joining(device, cluster)._replace(all_reduce=all_reduce, call_s=software.call_us * 1e-6)
