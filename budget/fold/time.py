"""Time: for each kernel the larger of arithmetic over its unit's rate and bytes over bandwidth.

A device's profile (profile.py) says what share of the datasheet's rates each class of kernel
reaches, what it loses on small products, and what a launch costs. An accelerator's host queues
kernels while the device works: a step takes the longer of the two. A processor is its own host:
the two add up. Source: williams-2009 (roofline).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from ..device import Device
from ..dtype import BYTES
from ..model import Block, Model, Node
from ..op import HOST, Gemm, Op, Tensor, contraction_flops, elements, gemm, pointwise_flops
from ..profile import Dispatch, Form, Profile
from ..size import Size, ceil_div, maximum, minimum, product
from .count import training

# Kinds that walk over their input more than once, as softmax does; rule.py counts their reductions
# only where an all-reduce would be needed.
CELLS = ("lstm_cell", "gru_cell")  # a recurrence over these is a loop within the framework
NORMS = ("batch_norm", "group_norm", "instance_norm", "normalize")


class Work(NamedTuple):
    """What one kernel does, and how often it runs."""

    op: str  # its operator, with the path of the blocks around it
    phase: str
    kind: str  # what it is called in a breakdown: matmul, conv, attention, pointwise
    contraction: Size  # FLOPs of contractions
    pointwise: Size  # FLOPs of everything else
    bytes: Size
    launches: int
    times: Size
    form: str  # class of the time model: a key of Profile.forms
    own: str = ""  # the operator's kind, which may have a form of its own
    gemm: Gemm | None = None
    narrow: bool = False  # a product in float8
    host: Size = 0  # bytes that cross the host's link


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


def works(
    nodes: Iterable[Node], dtype: str, compiled: bool = False, times: Size = 1, native: bool = False
) -> Iterator[Work]:
    """Every kernel of a program: operators, or neighbours fused into one; views cost nothing.

    compiled: neighbours that are no contractions run as one kernel, as a compiler fuses them.
    native: the framework's own loop starts them, not the network's code.
    """
    pending: list[Op] = []
    for node in nodes:
        if isinstance(node, Op) and not node.outs:
            continue  # declares what is there: nothing runs
        if pending and (isinstance(node, Block) or _key(node, compiled) != _key(pending[0], compiled)):
            yield _work(pending, dtype, compiled, times, native)
            pending = []
        if isinstance(node, Block):
            inner = any(isinstance(n, Op) and n.kind in CELLS for n in node.body)
            yield from works(node.body, dtype, compiled, times * node.count, inner)
        elif _key(node, compiled)[0]:
            pending.append(node)
        elif not node.rule.view:
            yield _work([node], dtype, compiled, times, native)
    if pending:
        yield _work(pending, dtype, compiled, times, native)


def _key(o: Op, compiled: bool) -> tuple[str, str]:
    """What neighbours must share to run as one kernel; an empty name runs alone."""
    pointwise = "pointwise" if compiled and o.kind != "contract" and o.phase != "optimizer" else ""
    return o.kernel or pointwise, o.phase


def _work(ops: list[Op], dtype: str, compiled: bool, times: Size, native: bool) -> Work:
    first = ops[0]
    rule = first.rule
    fused = len(ops) > 1 or compiled
    launches = rule.back_launches if first.phase == "backward" and first.kind != "contract" else rule.launches
    launches = 1 if fused or native else launches
    moved: dict[str, Size] = {}
    host: Size = 0
    for o in ops:
        read = {t.name for t in o.ins}
        for t in o.ins:
            if t.role == HOST:
                host = host + moved_bytes(t, o, dtype)
            elif not t.on_chip:
                moved.setdefault(t.name, moved_bytes(t, o, dtype))
        for t in o.outs:
            if t.role == HOST:
                host = host + moved_bytes(t, o, dtype)
            elif not t.on_chip:  # what is read and written moves twice
                moved.setdefault(t.name + "'" * (t.name in read), moved_bytes(t, o, dtype))
    traffic = sum(moved.values())
    if launches > 1:  # each reads and writes about what the operator makes
        traffic = maximum(traffic, 2 * launches * moved_bytes(first.out, first, dtype))
    kind = first.kernel or _kind(first)
    return Work(
        first.of or first.name,
        first.phase,
        kind,
        sum(contraction_flops(o) for o in ops),
        sum(pointwise_flops(o) for o in ops),
        traffic,
        launches,
        times,
        "recurrent" if native else _form(first, kind),
        first.kind if kind == "pointwise" and not fused and not native else "",
        gemm(first) if len(ops) == 1 else None,
        narrow=any(t.dtype == "float8" for t in first.ins),
        host=host,
    )


def _kind(o: Op) -> str:
    if o.kind != "contract":
        return "pointwise"
    return "conv" if any("+" in axis for t in (*o.ins, *o.outs) for axis in t.dims) else "matmul"


def _form(o: Op, kind: str) -> str:
    """The class of the time model: as in a breakdown, but finer."""
    if kind in ("conv", "attention") and o.phase == "backward":
        return f"{kind}_backward"
    if kind != "pointwise":
        return kind if kind in ("matmul", "conv", "attention") else "pointwise"
    if o.phase == "optimizer":
        return "optimizer"
    if o.kind in ("gather", "embedding_bag"):
        return "gather"
    return "reduction" if o.rule.reduces or o.rule.walks != "out" or o.kind in NORMS else "pointwise"


def moved_bytes(t: Tensor, o: Op, dtype: str) -> Size:
    """Bytes of a tensor that an operator moves: of a picked dimension (an embedding's rows, the
    experts) only what is picked, at most all of it.
    """
    picked = next((d[1:] for d in t.dims if d[0] == "~"), None)
    size = BYTES[t.dtype or dtype]
    n = elements(t, o.sizes)
    if picked is None or t.name.startswith("d:"):
        return n * size
    choices = product(o.sizes[d] for d in o.out.dims if d not in t.dims and "+" not in d)
    return minimum(o.sizes[picked], choices) * (n / o.sizes[picked]) * size


class Rates(NamedTuple):
    """A device and a profile as a kernel's time needs them: seconds for one of each."""

    forms: Mapping[str, Form]
    flop: float  # of a contraction at the device's peak
    narrow: float  # of one in float8
    link: float  # of a byte to or from the host's memory
    vector: float  # of pointwise arithmetic at the peak
    byte: float  # moved, of little data
    steps: tuple[tuple[float, float], ...]  # (square of a cache's size, seconds more a byte beyond it)
    launch: float
    dispatch: Dispatch
    serial: bool
    sms: int


