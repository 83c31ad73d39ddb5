"""Time: for each kernel the larger of arithmetic over its unit's rate and bytes over bandwidth.

A device's profile (device/profile.py) has the fraction of the datasheet's rates that each class of kernel
reaches, what it loses on small products, and what a launch costs. An accelerator's host queues
kernels while the device works: a step takes the longer of the two. A processor is its own host:
the two add up. Source: williams-2009 (roofline).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..config import FUSED
from ..device import Device
from ..device.kernel_class import BACKWARD, WIDENED, Dispatch, KernelClass, Profile
from ..device.peaks import four_bits, widening
from ..device.software import host_bandwidth
from ..dtype import BYTES, full_name
from ..ir import Model
from ..named import NamedTuple
from ..size import Size, is_symbol, maximum, minimum
from .host import between, calling, collectives, decoded, last
from .kernels import Work, works
from .pages import Loop, loop
from .recurrent import at_once
from .roofline import Rates, arithmetic, traffic
from .traffic import NOBODY, reads


class Timed(NamedTuple):
    """A kernel with its time: seconds for all of its runs, and what bounds it."""

    work: Work
    seconds: Size
    bound: str  # compute, memory, launch ("" for arrays)
    starting: Size = 0.0  # the seconds again, where an accelerator starts it for longer than it runs


class Times(NamedTuple):
    """Seconds by phase; `overhead` is how much longer the host took than the device.

    On several devices, those of the slowest stage, and what it waits for collectives and for other stages.
    """

    forward: Size
    backward: Size
    optimizer: Size
    overhead: Size
    step: Size
    kernels: tuple[Timed, ...]
    communication: Size = 0.0
    bubble: Size = 0.0
    alternate: bool = False  # host and device wait for each other, so that all of the host's time is overhead


def rates(device: Device, profile: Profile, dtype: str) -> Rates:
    """What a byte and an operation cost on a device. Raises InputError for a dtype without a rate."""
    shares = (profile.memory, *(share for _, share in profile.steps))
    seconds = [1 / (device.bandwidth * share) for share in shares]
    steps = tuple(
        (size * size, slow - fast)
        for (size, _), fast, slow in zip(profile.steps, seconds, seconds[1:], strict=False)
    )
    eight, formats = 1 / device.rate("fp8"), ("fp8", "fp4") if "fp4" in device.flops else ("fp8",)
    # In most engines' prompts products in fp4 reach no more than fp8's rate; in training they do.
    four = eight / four_bits(device)
    fp4 = {"fp4": four} if profile.fp4 and "fp4" in device.flops else {}
    whole = {"int8": 1 / device.rate("int8")} if "int8" in device.flops else {}
    return Rates(
        profile.forms,
        flop=1 / device.rate(dtype),
        narrow={**dict.fromkeys(formats, eight), **fp4, "nvfp4": four, **whole},
        link=1 / host_bandwidth(device),
        vector=1 / device.rate("vector"),
        byte=seconds[0],
        steps=steps,
        launch=profile.launch_s,
        dispatch=profile.dispatch,
        serial=profile.serial,
        sms=device.sms or 1,
        widens=widening(device),
        aligned=max(int(16 // BYTES[full_name(dtype)]), 1),
        copies=full_name(dtype) != "float32" or profile.forms["conv"].units != "",
        fresh=profile.fresh / device.bandwidth,
        turn=profile.turn,
        calls=profile.calls,
    )


def running(r: Rates, execution: str) -> Rates:
    """The rates of an execution: only engines wait for the host between two tokens, and where a graph is
    replayed the host is waited for then alone.
    """
    if execution not in FUSED or r.serial:
        return r._replace(turn=(0.0, 0.0))
    if execution != "graph":
        return r
    forms = {name: form._replace(waits=False) for name, form in r.forms.items()}
    return r._replace(dispatch=Dispatch(0, 0, 0), forms=forms)


def kernel_time(w: Work, r: Rates) -> tuple[Size, str]:
    """Seconds of one run of a kernel, and what bounds it ("" for arrays and symbols)."""
    seconds, bound, _ = _run(w, r)
    return seconds, bound


def _run(w: Work, r: Rates) -> tuple[Size, str, Size]:
    """The same, and the seconds of it in which the kernel starts."""
    form = r.forms[form_of(w, r)]
    computing, moving = arithmetic(w, form, r), traffic(w, form, r)
    launch = starts(w, form) * (_start(form, r) + form.start_s)
    if r.serial:
        launch = launch + calling(w, form, r)
    busy = maximum(computing, moving)
    if form.overlap < 1:
        busy = busy + (1 - form.overlap) * minimum(computing, moving)
    if hasattr(busy, "shape") or is_symbol(busy):
        return busy + launch, "", launch
    bound = "launch" if launch > busy else "compute" if computing > moving else "memory"
    return busy + launch, bound, launch


def runs(w: Work, r: Rates) -> bool:
    """Whether a device runs a kernel: a processor needs none of the kernels around a convolution, and an
    accelerator copies pictures only for tensor units.
    """
    return not w.beside or not (r.serial or (w.own == "relaid" and not r.copies))


def form_of(w: Work, r: Rates) -> str:
    """The class whose numbers a kernel takes: that of its own kind of operator (or of the kind's gradient),
    if the profile has it; else its form, or the form for widened weights where the device cannot multiply in
    few bits.
    """
    if w.phase == "backward" and (gradient := w.own + BACKWARD) in r.forms:
        return gradient
    widened = w.narrow and w.narrow not in r.narrow
    return w.own if w.own in r.forms else WIDENED.get(w.form, w.form) if widened else w.form


def starts(w: Work, form: KernelClass) -> Size:
    """How many kernels are started for an operator: one for each expert where experts have kernels of their
    own.
    """
    return w.launches * w.groups if form.apart else w.launches


def _starting(seconds: Size, launch: Size, r: Rates) -> Size:
    """The seconds of a kernel whose start takes longer than the rest; else, and of symbols, 0."""
    if r.serial or is_symbol(seconds):
        return 0.0
    return seconds * (2 * launch > seconds)


def _start(form: KernelClass, r: Rates) -> float:
    """Seconds to start a kernel: from the network's code, or from a library's own loop."""
    return form.loop_s or r.launch


def time(model: Model, device: Device, profile: Profile, dtype: str, execution: str = "eager") -> Times:
    """Seconds of one run of a program on one device, `eager`, `compiled` or as a `graph`."""
    r = running(rates(device, profile, dtype), execution)
    read = NOBODY if execution == "eager" else reads(model)
    kernels = _timed(tuple(works(model.nodes, dtype, execution, read=read)), r)
    phases = _phases(kernels)
    stepped = loop(model, dtype) if r.serial else Loop()
    beside = collectives(model, dtype, r)
    overhead = _overhead(kernels, stepped, phases, r, beside) + between(r, decoded(model))
    step = sum(phases.values()) + overhead
    alternate = any(r.turn) or _alternate(kernels, r)
    return Times(**phases, overhead=overhead, step=step, kernels=kernels, alternate=alternate)


def total(kernels: Iterable[Work], stepped: Loop, device: Device, profile: Profile, dtype: str) -> Size:
    """Seconds of one run of given kernels. stepped: the weights that an optimizer updates."""
    r = rates(device, profile, dtype)
    timed = _timed(tuple(kernels), r)
    phases = _phases(timed)
    return sum(phases.values()) + _overhead(timed, stepped, phases, r)


def _timed(kernels: Sequence[Work], r: Rates) -> tuple[Timed, ...]:
    kernels = [w for w in (kernels if r.serial else at_once(kernels)) if runs(w, r)]
    if r.steps:
        r = r._replace(resident=sum(w.weights * w.times for w in kernels if w.phase == "forward"))
    timed = []
    for w in kernels:
        seconds, bound, launch = _run(w, r)
        timed.append(Timed(w, seconds * w.times, bound, _starting(seconds, launch, r) * w.times))
    return tuple(timed)


def _phases(kernels: Iterable[Timed]) -> dict[str, Size]:
    """Seconds of the device by phase."""
    sums: dict[str, Size] = {"forward": 0.0, "backward": 0.0, "optimizer": 0.0}
    for k in kernels:
        sums[k.work.phase] = sums[k.work.phase] + k.seconds
    return sums


def _overhead(
    kernels: Iterable[Timed], stepped: Loop, phases: Mapping[str, Size], r: Rates, beside: Size = 0.0
) -> Size:
    """How much longer the host takes than the device. On a processor: a training step's own overhead,
    and its optimizer's loop, which takes one weight after the other. beside: the host's seconds for the
    forward pass besides its kernels.
    """
    if r.serial:
        steps = [k.work for k in kernels if k.work.phase == "optimizer" and k.work.op == "optimizer"]
        if not steps:
            return 0.0
        host = r.dispatch.step + (stepped.weights - 1) * calling(steps[0], KernelClass(), r)
        return host + r.fresh * stepped.new(steps[0].own)
    host = dict.fromkeys(phases, 0.0)
    link = dict.fromkeys(phases, 0.0)  # copies to and from the host, beside the phase's own kernels
    for w, *_ in kernels:
        form = r.forms[form_of(w, r)]
        host[w.phase] = host[w.phase] + (calling(w, form, r) + _start(form, r) * starts(w, form)) * w.times
        link[w.phase] = link[w.phase] + w.host * r.link * w.times
    host["forward"] = host["forward"] + beside
    device = {phase: maximum(seconds, link[phase]) for phase, seconds in phases.items()}
    busy, started = sum(device.values()), sum(host.values())
    if _alternate(kernels, r):
        return busy + started - sum(phases.values())
    late = last(started, device["optimizer"], host["optimizer"])
    return maximum(busy, late) - sum(phases.values())


def _alternate(kernels: Iterable[Timed], r: Rates) -> bool:
    """Whether host and device wait for each other, so that neither runs ahead."""
    return not r.serial and any(r.forms[k.work.form].waits for k in kernels)


def bound(times: Times) -> str:
    """What bounds most of the time: compute, memory, launch, or the host where the device waits for it; ""
    for arrays.
    """
    spent: dict[str, Size] = {}
    for k in times.kernels:
        spent[k.bound] = spent.get(k.bound, 0.0) + k.seconds
    if "" in spent or not spent:
        return ""
    others = sum(spent.values()) if times.alternate else 0
    return "host" if times.overhead > others else max(spent, key=lambda name: float(spent[name]))


def waiting(times: Times) -> Size:
    """The part of a time for which a device waits: for the host, or for kernels to start that then take less
    than their start.
    """
    return minimum((times.overhead + sum(k.starting for k in times.kernels)) / times.step, 1.0)


def moved(times: Times) -> Size:
    """Bytes that all kernels read and write."""
    return sum(k.work.bytes * k.work.times for k in times.kernels)


def by_kind(times: Times) -> Mapping[str, Size]:
    """The fraction of the kernels' time by class."""
    shares: dict[str, Size] = {}
    for k in times.kernels:
        shares[k.work.kind] = shares.get(k.work.kind, 0) + k.seconds
    total = sum(shares.values())
    return {kind: s / total for kind, s in shares.items()}
