"""A whole run of an estimated step: so many tokens or samples, as days, dollars, energy and carbon."""

from __future__ import annotations

from ..errors import InputError
from ..named import Any, NamedTuple
from ..quantity import COUNT, read
from .cost import Bill, Terms, bill
from .failures import Goodput, goodput


class Job(NamedTuple):
    """work: tokens, images or samples in all; seconds, low and high follow from the step's interval, and the
    bill's ends from these and from the ends of price and power.
    """

    work: float
    unit: str
    steps: float
    devices: int
    seconds: float
    low: float
    high: float
    bill: Bill

    @property
    def failing(self) -> Goodput:
        """The goodput if devices fail as often as Llama 3's did; the figures above do not include
        failures.
        """
        return goodput(self.devices)

    @property
    def with_failures(self) -> float | None:
        """Seconds with failures; None where so many devices never finish."""
        return self.seconds / self.failing.fraction if self.failing.fraction else None

    def to_dict(self) -> dict[str, Any]:
        """Raw numbers, units in the keys."""
        days = {k: getattr(self, k) / 86400 for k in ("seconds", "low", "high")}
        return {
            self.unit: self.work,
            "steps": self.steps,
            "devices": self.devices,
            "days": days["seconds"],
            "days_low": days["low"],
            "days_high": days["high"],
            "goodput": self.failing.fraction,
            "days_with_failures": self.with_failures and self.with_failures / 86400,
            **self.bill._asdict(),
        }


def work(
    unit: str, length: float, tokens: Any = None, samples: Any = None, epochs: Any = None
) -> float | None:
    """Units of work in all; None where nothing is asked. length: tokens of a sample. Raises InputError."""
    if tokens is not None and samples is not None:
        raise InputError("tokens", "got samples too; allowed: one of the two")
    if tokens is not None and unit != "tokens":
        raise InputError("tokens", f"the network works through {unit}; allowed: samples")
    if tokens is None and samples is None:
        if epochs is not None:
            raise InputError("epochs", "of how much? allowed: with tokens or samples")
        return None
    rounds = 1.0 if epochs is None else read("epochs", epochs, COUNT)
    if tokens is not None:
        return read("tokens", tokens, COUNT) * rounds
    return read("samples", samples, COUNT) * (length if unit == "tokens" else 1) * rounds


def job(
    total: float, unit: str, per_step: float, step: tuple[float, float, float], devices: int, terms: Terms
) -> Job:
    """The run. per_step: units of work of a step on all devices; step: its seconds, low and high."""
    steps = total / per_step
    seconds, low, high = (steps * s for s in step)
    hours, *ends = (s / 3600 * devices for s in (seconds, low, high))
    return Job(total, unit, steps, devices, seconds, low, high, bill(terms, hours, (ends[0], ends[1])))
