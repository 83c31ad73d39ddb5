"""Lower bounds of a layout's memory and time, so that a search need not price all layouts.

An inner stage of a stack of like layers has nothing but layers. Once one is priced, with one sample at a
time, a layer's bytes and seconds are known, and with them the lower bounds of every other layout that divides
a layer alike (the same tp, cp and ep): a stage holds its layers' weights and the activations of as many
micro-batches as wait there, and each micro-batch passes through the whole stack. Embedding, head, other
layers and sums of gradients come on top. With more samples at a time activations grow in proportion, and each
sample takes less time. With a single micro-batch, gradients come as activations go. Casts of weights exist
once, for any number of samples; those of divided weights are made again. Derived.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..answer import Estimate
from ..errors import InputError
from ..fold.memory import tensor_bytes
from ..fold.pipeline import in_flight
from ..ir import FIRST, ONCE, WEIGHTS, Model, walk
from ..layout import Alone, Layout
from ..named import NamedTuple
from ..size import Size

Price = Callable[[Layout, int, str], Estimate]


class Layer(NamedTuple):
    """A layer on one device: bytes of weights, of gradients, of an optimizer's states times the devices that
    divide them, of casts of weights and of the other activations of a micro-batch; seconds of a micro-batch's
    passes.
    """

    weights: float
    gradients: float
    states: float
    casts: float
    kept: float
    seconds: float


class Stack(NamedTuple):
    """A network's longest stack: how many of its `layers` come before it, how many it has, and how many
    unlike ones it repeats.
    """

    layers: int
    first: int
    size: int
    period: int

    def stage(self, layout: Layout) -> int | None:
        """The first inner stage with all of its layers in the stack, if there is one."""
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
        """The least bytes of the device that holds most; 0 where nothing is known."""
        layer = self.layer(layout, recompute)
        if layer is None:
            return 0.0
        each, inside = self.stack.layers // layout.pp, self.stack.stage(layout)
        stages = [(0, each - self.stack.first), *([] if inside is None else [(inside, each)])]
        return max(self._held(layer, layout, batch, *stage) for stage in stages)

    def _held(self, layer: Layer, layout: Layout, batch: int, stage: int, n: int) -> float:
        micro, divided = self.micro(layout, batch), layout.zero == 3
        each = (0 if divided else layer.casts) + layer.kept * batch / self.batch
        kept = each * in_flight(layout, stage, micro)
        weights, gradients = (
            x / (layout.replicas if divided else 1) for x in (layer.weights, layer.gradients)
        )
        most = kept + gradients if micro > 1 else max(kept, gradients)
        return float(self.stack.whole(n) * (weights + layer.states / layout.replicas + most))

    def seconds(self, layout: Layout, batch: int, recompute: str) -> float:
        """The least seconds of a step; 0 where nothing is known."""
        layer = self.layer(layout, recompute)
        if layer is None or batch != self.batch:
            return 0.0
        passes = self.micro(layout, batch) + (layout.pp - 1) / layout.vpp
        return float(passes * layer.seconds * self.stack.size / layout.pp)

    def micro(self, layout: Layout, batch: int) -> int:
        """Micro-batches of a step."""
        return max(self.samples // (layout.dp * batch), 1)

    def layer(self, layout: Layout, recompute: str) -> Layer | None:
        """A layer divided as in this layout; None where no pipeline has a stage of layers alone."""
        key = _alike(layout), recompute
        if key not in self.known:
            probe = self.probes.get(key[0])
            self.known[key] = None if probe is None else self._priced(probe, recompute)
        return self.known[key]

    def _priced(self, probe: Layout, recompute: str) -> Layer | None:
        stage = self.stack.stage(probe)
        if stage is None:
            return None
        try:
            e = self.price(Alone(**vars(probe), only=stage), self.batch, recompute)
        except InputError:
            return None
        if e.spread is None or e.cluster is None:
            return None
        alone = e.spread._replace(ranks=tuple(r for r in e.spread.ranks if stage in r.stages), keeps=())
        (inside,) = alone.run(e.device, e.profile, e.cluster, e.stack.overlap, e.task.execution)
        n, m = inside.rank.layers, alone.alone(inside.rank, stage)
        lifetimes = inside.rank.walked.walk.lifetimes
        kept = lifetimes.kept - lifetimes.copies
        casts = _casts(inside.rank.program, e.spread.dtype) / e.spread.micro
        casts = casts if casts <= kept else 0  # else they are made again
        return Layer(
            m.parameters / n,
            m.gradients / n,
            m.optimizer * probe.replicas / n,
            casts / n,
            (kept - casts) / n,
            inside.passes(e.spread.micro).both / n,
        )


def _casts(model: Model, dtype: str) -> Size:
    """Bytes of weights in another dtype, as a forward pass makes them (autocast)."""
    made = ((o, n) for o, n in walk(model.nodes) if o.rule.casts and o.ins[0].role in WEIGHTS)
    each = ((o, n) for o, n in made if not o.again and o.tag not in (ONCE, FIRST))
    return sum(tensor_bytes(o.out, o.sizes, dtype) * n for o, n in each)


def _alike(layout: Layout) -> tuple[int, ...]:
    """The degrees that divide a layer."""
    return layout.tp, layout.cp, layout.ep