def rates(device: Device, profile: Profile, dtype: str) -> Rates:
    """What a byte and an operation cost on a device. Raises InputError for a dtype without a rate."""
    shares = (profile.memory, *(share for _, share in profile.steps))
    seconds = [1 / (device.bandwidth * share) for share in shares]
    steps = tuple(
        (size * size, slow - fast)
        for (size, _), fast, slow in zip(profile.steps, seconds, seconds[1:], strict=False)
    )
    return Rates(
        profile.forms, 1 / device.rate(dtype), 1 / device.rate("fp8"), 1 / _host_bandwidth(device),
        1 / device.rate("vector"), seconds[0], steps, profile.launch_s, profile.dispatch, profile.serial, device.sms or 1,
    )  # fmt: skip


def _host_bandwidth(device: Device) -> float:
    """Bytes/s to or from the host, one way: PCIe of 16 lanes, the fifth generation from 2022 on.

    Source: pcie.
    """
    return 50e9 if (device.year or 0) >= 2022 else 25e9


def kernel_time(w: Work, r: Rates) -> tuple[Size, str]:
    """Seconds of one run of a kernel, and what bounds it ("" for arrays and symbols).

    The seconds of a byte rise where data outgrow a cache, halfway at its size c: x^2 / (x^2 + c^2).
    """
    form = r.forms.get(w.own) or r.forms[w.form]
    arithmetic = w.contraction * ((r.narrow if w.narrow else r.flop) / form.share)
    if w.gemm is not None:
        arithmetic = arithmetic * _loss(w.gemm, form, r.sms)
    arithmetic = arithmetic + w.pointwise * (r.vector / form.vector)
    byte: Size = r.byte
    square = w.bytes * w.bytes
    for size, more in r.steps:
        byte = byte + more * square / (square + size)
    traffic = w.bytes * byte * (form.traffic if w.gemm is None else _packing(w.gemm, form))
    launch = w.launches * (r.launch + form.start_s)
    if r.serial:
        launch = launch + _host(w, form, r)
    busy = maximum(arithmetic, traffic)
    if form.overlap < 1:
        busy = busy + (1 - form.overlap) * minimum(arithmetic, traffic)
    if hasattr(busy, "shape") or hasattr(busy, "free_symbols"):
        return busy + launch, ""
    return busy + launch, "launch" if launch > busy else "compute" if arithmetic > traffic else "memory"


