"""Which layouts of so many devices there are for a network.

Degrees are whole divisors: tensor parallelism within a node, by heads; pipelines by layers; context
parallelism for long sequences; experts over what data parallelism has; states divided among replicas (ZeRO
1), weights too where there is no pipeline (ZeRO 3). To serve, layers are divided where the software does so,
or where nothing else divides; one sequence is served where no batch is given. Derived.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import gcd

from ..answer import Estimate
from ..ir import SCORES, Model, base, expert_axis, walk
from ..layout import Layout
from ..named import Any, NamedTuple
from ..plan._layers import in_one, is_stack, layers
from ..plan.mesh import heads
from ..stack import ENGINES
from .bounds import Stack

RECOMPUTED = ("none", "selective", "full")  # from the least on
LONG = 16384  # tokens from which on a sequence is divided


class Facts(NamedTuple):
    """What a network, a task and a device allow: the sizes that degrees can divide, and the other choices.

    samples: of a step over all devices; 0 where it is not given. batches: samples of a device at a time.
    by_layers: whether layers may be divided to serve; alone: nothing but layers is divided.
    """

    stack: Stack
    heads: int
    experts: int
    seq: int
    samples: int
    trains: bool
    batches: tuple[int, ...]
    recomputed: tuple[str, ...]
    memory: float  # bytes of a device
    by_layers: bool = False
    alone: bool = False


def facts(one: Estimate, samples: int, batch: int | None, recompute: str) -> Facts:
    """The facts of an estimate's network; batch and recompute: as given, else to be chosen."""
    model, mode = one.model, one.task.workload.mode
    trains, serves = mode == "train", mode in ENGINES
    if serves and batch is None and not samples:
        samples = 1
    divided = (int(groups * each) for kinds in heads(model).values() for groups, each in kinds)
    axes = ((o, expert_axis(t, o)) for o, _ in walk(model.nodes) for t in o.weights)
    experts = [o.sizes[base(axis)] for o, axis in axes if axis]
    return Facts(
        stack=_stack(model),
        heads=gcd(*divided) or 1,
        experts=int(max(experts, default=0)),
        seq=one.length,
        samples=samples,
        trains=trains,
        batches=(1, 2, 4, 8) if batch is None else (batch,),
        recomputed=_recomputed(one) if trains and recompute == "none" else (recompute,),
        memory=float(one.device.usable_bytes),
        by_layers=serves,
        alone=serves and one.stack.by_layers,
    )


def _recomputed(one: Estimate) -> tuple[str, ...]:
    """The choices of recomputation; attention in kernels keeps no scores that `selective` would recompute."""
    written_out = any(o.tag == SCORES and not o.kernel for o, _ in walk(one.program.nodes))
    return tuple(choice for choice in RECOMPUTED if choice != "selective" or written_out)


def _stack(model: Model) -> Stack:
    """The longest stack of a network's layers."""
    sizes = [int(layers(node)) for node in model.nodes]
    longest = sizes.index(max(sizes))
    node = model.nodes[longest]
    period = int(in_one(node)) if is_stack(node) else 1
    return Stack(sum(sizes), sum(sizes[:longest]), sizes[longest], period)


def layouts(devices: int, node: int, network: Facts) -> list[Layout]:
    """The layouts of so many devices, `node` of them in a node, whose degrees divide the sizes of the
    network.
    """
    possible = [] if network.alone else list(_degrees(devices, node, network))
    return [
        Layout(**degrees)
        for degrees in possible or (_by_layers(devices, node, network) if network.by_layers else ())
    ]


def _by_layers(devices: int, node: int, network: Facts) -> Iterator[dict[str, Any]]:
    """Layouts that divide layers to serve, and each layer's heads within a node where the software does
    so.
    """
    for tp in _divisors(network.heads, 1 if network.alone else min(node, devices)):
        pp, left = divmod(devices, tp)
        if not left and pp <= network.stack.layers:
            yield {"tp": tp, "pp": pp, "sp": 0}


def _degrees(devices: int, node: int, network: Facts) -> Iterator[dict[str, Any]]:
    for tp in _divisors(network.heads, min(node, devices)):
        for cp in _divisors(network.seq // LONG, 64) if network.seq >= LONG else (1,):
            for pp in _stages(network.stack.layers, devices // (tp * cp)) if network.trains else (1,):
                dp, left = divmod(devices, tp * cp * pp)
                if left or (network.samples and network.samples % (dp * network.batches[0])):
                    continue
                for ep in _experts(network.experts, tp * cp * dp, node):
                    degrees = {"tp": tp, "cp": cp, "pp": pp, "dp": dp, "ep": ep, "etp": 1 if ep > 1 else 0}
                    if not network.trains:
                        yield {**degrees, "sp": 0}
                        continue
                    yield {**degrees, "zero": 1 if dp * cp > 1 else 0}
                    if pp == 1 and dp > 1:
                        yield {**degrees, "zero": 3}


def _divisors(size: int, most: int) -> Iterable[int]:
    """The divisors up to `most` that are 1, or even: meshes of odd degrees are not laid out."""
    return [n for n in range(1, min(size, most) + 1) if size % n == 0 and (n == 1 or n % 2 == 0)]


def _stages(count: int, most: int) -> Iterable[int]:
    """Stages of a pipeline: divisors of the layers, and powers of two, whose stages may differ by a layer."""
    powers = [2**n for n in range(1, 12) if 2 * 2**n <= count and 2**n <= most]
    return sorted({1, *_divisors(count, most), *powers})


def _experts(experts: int, replicas: int, node: int) -> Iterable[int]:
    """Degrees of ep: all experts on each device, all on each node, or as few a device as possible."""
    if not experts:
        return (1,)
    fit = [n for n in range(1, experts + 1) if experts % n == 0 and replicas % n == 0]
    return sorted({1, max(n for n in fit if n <= node), max(fit)})
