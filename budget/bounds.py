"""What a layout takes at least, so that a search need not price all of them.

A stage within a stack of like layers has nothing else. Once one is priced, with one sample at a time, a
layer's bytes and seconds are known, and with them the least of every other layout that divides a layer alike
(the same tp, cp and ep): a stage holds its layers' weights and the activations of as many micro-batches as
wait there, and each micro-batch passes through the whole stack. Embedding, head, other layers and sums of
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


class Layer(NamedTuple):
    """A layer on one device: bytes of weights and gradients, of an optimizer's states times the devices that
    divide them, of the activations of a micro-batch; seconds of a micro-batch's passes.
    """

    held: float
    states: float
    kept: float
    seconds: float


class Stack(NamedTuple):
    """The longest stack of a network, of `layers` in all: how many come before it, how many it has, and how
    many unlike ones it repeats.
    """

    layers: int
    first: int
    size: int
    period: int

    def stage(self, layout: Layout) -> int | None:
        """The first stage but the ends of which all layers are in the stack, if there is one."""
        most = -(-self.layers // layout.pp)
        stage = max(1, -(-self.first // max(self.layers // layout.pp, 1)))
        inside = stage < layout.pp - 1 and (stage + 1) * most <= self.first + self.size
        return stage if inside else None

    def whole(self, n: int) -> int:
        """So many layers of the stack, in whole periods."""
        n = max(min(n, self.size), 0)
        return n - n % self.period


class Bounds:
    """The least bytes and seconds of layouts of a network; a layer is priced when it is asked for."""

    def __init__(self, layouts: Iterable[Layout], stack: Stack, samples: int, batch: int, price: Price):
        self.stack, self.samples, self.batch, self.price = stack, samples, batch, price
        self.probes: dict[tuple[int, ...], Layout] = {}
        for layout in layouts:
            even = stack.layers // layout.pp % stack.period == 0
            if even and stack.stage(layout) is not None:
                self.probes.setdefault(_alike(layout), layout)
        self.known: dict[tuple[tuple[int, ...], str], Layer | None] = {}

    def bytes(self, layout: Layout, batch: int, recompute: str) -> float:
        """Of the device that holds most, at least; 0 where nothing is known."""
        layer = self.layer(layout, recompute)
        if layer is None:
            return 0.0
        each, inside = self.stack.layers // layout.pp, self.stack.stage(layout)
        stages = [(0, each - self.stack.first), *([] if inside is None else [(inside, each)])]
        return max(self._held(layer, layout, batch, *stage) for stage in stages)

    def _held(self, layer: Layer, layout: Layout, batch: int, stage: int, n: int) -> float:
        waiting = in_flight(layout, stage, self.micro(layout, batch)) * batch / self.batch
        held = layer.held / (layout.replicas if layout.zero == 3 else 1)
        each = held + layer.states / layout.replicas + layer.kept * waiting
        return float(self.stack.whole(n) * each)

    def seconds(self, layout: Layout, batch: int, recompute: str) -> float:
        """Of a step, at least; 0 where nothing is known."""
        layer = self.layer(layout, recompute)
        if layer is None or batch != self.batch:
            return 0.0
        passes = self.micro(layout, batch) + (layout.pp - 1) / layout.vpp
        return float(passes * layer.seconds * self.stack.size / layout.pp)

    def micro(self, layout: Layout, batch: int) -> int:
        """Micro-batches of a step."""
        return max(self.samples // (layout.dp * batch), 1)

    def layer(self, layout: Layout, recompute: str) -> Layer | None:
        """A layer that is divided as in this layout; None where no pipeline shows it alone."""
        key = _alike(layout), recompute
        if key not in self.known:
            probe = self.probes.get(key[0])
            self.known[key] = None if probe is None else self._priced(probe, recompute)
        return self.known[key]

    def _priced(self, probe: Layout, recompute: str) -> Layer | None:
        try:
            e = self.price(probe, self.batch, recompute)
        except InputError:
            return None
        stage = self.stack.stage(probe)
        inside = next((r for r in e.ran if stage in r.rank.stages), None)
        if inside is None or stage is None or e.spread is None:
            return None
        n, m = inside.rank.layers, e.spread.alone(inside.rank, stage)
        return Layer(
            (m.parameters + m.gradients) / n,
            m.optimizer * probe.replicas / n,
            m.activations / in_flight(probe, stage, e.spread.micro) / n,
            inside.passes(e.spread.micro).both / n,
        )


def _alike(layout: Layout) -> tuple[int, ...]:
    """What divides a layer."""
    return layout.tp, layout.cp, layout.ep
