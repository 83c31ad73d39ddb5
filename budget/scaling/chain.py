"""From a budget to sizes: compute = 6 x parameters x tokens = device-hours x peak x MFU, and a law.

One quantity is known and the others follow; a scaling law divides the compute over parameters and tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property, partial
from json import loads
from math import ceil, inf, log2

from .. import law
from ..answer import Estimate
from ..answer.face import Shown
from ..device import Device
from ..errors import InputError
from ..law import FLOPS, Law, _search
from ..layout import Layout
from ..named import Any, NamedTuple
from ..runs import cost
from ..runs.cost import Bill, Stated, Terms

STEP = "deepseek-steps"  # the default law of a step's tokens and its learning rate
SIZES = (1e3, 1e20)  # between which parameters and tokens are searched
MOST = SIZES[1] ** 2  # FLOPs


class Ask(NamedTuple):
    """A budget. given: some of compute, usd, kwh, params, tokens, devices and days, each in its unit."""

    given: Mapping[str, float]
    law: Law
    more: Mapping[str, float]  # further inputs of laws: unique tokens, experts
    device: Device
    dtype: str
    terms: Terms
    mfu: Stated | None  # None: the estimate's own
    layout: Layout | None = None  # of the devices, where it is known
    batch: float | None = None  # tokens of a step of all devices; None: as the law of steps says
    step: Mapping[str, Any] = {}  # with a layout that was searched: its micro-batch and recomputation
    most: float | None = None  # parameters that this layout holds; the rest of a budget goes to tokens


class _Plan(NamedTuple):
    ask: Ask
    params: float
    tokens: float
    network: Estimate  # a training step of a concrete network of about this size
    mfu: Stated  # of 6 N D
    devices: int


class Plan(Shown, _Plan):
    """The plan for a budget. The law is a fit, the MFU a prediction, a price one of many: all have
    intervals.
    """

    report = "_scale"

    def __repr__(self) -> str:
        return f"Plan({self.params:.3g} parameters, {self.tokens:.3g} tokens, {self.compute:.3g} FLOPs)"

    @property
    def compute(self) -> float:
        """FLOPs of training, as 6 N D."""
        return FLOPS * self.params * self.tokens

    @property
    def device_hours(self) -> float:
        """Hours of one device, at the MFU."""
        return self.compute / self.rate(self.mfu.value) / 3600

    def rate(self, mfu: float) -> float:
        """FLOPs a second of one device."""
        return self.ask.device.rate(self.ask.dtype) * mfu

    @property
    def days(self) -> float:
        """How long it takes on `devices`."""
        return self.device_hours / 24 / self.devices

    @property
    def state_bytes(self) -> int:
        """Weights, gradients and optimizer's states: of one device of a layout, else of all."""
        m = self.network.memory
        return int(m.parameters + m.gradients + m.optimizer)

    @property
    def holding(self) -> int:
        """The fewest devices whose memory holds these, divided over all of them."""
        return ceil(self.state_bytes / self.network.device.usable_bytes)

    @property
    def hours_ends(self) -> tuple[float, float] | None:
        """The range of device-hours: at the ends of the price or power that buys them, else of the MFU."""
        given, t = self.ask.given, self.ask.terms
        paid = t.price if "usd" in given else t.watts if "kwh" in given else None
        if paid is None and "devices" in given and "days" in given:
            return None
        one = self.mfu if paid is None else paid
        if "loss" in given:
            ends = self.compute_ends
            return ends and (ends[0] / self.rate(one.high) / 3600, ends[1] / self.rate(one.low) / 3600)
        low, high = (self.device_hours * one.value / end for end in (one.high, one.low))
        return (low, high) if low < high else None

    @cached_property
    def compute_ends(self) -> tuple[float, float] | None:
        """The range of FLOPs: at the MFU's ends where they follow from it, at the law's where from a loss."""
        if "loss" in self.ask.given:
            return self._over_draws(lambda draw: flops_of(self.ask._replace(law=draw), 1.0))
        ends = [FLOPS * n * d for n, d in map(self._at, (self.mfu.low, self.mfu.high))]
        return (ends[0], ends[1]) if ends[0] < ends[1] * (1 - 1e-9) else None

    @property
    def bill(self) -> Bill:
        """Dollars, energy and carbon of training; a given quantity has no interval."""
        bill = cost.bill(self.ask.terms, self.device_hours, self.hours_ends)
        if "usd" in self.ask.given:
            return bill._replace(usd_low=bill.usd, usd_high=bill.usd)
        if "kwh" in self.ask.given:
            carbon = dict.fromkeys(("co2_kg_low", "co2_kg_high"), bill.co2_kg)
            return bill._replace(kwh_low=bill.kwh, kwh_high=bill.kwh, **carbon)
        return bill

    @property
    def batch(self) -> int:
        """Tokens of a step: whole sequences for every device of the layout, where there is one."""
        e = self.network
        samples = e.model.samples if self.ask.layout else samples_of(self.ask, e, self.compute)
        return int(e.length * samples)

    @property
    def learning_rate(self) -> float:
        """The law of steps' learning rate for the compute."""
        return learning_rate(self.compute)

    def ends(self, side: str) -> tuple[float, float] | None:
        """The interval of `params` or `tokens`: 90 % of the law's bootstrap samples, at all of the MFU's
        ends; None where it was given or the law has no samples.
        """
        if side in self.ask.given or not self.ask.law.draws:
            return None
        which, values = ("params", "tokens").index(side), list[float]()
        for mfu in {self._at(mfu): mfu for mfu in (self.mfu.low, self.mfu.value, self.mfu.high)}.values():
            ends = self._over_draws(partial(self._side, mfu, which))
            if ends is None:
                return None
            values += ends
        return min(values), max(values)

    def _side(self, mfu: float, which: int, chosen: Law) -> float:
        return sizes(self.ask._replace(law=chosen), mfu)[which]

    def _over_draws(self, value: Callable[[Law], Any]) -> tuple[float, float] | None:
        """The law's interval of a size; None where too many samples never reach the loss."""

        def reached(draw: Law) -> float:
            try:
                return float(value(draw))
            except InputError:  # of this draw no compute has the loss
                return inf

        ends = self.ask.law.interval(reached)
        return None if ends is None or ends[1] == inf else ends

    @property
    def loss(self) -> float | None:
        """Nats a token of the law's own data; None where the law has no loss."""
        nats: float | None = self._loss(self.ask.law, self.params, self.tokens)
        return nats

    @property
    def loss_ends(self) -> tuple[float, float] | None:
        """90 % of the law's bootstrap samples, at all of the MFU's ends where compute follows from it."""
        sizes = {self._at(mfu) for mfu in (self.mfu.low, self.mfu.value, self.mfu.high)}
        if not self.ask.law.has_loss or "loss" in self.ask.given:
            return None
        ends = [
            x for n, d in sizes for x in self.ask.law.interval(partial(self._loss, params=n, tokens=d)) or ()
        ]
        return (min(ends), max(ends)) if ends else None

    def _loss(self, chosen: Law, params: float, tokens: float) -> Any:
        return chosen.loss(params, tokens, **self.ask.more) if chosen.has_loss else None

    def _at(self, mfu: float) -> tuple[float, float]:
        return sizes(self.ask, mfu)

    @property
    def outside(self) -> list[str] | None:
        """The law's ranges outside of which this is; None where it states none."""
        return self.ask.law.outside(self.params, self.tokens)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object. Keys may be added but are never renamed; they include units."""
        data: dict[str, Any] = loads(self._as("json"))
        return data


def sizes(ask: Ask, mfu: float) -> tuple[float, float]:
    """(parameters, tokens) for the budget, where a device reaches this MFU, and no more than are held."""
    params, tokens = _unbound(ask, mfu)
    if ask.most is None or params <= ask.most:
        return params, tokens
    return ask.most, params * tokens / ask.most


def _unbound(ask: Ask, mfu: float) -> tuple[float, float]:
    """The same, whatever is held."""
    given, flops = ask.given, flops_of(ask, mfu)
    best: Callable[[float], tuple[float, float]] = partial(ask.law.optimum, **ask.more)
    if flops is not None:
        if "params" in given:
            return given["params"], flops / FLOPS / given["params"]
        return (flops / FLOPS / given["tokens"], given["tokens"]) if "tokens" in given else best(flops)
    if "params" in given and "tokens" in given:
        return given["params"], given["tokens"]
    side = 0 if "params" in given else 1
    target = given["params"] if side == 0 else given["tokens"]
    compute = _search.crossing(lambda c: -best(c)[side], -target, SIZES[0], MOST)
    if compute is None:
        raise InputError(
            "params" if side == 0 else "tokens", f"got {target:g}; no compute has its optimum there"
        )
    other = best(compute)[1 - side]
    return (target, other) if side == 0 else (other, target)


def flops_of(ask: Ask, mfu: float) -> float | None:
    """The compute of the budget; None where only sizes are given."""
    given, t = ask.given, ask.terms
    if "compute" in given:
        return given["compute"]
    if "loss" in given:
        return _flops_for_loss(ask)
    if "usd" in given:
        hours = given["usd"] / _known(t.price, "price", ask).value
    elif "kwh" in given:
        hours = given["kwh"] / (_known(t.watts, "power", ask).value / 1000 * t.pue.value)
    elif "devices" in given and "days" in given:
        hours = given["devices"] * given["days"] * 24
    else:
        return None
    return hours * 3600 * ask.device.rate(ask.dtype) * mfu


def _flops_for_loss(ask: Ask) -> float:
    """The compute whose best network, of the params or tokens given, has the loss. Raises InputError."""
    target, chosen = ask.given["loss"], ask.law
    if not chosen.has_loss:
        raise InputError("law", f"{chosen.id} says nothing of a loss; allowed: {', '.join(with_loss())}")
    rest = {k: v for k, v in ask.given.items() if k in ("params", "tokens")}

    def reached(flops: float) -> float:
        sized = ask._replace(given={**rest, "compute": flops})
        return chosen.loss(*sizes(sized, 1.0), **ask.more)

    compute = _search.crossing(reached, target, SIZES[0], MOST)
    if compute is None:
        low, high = reached(MOST), reached(SIZES[0])
        where = f"above {low:.4g}, which no compute gets below" if target < high else f"below {high:.4g}"
        raise InputError("loss", f"got {target:g}; allowed: {where}, by {chosen.id}")
    return compute


def with_loss() -> list[str]:
    """The laws that say both where the optimum is and what loss it has."""
    return [x.id for x in law.every() if x.has_loss and hasattr(x.form, "optimum")]


def _known(stated: Stated | None, what: str, ask: Ask) -> Stated:
    if stated is None:
        raise InputError(what, f"none of {ask.device.name} is known; allowed: your own by --{what}")
    return stated


def samples_of(ask: Ask, network: Estimate, flops: float) -> int:
    """Sequences of a step of all devices: whole micro-batches for each, and in an interleaved pipeline a
    multiple of its stages.
    """
    to, each = ask.layout, 1
    if to is not None:
        each = to.dp * ask.step.get("batch", 1) * (to.pp if to.vpp > 1 else 1)
    return max(1, round(batch_of(ask, flops) / int(network.length) / each)) * each


def batch_of(ask: Ask, flops: float) -> float:
    """Tokens of a step: as given, or the law of steps' for the compute, as a power of two."""
    steps = law.load(STEP)
    return ask.batch or 2.0 ** round(log2(steps.form.batch(steps.constants, flops)))


def learning_rate(flops: float) -> float:
    """The law of steps' learning rate."""
    steps = law.load(STEP)
    return float(steps.form.rate(steps.constants, flops))
