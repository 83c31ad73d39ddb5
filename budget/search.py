"""The best layout of so many devices, of a small search that says what it tried.

Degrees are whole divisors: tensor parallelism within a node, by heads; pipelines by layers; context
parallelism for long sequences; experts over what data parallelism has; states divided among replicas (ZeRO
1), weights too where there is no pipeline (ZeRO 3). To serve, layers are divided where the software does so,
or where nothing else divides; one sequence is served where no batch is given. Each is first tried with the
least recomputation that fits and one sample at a time; the best of these then with more samples at a time,
and with interleaved stages. What is better is what trains more samples a second, of layouts that fit. What
cannot fit, or cannot be among the best, by the least that it takes (bounds.py), is not priced. Derived.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from math import gcd
from time import perf_counter

from .answer import Estimate
from .bounds import Bounds, Price, Stack
from .errors import InputError
from .face import Shown
from .ir import SCORES, Model, base, expert_axis, walk
from .layout import Layout
from .named import Any, NamedTuple
from .plan._layers import in_one, is_stack, layers
from .plan.mesh import heads
from .stack import ENGINES

RECOMPUTED = ("none", "selective", "full")  # from the least on
LONG = 16384  # tokens, from which on a sequence is divided
REFINED = 6  # layouts that are tried with more than one sample at a time


class Facts(NamedTuple):
    """What a network, a task and a device allow: what degrees can divide, and what else may be chosen.

    samples: of a step over all devices; 0 where it is not given. batches: samples of a device at a time.
    by_layers: whether layers may be divided to serve; alone: nothing else is.
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


class Tried(NamedTuple):
    """A layout, with its estimate or the reason why there is none."""

    layout: Layout
    batch: int
    recompute: str
    estimate: Estimate | None
    why: str = ""

    @property
    def rate(self) -> float:
        """Samples a second; 0 where there is no estimate."""
        return 0.0 if self.estimate is None else float(self.estimate.model.samples / self.estimate.times.step)

    @property
    def fits(self) -> bool:
        """Whether it does."""
        return self.estimate is not None and bool(self.estimate.fits)

    @property
    def lacks(self) -> float:
        """Bytes that a device has too few."""
        if self.estimate is None:
            return float("inf")
        return float(self.estimate.needed - self.estimate.device.usable_bytes)


class _Found(NamedTuple):
    tried: tuple[Tried, ...]
    seconds: float


class Found(Shown, _Found):
    """All that was tried, the best first; those that do not fit last, the nearest first."""

    report = "_plan"

    def __repr__(self) -> str:
        return f"Found({len(self.tried)} layouts, the best {self.best.layout})"

    @property
    def best(self) -> Tried:
        """The best one that fits, or the one that comes nearest to it."""
        return self.tried[0]

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of `budget plan`."""
        found: dict[str, Any] = self._as("dict")
        return found


def facts(one: Estimate, samples: int, batch: int | None, recompute: str) -> Facts:
    """What an estimate's network allows; batch and recompute: as given, else to be chosen."""
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
    """What may run again; attention in kernels keeps no scores, which `selective` would make again."""
    written_out = any(o.tag == SCORES and not o.kernel for o, _ in walk(one.program.nodes))
    return tuple(choice for choice in RECOMPUTED if choice != "selective" or written_out)


def _stack(model: Model) -> Stack:
    """The longest stack of a network's layers."""
    sizes = [int(layers(node)) for node in model.nodes]
    longest = sizes.index(max(sizes))
    node = model.nodes[longest]
    period = int(in_one(node)) if is_stack(node) else 1
    return Stack(sum(sizes), sum(sizes[:longest]), sizes[longest], period)


def search(devices: int, node: int, of: Facts, price: Price) -> Found:
    """The layouts of so many devices, `node` of them in a node. Raises InputError where none is possible."""
    begin, price = perf_counter(), cache(price)
    layouts = [Layout(**degrees) for degrees in candidates(devices, node, of)]
    some = _Search(of, price, Bounds(layouts, of.stack, of.samples, of.batches[0], price))
    tried = some.best(layouts)
    if not any(t.fits for t in tried):
        tried += some.nearest(layouts)
    for one in sorted(tried, key=_order)[:REFINED]:
        tried += some.refined(one)
    each = {t[:3]: t for t in tried if t.estimate is not None}
    found = tuple(sorted(each.values(), key=_order))
    if not found:
        whys = ", ".join(dict.fromkeys(t.why for t in tried))
        none = f"no layout of so many takes {of.samples:,} samples a step; allowed: another number, or batch"
        raise InputError("devices", f"got {devices:,}; {whys or none}")
    return Found(found, perf_counter() - begin)


def _order(t: Tried) -> tuple[bool, float]:
    return (False, -t.rate) if t.fits else (True, t.lacks)