def _host(w: Work, form: Form, r: Rates) -> Size:
    """Seconds of the host for one run of a kernel's operator, besides its launches."""
    if w.phase == "forward":
        return 0.0 if w.form == "recurrent" else r.dispatch.forward + form.host_s
    return r.dispatch.backward if w.phase == "backward" else r.dispatch.optimizer * w.launches


def _packing(g: Gemm, form: Form) -> Size:
    """How often a product moves its operands: libraries rearrange them first, unless one is a vector."""
    if form.traffic == 1:
        return 1.0
    return 1 + (form.traffic - 1) * (1 - 1 / g.m) * (1 - 1 / g.n)


def _loss(g: Gemm, form: Form, sms: int) -> Size:
    """How many times longer than at its peak a product takes: small sizes, and the last wave's idle
    units. Where there are fewer tiles than units, K is taken to be split among them.
    """
    m, n, k = form.edge
    loss = (1 + m / g.m) * (1 + n / g.n) * (1 + k / g.k)
    if form.tile:
        rows, columns = form.tile
        tiles = maximum(g.batch * ceil_div(g.m, rows) * ceil_div(g.n, columns), sms)
        loss = loss * ceil_div(tiles, sms) * sms / tiles
    return loss


def time(model: Model, device: Device, profile: Profile, dtype: str, compiled: bool = False) -> Times:
    """Seconds of one run of a program on one device."""
    r = rates(device, profile, dtype)
    kernels = []
    sums: dict[str, Size] = {"forward": 0.0, "backward": 0.0, "optimizer": 0.0}
    for w in works(model.nodes, dtype, compiled):
        seconds, bound = kernel_time(w, r)
        kernels.append(Timed(w, seconds * w.times, bound))
        sums[w.phase] = sums[w.phase] + seconds * w.times
    weights = sum(copies for _, _, copies in training(model)) if r.serial else 0
    device_s = sum(sums.values())
    overhead = _overhead([k.work for k in kernels], weights, device_s, r)
    return Times(**sums, overhead=overhead, step=device_s + overhead, kernels=tuple(kernels))


def total(kernels: Iterable[Work], weights: Size, device: Device, profile: Profile, dtype: str) -> Size:
    """Seconds of one run of kernels that are known already; `weights` as an optimizer steps them."""
    kernels = tuple(kernels)
    r = rates(device, profile, dtype)
    device_s = sum(kernel_time(w, r)[0] * w.times for w in kernels)
    return device_s + _overhead(kernels, weights, device_s, r)


def _overhead(kernels: Iterable[Work], weights: Size, device_s: Size, r: Rates) -> Size:
    """How much longer the host takes than the device. On a processor: a training step's own overhead,
    and its optimizer's loop, which takes one weight after the other.
    """
    if r.serial:
        stepped = [w for w in kernels if w.phase == "optimizer" and w.op == "optimizer"]
        return r.dispatch.step + (weights - 1) * _host(stepped[0], Form(), r) if stepped else 0.0
    host: Size = 0.0
    link: Size = 0.0  # copies to and from the host, beside the kernels
    for w in kernels:
        form = r.forms.get(w.own) or r.forms[w.form]
        host = host + (_host(w, form, r) + r.launch * w.launches) * w.times
        link = link + w.host * r.link * w.times
    return maximum(maximum(device_s, host), link) - device_s


def by_kind(times: Times) -> Mapping[str, Size]:
    """Share of the kernels' time by class."""
    shares: dict[str, Size] = {}
    for k in times.kernels:
        shares[k.work.kind] = shares.get(k.work.kind, 0) + k.seconds
    total = sum(shares.values())
    return {kind: s / total for kind, s in shares.items()}
