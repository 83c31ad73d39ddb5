"""Scaling laws: loss from parameters and tokens, and the best of both for a compute budget.

A law is one file of data/laws/: its form (a module here), constants, range and source. Compute is 6 N D.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import import_module
from math import isfinite

from .. import table
from ..errors import InputError, as_path, unknown
from ..found import modules
from ..named import Any, NamedTuple

USUAL = "chinchilla"
LOW, HIGH = 0.05, 0.95  # an interval's ends: 90 %
FLOPS = 6.0  # a parameter and token in training, without attention. Derived: 2 forward, 4 backward.


class Law(NamedTuple):
    """One law. about: its file; constants: those of its form; draws: the same, of each bootstrap sample."""

    id: str
    about: Mapping[str, Any]
    constants: Mapping[str, float]
    draws: tuple[Mapping[str, float], ...]

    @property
    def form(self) -> Any:
        """The module of budget/law/ that computes it."""
        return _form(self.about["form"])

    @property
    def has_loss(self) -> bool:
        """Whether the law predicts a loss, not only where the optimum is."""
        return hasattr(self.form, "loss")

    def loss(self, params: float, tokens: float, **more: float) -> float:
        """Loss in nats a token; more: further inputs of the form (`unique`, `experts`). Only where
        `has_loss`.
        """
        value: float = self.form.loss(self.constants, params, tokens, **self._taken(more))
        return value

    def optimum(self, flops: float, **more: float) -> tuple[float, float]:
        """(parameters, tokens) of the lowest loss for so much compute."""
        sizes: tuple[float, float] = self.form.optimum(self.constants, flops, **self._taken(more))
        return sizes

    def interval(self, value: Callable[[Law], float]) -> tuple[float, float] | None:
        """The 90 % interval of a quantity that follows from the law, over its bootstrap samples; None
        without them.
        """
        if not self.draws:
            return None
        values = sorted(value(self._replace(constants=draw, draws=())) for draw in self.draws)
        return values[round(LOW * (len(values) - 1))], values[round(HIGH * (len(values) - 1))]

    def outside(self, params: float, tokens: float) -> list[str] | None:
        """The ranges of the law's own runs in which a run is not: params, tokens, compute. None: none is
        stated.
        """
        ranges = self.about.get("range")
        at = {"params": params, "tokens": tokens, "compute": FLOPS * params * tokens}
        return ranges and [k for k, (low, high) in ranges.items() if not low <= at[k] <= high]

    def _taken(self, more: Mapping[str, float]) -> dict[str, float]:
        return {k: v for k, v in more.items() if k in self.form.TAKES}


@cache
def names() -> tuple[str, ...]:
    """The ids of all laws, sorted."""
    return table.files("laws")


def load(name: str) -> Law:
    """A law by its id, or a JSON file that `budget fit-law` wrote. Raises InputError."""
    if name in names():
        return from_table(name, table.load("laws", f"{name}.json"))
    if name.endswith(".json"):
        return _own(name)
    raise unknown("law", name, [*names(), "FILE.json"])


def from_table(name: str, about: Mapping[str, Any]) -> Law:
    """A law from what its file holds."""
    about, draws = {"loss_is": "nats a token, as in your runs", **about}, about.get("draws", {})
    samples = tuple(dict(zip(draws, values, strict=True)) for values in zip(*draws.values(), strict=True))
    return Law(name, about, about["constants"], samples)


def _own(path: str) -> Law:
    """A law of the user's own. Raises InputError for a file that has none."""
    no_law = InputError(
        "law", f"{as_path(path)} is no law; allowed: what `budget fit-law --format json` writes"
    )
    try:
        with open(path, encoding="utf-8") as file:
            about = json.load(file)
        form, constants, draws = about["form"], about["constants"], about["draws"]
        needed = _form(form).CONSTANTS
        numbers = [constants[k] for k in needed] + [x for k in needed for x in draws[k]]
        ends = [x for ends in about["range"].values() for x in ends]
        lengths = {len(draws[k]) for k in needed}
    except OSError as error:
        raise InputError("law", f"cannot read {as_path(path)}: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, ImportError, RecursionError):
        raise no_law from None
    if not all(_is_number(x) for x in numbers + ends) or len(lengths) != 1 or "name" not in about:
        raise no_law
    return from_table(path, {**about, "draws": {k: draws[k] for k in needed}})


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _form(name: str) -> Any:
    if name not in modules(__path__[0]):
        raise KeyError(name)
    return import_module(f"{__name__}.{name}")


def every() -> Iterator[Law]:
    """All laws of the data."""
    return map(load, names())