class _Search(NamedTuple):
    of: Facts
    price: Price
    bounds: Bounds

    def best(self, layouts: Iterable[Layout]) -> list[Tried]:
        """Of layouts those that may be among the best, with the samples of a device that come first."""
        batch = self.of.batches[0]
        open_: list[tuple[float, Layout]] = []
        for layout in layouts:
            if self.may_fit(layout, batch, self.of.recomputed[-1]):
                recompute = next(r for r in self.of.recomputed if self.may_fit(layout, batch, r))
                open_.append(
                    (self.bounds.seconds(layout, batch, recompute) / self.samples(layout, batch), layout)
                )
        tried: list[Tried] = []
        for least, layout in sorted(open_, key=lambda one: one[0]):
            known = sorted(1 / t.rate for t in tried if t.fits)
            if len(known) >= REFINED and least > known[REFINED - 1]:
                break
            tried.append(self.least(layout, batch))
        return tried

    def samples(self, layout: Layout, batch: int) -> int:
        """Of a step: those asked for; else what a layout has at once, which differs from one to the next."""
        return layout.dp * batch * self.bounds.micro(layout, batch)

    def may_fit(self, layout: Layout, batch: int, recompute: str) -> bool:
        """Whether a layout may fit, by the least that it takes."""
        return self.bounds.bytes(layout, batch, recompute) <= self.of.memory

    def least(self, layout: Layout, batch: int, first: int = 0) -> Tried:
        """A layout with the least recomputation with which it fits, from the first that may be enough on."""
        one = Tried(layout, batch, self.of.recomputed[-1], None, "it does not fit")
        for recompute in self.of.recomputed[first:]:
            if not self.may_fit(layout, batch, recompute):
                continue
            one = self.priced(layout, batch, recompute)
            if one.fits or one.estimate is None:
                break
        return one

    def priced(self, layout: Layout, batch: int, recompute: str) -> Tried:
        """A layout with its estimate, or with the reason why there is none."""
        try:
            return Tried(layout, batch, recompute, self.price(layout, batch, recompute))
        except InputError as error:
            return Tried(layout, batch, recompute, None, str(error))

    def refined(self, one: Tried) -> Iterator[Tried]:
        """The same with more samples at a time, then with interleaved stages, as long as that is faster. Both
        take more memory than they are changed from: more samples the more, more stages the less.
        """
        if not one.fits:
            return
        for changes in (self.larger, self.interleaved):
            best, first = one, self.of.recomputed.index(one.recompute)
            for layout, batch in changes(best):
                more = self.least(layout, batch, first)
                yield more
                if more.fits and more.rate > one.rate:
                    one = more
                elif more.fits or batch > best.batch:
                    break

    def larger(self, one: Tried) -> Iterator[tuple[Layout, int]]:
        """The same layout with more samples of a device at a time."""
        for batch in self.of.batches:
            if batch > one.batch and self.of.samples % (one.layout.dp * batch) == 0:
                yield one.layout, batch

    def interleaved(self, one: Tried) -> Iterator[tuple[Layout, int]]:
        """The same with the stages of a pipeline interleaved."""
        layout, micro = one.layout, self.bounds.micro(one.layout, one.batch)
        each = -(-self.of.stack.layers // layout.pp)  # of the fullest stage
        for vpp in (2, 4, 8):
            if layout.pp > 1 and each % vpp == 0 and micro % layout.pp == 0:
                yield Layout(**{**vars(layout), "vpp": vpp}), one.batch

    def nearest(self, layouts: Iterable[Layout]) -> list[Tried]:
        """Where nothing fits: those that take least."""
        batch, most = self.of.batches[0], self.of.recomputed[-1]
        least = sorted(layouts, key=lambda layout: self.bounds.bytes(layout, batch, most))
        return [self.priced(layout, batch, most) for layout in least[:REFINED]]


def candidates(devices: int, node: int, of: Facts) -> Iterable[dict[str, Any]]:
    """Degrees whose product is the number of devices, and that divide what they are for."""
    found = () if of.alone else tuple(_candidates(devices, node, of))
    return found or (tuple(_by_layers(devices, node, of)) if of.by_layers else ())


def _by_layers(devices: int, node: int, of: Facts) -> Iterator[dict[str, Any]]:
    """Layers divided to serve, each of them by heads within a node where the software does that, too."""
    for tp in _divisors(of.heads, 1 if of.alone else min(node, devices)):
        pp, left = divmod(devices, tp)
        if not left and pp <= of.stack.layers:
            yield {"tp": tp, "pp": pp, "sp": 0}


def _candidates(devices: int, node: int, of: Facts) -> Iterator[dict[str, Any]]:
    for tp in _divisors(of.heads, min(node, devices)):
        for cp in _divisors(of.seq // LONG, 64) if of.seq >= LONG else (1,):
            for pp in _stages(of.stack.layers, devices // (tp * cp)) if of.trains else (1,):
                dp, left = divmod(devices, tp * cp * pp)
                if left or (of.samples and of.samples % (dp * of.batches[0])):
                    continue
                for ep in _experts(of.experts, tp * cp * dp, node):
                    degrees = {"tp": tp, "cp": cp, "pp": pp, "dp": dp, "ep": ep, "etp": 1 if ep > 1 else 0}
                    if not of.trains:
                        yield {**degrees, "sp": 0}
                        continue
                    yield {**degrees, "zero": 1 if dp * cp > 1 else 0}
                    if pp == 1 and dp > 1:
                        yield {**degrees, "zero": 3}


def _divisors(whole: int, most: int) -> Iterable[int]:
    """The divisors up to `most` that are 1, or even: meshes of odd degrees are not laid out."""
    return [n for n in range(1, min(whole, most) + 1) if whole % n == 0 and (n == 1 or n % 2 == 0)]


def _stages(count: int, most: int) -> Iterable[int]:
    """Stages of a pipeline: divisors of the layers, and powers of two, whose stages may differ by a layer."""
    powers = [2**n for n in range(1, 12) if 2 * 2**n <= count and 2**n <= most]
    return sorted({1, *_divisors(count, most), *powers})


def _experts(experts: int, replicas: int, node: int) -> Iterable[int]:
    """All experts on each device, a node's on a node, and as few on a device as there are devices for."""
    if not experts:
        return (1,)
    fit = [n for n in range(1, experts + 1) if experts % n == 0 and replicas % n == 0]
    return sorted({1, max(n for n in fit if n <= node), max(fit)})
