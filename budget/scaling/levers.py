"""The sensitivity of a plan: each input in turn at both ends of its interval, all others unchanged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from math import log

from ..answer.face import Shown
from ..named import Any, NamedTuple
from ..runs.cost import Stated, Terms
from .backwards import plan, scale
from .chain import Plan

# The inputs, by the names that a report shows.
OUTCOMES: dict[str, Callable[[Plan], float | None]] = {
    "compute": lambda p: p.compute,
    "dollars": lambda p: p.bill.usd,
    "energy": lambda p: p.bill.kwh,
    "carbon": lambda p: p.bill.co2_kg,
}


class Moved(NamedTuple):
    """One input: both ends of its interval, and the plans there. loss: at both ends, lowest first."""

    input: str
    low: float
    high: float
    plans: tuple[Plan, Plan]
    what: str

    def factors(self, outcome: str, base: Plan) -> tuple[float, float] | None:
        """An outcome at the low and at the high end, over the plan's own; None where it is not known."""
        outcome_in = OUTCOMES[outcome]
        usual, outcomes = outcome_in(base), [outcome_in(p) for p in self.plans]
        if usual is None or None in outcomes:
            return None
        low, high = (float(x or 0) / usual for x in outcomes)
        return low, high

    def size(self, base: Plan) -> float:
        """The factor by which it moves the outcome that it moves most."""
        ratios = [f for name in OUTCOMES for f in self.factors(name, base) or ()]
        return max((abs(log(r)) for r in ratios if r > 0), default=0.0)


class _Sensitivity(NamedTuple):
    base: Plan
    moved: tuple[Moved, ...]


class Sensitivity(Shown, _Sensitivity):
    """A plan, and its inputs by how much each moves it."""

    report = "_sensitivity"

    def __repr__(self) -> str:
        return f"Sensitivity of {self.base!r}: {', '.join(m.input for m in self.moved)}"


def sensitivity(base: Plan | None = None, **asked: Any) -> Sensitivity:
    """How far each input moves a plan, from end to end of its interval; the input that moves it most first.

    budget.sensitivity(usd=1e6, device="h100")

    base: a plan of budget.scale; without one, the arguments of budget.scale. Raises InputError.
    """
    base = scale(**asked) if base is None else base
    moved = sorted(_each(base), key=lambda m: -m.size(base))
    return Sensitivity(base, tuple(moved))


def _each(base: Plan) -> Iterator[Moved]:
    ask, t = base.ask, base.ask.terms
    devices = {"devices": float(base.devices)} if "days" not in ask.given or "devices" in ask.given else {}
    fixed = ask._replace(given={**ask.given, **devices}) if "devices" not in ask.given else ask

    def at(mfu: Stated, terms: Terms) -> Plan:
        return plan(fixed._replace(mfu=mfu, terms=terms))

    def ends(name: str, stated: Stated, one: Callable[[Stated], Plan]) -> Iterator[Moved]:
        if stated.low < stated.high:
            both = (one(_just(stated.low)), one(_just(stated.high)))
            yield Moved(name, stated.low, stated.high, both, stated.what)

    def with_term(name: str, value: Stated) -> Plan:
        return at(base.mfu, t._replace(**{name: value}))

    yield from ends("MFU", base.mfu, lambda x: at(x, t))
    for name, shown in (("price", "price"), ("pue", "PUE"), ("grid", "grid"), ("watts", "power")):
        stated: Any = getattr(t, name)
        if stated is not None:
            yield from ends(shown, stated, partial(with_term, name))


def _just(value: float) -> Stated:
    return Stated(value, value, value, "an end")
