"""The best layout of so many devices, by a small search that says what it tried.

Each layout (degrees.py) is first tried with the least recomputation that fits and one sample at a time; the
best of these then with more samples at a time, and with interleaved stages. Of layouts that fit, the better
one trains more samples a second. A layout that by its lower bounds (bounds.py) cannot fit, or cannot be among
the best, is not priced. Derived.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from time import perf_counter

from ..answer import Estimate
from ..answer.face import Shown
from ..errors import InputError
from ..layout import Layout
from ..named import Any, NamedTuple
from .bounds import Bounds, Price
from .degrees import Facts, layouts

REFINED = 6  # layouts that are tried with more than one sample at a time


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
        """Whether it fits."""
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
        data: dict[str, Any] = self._as("dict")
        return data


def search(devices: int, node: int, network: Facts, price: Price) -> Found:
    """The layouts of so many devices, `node` of them in a node. Raises InputError where none is possible."""
    begin, price = perf_counter(), cache(price)
    possible = layouts(devices, node, network)
    some = _Search(
        network, price, Bounds(possible, network.stack, network.samples, network.batches[0], price)
    )
    tried = some.best(possible)
    if not any(t.fits for t in tried):
        tried += some.nearest(possible)
    for one in sorted(tried, key=_order)[:REFINED]:
        tried += some.refined(one)
    each = {t[:3]: t for t in tried if t.estimate is not None}
    ordered = tuple(sorted(each.values(), key=_order))
    if not ordered:
        whys = ", ".join(dict.fromkeys(t.why for t in tried))
        samples = f"{network.samples:,} samples a step"
        none = f"no layout of so many takes {samples}; allowed: another number, or batch"
        raise InputError("devices", f"got {devices:,}; {whys or none}")
    return Found(ordered, perf_counter() - begin)


def _order(t: Tried) -> tuple[bool, float]:
    return (False, -t.rate) if t.fits else (True, t.lacks)


class _Search(NamedTuple):
    network: Facts
    price: Price
    bounds: Bounds

    def best(self, layouts: Iterable[Layout]) -> list[Tried]:
        """The layouts that may be among the best, priced with a device's first number of samples."""
        batch = self.network.batches[0]
        open_: list[tuple[float, Layout]] = []
        for layout in layouts:
            if self.may_fit(layout, batch, self.network.recomputed[-1]):
                recompute = next(r for r in self.network.recomputed if self.may_fit(layout, batch, r))
                open_.append(
                    (self.bounds.seconds(layout, batch, recompute) / self.samples(layout, batch), layout)
                )
        tried: list[Tried] = []
        for least, layout in sorted(open_, key=lambda one: one[0]):
            times = sorted(1 / t.rate for t in tried if t.fits)
            if len(times) >= REFINED and least > times[REFINED - 1]:
                break
            tried.append(self.least(layout, batch))
        return tried

    def samples(self, layout: Layout, batch: int) -> int:
        """Samples of a step: those asked for; else as many as a layout has at once, which differs by
        layout.
        """
        return layout.dp * batch * self.bounds.micro(layout, batch)

    def may_fit(self, layout: Layout, batch: int, recompute: str) -> bool:
        """Whether a layout may fit, by the lower bound of its memory."""
        return self.bounds.bytes(layout, batch, recompute) <= self.network.memory

    def least(self, layout: Layout, batch: int, first: int = 0) -> Tried:
        """A layout with the least recomputation with which it fits, beginning with the first that may fit."""
        one = Tried(layout, batch, self.network.recomputed[-1], None, "it does not fit")
        for recompute in self.network.recomputed[first:]:
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
        """A layout with more samples at a time, then with interleaved stages, as long as that is faster. Both
        take more memory than before: the more samples the more, the more stages the less.
        """
        if not one.fits:
            return
        for changes in (self.larger, self.interleaved):
            best, first = one, self.network.recomputed.index(one.recompute)
            for layout, batch in changes(best):
                more = self.least(layout, batch, first)
                yield more
                if more.fits and more.rate > one.rate:
                    one = more
                elif more.fits or batch > best.batch:
                    break

    def larger(self, one: Tried) -> Iterator[tuple[Layout, int]]:
        """The same layout with more samples of a device at a time."""
        for batch in self.network.batches:
            if batch > one.batch and self.network.samples % (one.layout.dp * batch) == 0:
                yield one.layout, batch

    def interleaved(self, one: Tried) -> Iterator[tuple[Layout, int]]:
        """The same with the stages of a pipeline interleaved."""
        layout, micro = one.layout, self.bounds.micro(one.layout, one.batch)
        each = -(-self.network.stack.layers // layout.pp)  # of the fullest stage
        for vpp in (2, 4, 8):
            if layout.pp > 1 and each % vpp == 0 and micro % layout.pp == 0:
                yield Layout(**{**vars(layout), "vpp": vpp}), one.batch

    def nearest(self, layouts: Iterable[Layout]) -> list[Tried]:
        """Where nothing fits: the layouts that take least."""
        batch, most = self.network.batches[0], self.network.recomputed[-1]
        least = sorted(layouts, key=lambda layout: self.bounds.bytes(layout, batch, most))
        return [self.priced(layout, batch, most) for layout in least[:REFINED]]
