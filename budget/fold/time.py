"""Time: for each kernel the larger of arithmetic over its unit's rate and bytes over bandwidth.

A device's profile (profile.py) says what share of the datasheet's rates each class of kernel
reaches and what a launch costs. On an accelerator the host queues kernels while the device
works: a phase takes the longer of the two. Source: williams-2009 (roofline).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from ..device import Device
from ..dtype import BYTES
from ..model import Block, Model, Node
from ..op import Gemm, Op, Tensor, contraction_flops, elements, gemm, pointwise_flops
from ..profile import Profile
from ..size import Size, maximum, minimum, product


class Work(NamedTuple):
    """What one kernel does, and how often it runs."""

    op: str  # its operator, with the path of the blocks around it
    phase: str
    kind: str  # class of the time model: matmul, conv, attention, pointwise
    contraction: Size  # FLOPs of contractions
    pointwise: Size  # FLOPs of everything else
    bytes: Size
    launches: int
    times: Size
    gemm: Gemm | None = None


class Timed(NamedTuple):
    """A kernel with its time: seconds for all of its runs, and what bounds it."""

    work: Work
    seconds: Size
    bound: str  # compute, memory, launch ("" for arrays)


class Times(NamedTuple):
    """Seconds by phase; `overhead` is how much longer the host took than the device."""

    forward: Size
    backward: Size
    optimizer: Size
    overhead: Size
    step: Size
    kernels: tuple[Timed, ...]


def works(nodes: Iterable[Node], dtype: str, compiled: bool = False, times: Size = 1) -> Iterator[Work]:
    """Every kernel of a program: operators, or neighbours fused into one; views cost nothing.

    compiled: neighbours that are no contractions run as one kernel, as a compiler fuses them.
    """
    pending: list[Op] = []
    for node in nodes:
        if isinstance(node, Op) and not node.outs:
            continue  # declares what is there: nothing runs
        if pending and (isinstance(node, Block) or _key(node, compiled) != _key(pending[0], compiled)):
            yield _work(pending, dtype, compiled, times)
            pending = []
        if isinstance(node, Block):
            yield from works(node.body, dtype, compiled, times * node.count)
        elif _key(node, compiled)[0]:
            pending.append(node)
        elif not node.rule.view:
            yield _work([node], dtype, compiled, times)
    if pending:
        yield _work(pending, dtype, compiled, times)


def _key(o: Op, compiled: bool) -> tuple[str, str]:
    """What neighbours must share to run as one kernel; an empty name runs alone."""
    pointwise = "pointwise" if compiled and o.kind != "contract" and o.phase != "optimizer" else ""
    return o.kernel or pointwise, o.phase


def _work(ops: list[Op], dtype: str, compiled: bool, times: Size) -> Work:
    first = ops[0]
    rule = first.rule
    launches = rule.back_launches if first.phase == "backward" and first.kind != "contract" else rule.launches
    moved: dict[str, Size] = {}
    for o in ops:
        for t in (*o.ins, *o.outs):
            if not t.on_chip:
                moved.setdefault(t.name, moved_bytes(t, o, dtype))
    fused = len(ops) > 1 or compiled
    return Work(
        first.of or first.name,
        first.phase,
        first.kernel or _kind(first),
        sum(contraction_flops(o) for o in ops),
        sum(pointwise_flops(o) for o in ops),
        sum(moved.values()) * (1 if fused else launches),
        1 if fused else launches,
        times,
        gemm(first) if len(ops) == 1 else None,
    )


def _kind(o: Op) -> str:
    if o.kind != "contract":
        return "pointwise"
    return "conv" if any("+" in axis for t in (*o.ins, *o.outs) for axis in t.dims) else "matmul"


def moved_bytes(t: Tensor, o: Op, dtype: str) -> Size:
    """Bytes of a tensor that an operator moves: of a picked dimension (an embedding's rows, the
    experts) only what is picked, at most all of it."""
    picked = next((d[1:] for d in t.dims if d[0] == "~"), None)
    size = BYTES[t.dtype or dtype]
    n = elements(t, o.sizes)
    if picked is None or t.name.startswith("d:"):
        return n * size
    choices = product(o.sizes[d] for d in o.out.dims if d not in t.dims and "+" not in d)
    return minimum(o.sizes[picked], choices) * (n / o.sizes[picked]) * size


def kernel_time(w: Work, device: Device, profile: Profile, dtype: str) -> tuple[Size, str]:
    """Seconds of one run of a kernel, and what bounds it."""
    efficiency = profile.efficiency.get(w.kind, profile.efficiency["matmul"])
    arithmetic = (
        w.contraction / (device.rate(dtype) * efficiency)
        + w.pointwise / (device.rate("vector") * profile.efficiency["pointwise"])
    )
    traffic = w.bytes / (device.bandwidth * profile.efficiency["memory"])
    seconds = maximum(arithmetic, traffic) + w.launches * profile.launch_s
    if hasattr(seconds, "shape") or hasattr(seconds, "free_symbols"):
        return seconds, ""
    launch = w.launches * profile.launch_s
    return seconds, "launch" if launch > max(arithmetic, traffic) else "compute" if arithmetic > traffic else "memory"


def time(model: Model, device: Device, profile: Profile, dtype: str, compiled: bool = False) -> Times:
    """Seconds of one run of a program on one device."""
    kernels = []
    sums: dict[str, Size] = {"forward": 0.0, "backward": 0.0, "optimizer": 0.0}
    host: Size = 0.0
    for w in works(model.nodes, dtype, compiled):
        seconds, bound = kernel_time(w, device, profile, dtype)
        kernels.append(Timed(w, seconds * w.times, bound))
        sums[w.phase] = sums[w.phase] + seconds * w.times
        host = host + profile.dispatch_s * w.launches * w.times
    total = sum(sums.values())
    step = maximum(total, host)
    return Times(**sums, overhead=step - total, step=step, kernels=tuple(kernels))


def by_kind(times: Times) -> Mapping[str, Size]:
    """Share of the kernels' time by class."""
    shares: dict[str, Size] = {}
    for k in times.kernels:
        shares[k.work.kind] = shares.get(k.work.kind, 0) + k.seconds
    total = sum(shares.values())
    return {kind: s / total for kind, s in shares.items()}
