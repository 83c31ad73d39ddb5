"""Rows of one stack on one device side by side, and the seconds that a profile predicts for them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import attrgetter

import numpy as np

from budget import device as devices
from budget import stack as stacks
from budget.device import software
from budget.device.kernel_class import KernelClass, Profile
from budget.device.profile import FOLDER, load
from budget.fold.host import between, calls, last
from budget.fold.kernels import Work
from budget.fold.roofline import Rates
from budget.fold.time import form_of, kernel_time, rates, running, runs, starts
from budget.named import Any, NamedTuple

from .measured import Case, Kernels, together

Alone = Callable[[KernelClass, float], Any]  # a kernel's seconds by part: its numbers, a byte's seconds
OF_PARTS = ("times", "stretch", "waits", "sequences")  # fields of Kernels, of which a Batch has arrays


class Batch(NamedTuple):
    """Parts of rows of one stack on one device, in one dtype and one execution."""

    stack: str
    version: str  # as in a Case
    device: devices.Device
    dtype: str
    execution: str
    attention: str
    mode: str
    kernels: tuple[tuple[str, Alone, bool], ...]  # of each whose numbers it has; whether an optimizer's
    starts: Any  # of kernels, in each part
    calls: tuple[Any, ...]  # what its host is asked for, by phase
    alternate: Any  # whether its host waits for the device, too
    rows: Any  # of which it is a part
    times: Any
    stretch: Any
    waits: Any
    sequences: Any


def batches(cases: Sequence[Case]) -> list[Batch]:
    """The parts of rows, in batches of one stack and version of it, device, dtype, execution (a prompt's may
    differ from a token's) and attention.
    """
    groups: dict[Any, tuple[Case, list[tuple[int, Kernels]]]] = {}
    for i, c in enumerate(cases):
        for part in c.parts:
            ran = c.stack, c.version, c.attention, c.dtype, c.trains, part.execution
            key = *ran, c.device.id, c.device.bandwidth
            groups.setdefault(key, (c, []))[1].append((i, part))
    common = load(os.path.join(FOLDER, "datasheet.json"))
    return [_batch(c, parts, common) for c, parts in groups.values()]


def _batch(c: Case, parts: Sequence[tuple[int, Kernels]], common: Profile) -> Batch:
    execution = parts[0][1].execution
    stack = stacks.load(c.version or c.stack).run(c.mode, execution, c.attention)
    profile = software.profile(common, c.device, stack, c.dtype, mode=c.mode)
    r = running(rates(c.device, profile, c.dtype), execution)
    ran = ((w, place) for place, (_, part) in enumerate(parts) for w in part.works if runs(w, r))
    works = [*together(ran)]

    def each(sizes: Callable[[Work], Any], phase: str = "") -> Any:
        """The sum over the kernels of each part."""
        some = ((w, place) for w, place in works if phase in ("", w.phase))
        return sum((_by_part(sizes(w) * w.times, place, parts) for w, place in some), np.zeros(len(parts)))

    # The host's seconds come before an operator, those of an optimizer before each of its kernels.
    host: dict[str, Callable[[Work], Any]] = {
        "forward": lambda w: calls(w, r),
        "backward": attrgetter("calls"),
        "optimizer": attrgetter("launches"),
    }
    return Batch(
        stack=c.stack,
        version=c.version,
        device=c.device,
        dtype=c.dtype,
        execution=execution,
        attention=c.attention,
        mode=c.mode,
        kernels=tuple((*_kernel(w, place, parts, r), w.phase == "optimizer") for w, place in works),
        starts=each(lambda w: starts(w, r.forms[w.form])),
        calls=tuple(each(size, phase) for phase, size in host.items()),
        alternate=each(lambda w: float(r.forms[w.form].waits)) > 0,
        rows=np.array([i for i, _ in parts]),
        **{f: np.array([getattr(part, f) for _, part in parts]) for f in OF_PARTS},
    )


def _by_part(sizes: Any, place: Any, parts: Sequence[Any]) -> Any:
    return np.bincount(place, sizes, len(parts))


def _kernel(w: Work, place: Any, parts: Sequence[Any], usual: Rates) -> tuple[str, Alone]:
    """The class whose numbers a kernel takes, and its seconds without the launch. These are remembered, as a
    slope changes numbers that few kernels take.
    """
    name = form_of(w, usual)

    @lru_cache(maxsize=4)
    def alone(form: KernelClass, byte: float) -> Any:
        r = usual._replace(forms={name: form}, byte=byte, launch=0.0)
        return _by_part(kernel_time(w, r)[0] * w.times, place, parts)

    return name, alone


def seconds(b: Batch, profile: Profile, norm: float = math.inf) -> Any:
    """The predicted seconds of a batch's parts: the longer of the device's and the host's, or a norm of the
    two; their sum where they wait for each other.
    """
    r = running(rates(b.device, profile, b.dtype), b.execution)
    started = r.launch * b.starts
    alone = [(kernel(r.forms[name], r.byte), steps) for name, kernel, steps in b.kernels]
    device = started + sum(taken for taken, _ in alone)
    host = started + sum(each * calls for each, calls in zip(r.dispatch, b.calls, strict=False))
    late = last(host, sum(taken for taken, steps in alone if steps), r.dispatch.optimizer * b.calls[-1])
    longer, shorter = np.maximum(device, late), np.minimum(device, late)
    if norm < math.inf:
        longer = longer * (1 + (shorter / longer) ** norm) ** (1 / norm)
    longer = np.where(b.alternate, device + host, longer)
    return b.times * (longer * b.stretch + b.waits + between(r, b.sequences))
