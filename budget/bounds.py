"""What a layout takes at least, so that a search need not price all of them.

A stage in the midst of a pipeline has nothing but layers. Once one is priced, with one sample at a time, a
layer's bytes and seconds are known, and with them the least of every other layout that divides a layer alike
(the same tp, cp and ep): its first stage holds its layers' weights and the activations of as many
micro-batches as wait there, and each micro-batch passes through all layers. Embedding, head and sums of
gradients come on top; more samples at a time keep as many times more, and take fewer seconds each. Derived.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .answer import Estimate
from .errors import InputError
from .fold.pipeline import in_flight
from .layout import Layout
from .named import NamedTuple

Price = Callable[[Layout, int, str], Estimate]
ENOUGH = 3  # stages, of which one is in the midst


class Layer(NamedTuple):
    """A layer on one device: bytes of weights and gradients, of an optimizer's states times the devices that
    divide them, of the activations of a micro-batch; seconds of a micro-batch's passes.
    """

    held: float
    states: float
    kept: float
    seconds: float


class Bounds:
    """The least bytes and seconds of layouts of so many layers; a layer is priced when it is asked for."""

    def __init__(self, layouts: Iterable[Layout], layers: int, samples: int, batch: int, price: Price):
        self.layers, self.samples, self.batch, self.price = layers, samples, batch, price
        self.probes: dict[tuple[int, ...], Layout] = {}
        for layout in layouts:
            if layout.pp >= ENOUGH:
                self.probes.setdefault(_alike(layout), layout)
        self.known: dict[tuple[tuple[int, ...], str], Layer | None] = {}

    def bytes(self, layout: Layout, batch: int, recompute: str) -> float:
        """Of the first stage's device, at least; 0 where nothing is known."""
        layer = self.layer(layout, recompute)
        if layer is None:
            return 0.0
        waiting = float(in_flight(layout, 0, self.micro(layout, batch))) * batch / self.batch
        held = layer.held / (layout.replicas if layout.zero == 3 else 1)
        each = held + layer.states / layout.replicas + layer.kept * waiting
        return float(self.layers // layout.pp * each)

    def seconds(self, layout: Layout, batch: int, recompute: str) -> float:
        """Of a step, at least; 0 where nothing is known."""
        layer = self.layer(layout, recompute)
        if layer is None or batch != self.batch:
            return 0.0
        passes = self.micro(layout, batch) + (layout.pp - 1) / layout.vpp
        return passes * layer.seconds * self.layers / layout.pp

    def micro(self, layout: Layout, batch: int) -> int:
        """Micro-batches of a step."""
        return max(self.samples // (layout.dp * batch), 1)

    def layer(self, layout: Layout, recompute: str) -> Layer | None:
        """A layer that is divided as in this layout; None where no pipeline shows it alone."""
        key = _alike(layout), recompute
        if key not in self.known:
            probe = self.probes.get(key[0])
            self.known[key] = None if probe is None else _priced(self.price, probe, self.batch, recompute)
        return self.known[key]


def _alike(layout: Layout) -> tuple[int, ...]:
    """What divides a layer."""
    return layout.tp, layout.cp, layout.ep


def _priced(price: Price, probe: Layout, batch: int, recompute: str) -> Layer | None:
    """A layer of a stage in the midst of a pipeline."""
    try:
        e = price(probe, batch, recompute)
    except InputError:
        return None
    ends = {0, probe.pp - 1}
    midst = next((r for r in e.ran if not ends & {*r.rank.stages}), None)
    if midst is None or not midst.rank.layers or e.spread is None:
        return None
    stage, n = midst.rank.stages[0], midst.rank.layers
    m = e.spread.alone(midst.rank, stage)
    waiting = in_flight(probe, stage, e.spread.micro)
    return Layer(
        (m.parameters + m.gradients) / n,
        m.optimizer * probe.replicas / n,
        m.activations / waiting / n,
        midst.passes(e.spread.micro).both / n,
    )
