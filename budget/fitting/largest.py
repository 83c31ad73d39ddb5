"""Fitting a model into memory: does it fit, how large may it be, and what would make it fit (ways.py)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf

from ..answer import Estimate
from ..answer.face import Shown
from ..config import table, without_none
from ..errors import InputError
from ..estimate import estimate
from ..named import TYPE_CHECKING, Any, NamedTuple
from ..read.source import is_module
from .ways import Advice, advise

if TYPE_CHECKING:
    from typing import Unpack

    from ..keywords import Settings

SCHEMA = "budget.fit/1"
SOLVE = ("batch", "seq", "image", "layers")
DEVICES = "devices"  # solved for the fewest; everything else for the most
MOST = 2**24  # no sensible answer is larger
SIDES = range(32, 1025, 32)  # of the smallest image: networks with many stages, or windows, need larger ones
MOST_DEVICES = 1024  # where these are too few, more do not help: each device holds too much by itself
SHOWN = 8  # changes that help, at most
NONE = Advice((), (), 0, 0.0, complete=True)
TRUSTED = 16  # times a known size: as far as a line through two known sizes is believed


class _Fit(NamedTuple):
    estimate: Estimate  # with the largest size, or as it was asked for
    solve: str  # what was solved for, or ""
    largest: int  # its largest value (devices: the fewest); 0 where nothing was solved for, or fits
    advice: Advice


class Fit(Shown, _Fit):
    """Whether a model fits, the largest size that does, or what would make it fit."""

    report = "_fit"

    def __repr__(self) -> str:
        answer = f"{self.solve} {self.largest:,}" if self.largest else f"{len(self.advice.changes)} changes"
        return f"Fit({self.estimate.model.name}, {'fits' if self.fits else 'does not fit'}, {answer})"

    def __bool__(self) -> bool:
        return self.fits

    @property
    def fits(self) -> bool:
        """Whether it fits, at the largest size where one was solved for."""
        return bool(self.estimate.fits)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of `budget fit`."""
        answer = {"schema": SCHEMA, "fits": self.fits, "estimate": self.estimate.to_dict()}
        if self.largest:
            end = "fewest" if self.solve == DEVICES else "largest"
            return {**answer, "solve": self.solve, end: self.largest}
        changes = [
            {"settings": c.settings, "kind": c.kind, "how": c.how, "estimate": c.estimate.to_dict()}
            for c in self.advice.changes[:SHOWN]
        ]
        advice = self.advice
        tried = {"tried": [*advice.tried], "evaluated": advice.evaluated, "complete": advice.complete}
        return {**answer, "changes": changes, **tried}


def fit(model: object, solve: str = "", **settings: Unpack[Settings]) -> Fit:
    """Whether a model fits a device, and what would make it fit; or the largest size that fits.

    bool(budget.fit("llama-3-8b", device="h100")); budget.fit("gpt2", "batch", device="a100").largest

    solve: batch, seq, image or layers, to find the largest that fits; or devices, to find the fewest of 1, 2,
    4, ..., or of three quarters of these in whole nodes.
    settings: those of budget.estimate. Raises InputError.
    """
    given = without_none(settings)
    if solve:
        solved = fewest(model, **given) if solve == DEVICES else largest(model, solve, **given)
        best, fits = solved
        if fits is not None:
            return Fit(fits, solve, best, NONE)
    now = estimate(model, **given)
    return Fit(now, solve, 0, NONE if now.fits else advise(model, **given))


def largest(model: object, solve: str, **settings: Any) -> tuple[int, Estimate | None]:
    """The largest batch, length, image or number of layers whose peak fits, and its estimate.

    0 and None where not even the smallest fits. A torch module is captured for every size that is tried, and
    its layers cannot change. Raises InputError.
    """
    allowed = SOLVE[:-1] if is_module(model) else SOLVE
    if solve not in allowed:
        raise InputError("--solve", f"got {solve!r}; allowed: {', '.join((*allowed, DEVICES))}")
    if settings.get("inputs") is not None and solve != "batch":
        raise InputError("--solve", "the inputs are given; allowed: batch, their first dimension")
    known: dict[int, Estimate] = {}
    refused: list[InputError] = []

    def excess(n: int) -> float:
        try:
            answer = known[n] = estimate(model, **_sized(settings, solve, n))
        except InputError as error:
            # An impossible size (beyond the context, an odd patch) counts as too large, unless no size is
            # possible.
            if solve == "image" or (n > 1 and solve == "seq" and error.field in (solve, "inputs")):
                refused.append(error)
                return inf
            raise
        return float(answer.needed - answer.device.usable_bytes)

    smallest = SIDES if solve == "image" else (1,)
    low = next((n for n in smallest if excess(n) < inf), 0)
    if not low:
        raise refused[0]
    best = _search(excess, low, _halved if solve == "image" else _on_line)
    if best == MOST and known[best].memory.peak == known[low].memory.peak:
        raise InputError("--solve", f"{known[low].model.name} has no {solve}; allowed: a size that it has")
    return best, known.get(best)


def fewest(model: object, **settings: Any) -> tuple[int, Estimate | None]:
    """The fewest devices on which the best layout of a small search fits, and its estimate: 1, 2, 4, ... or
    three quarters of these in whole nodes. 0 and None where no number is enough: a layer is too large.

    Raises InputError.
    """
    for name in (DEVICES, "layout"):
        if settings.pop(name, None) is not None:
            raise InputError("--solve", f"got devices and {name}; allowed: one of them")
    alone = estimate(model, **settings)
    if alone.fits:
        return 1, alone
    held = alone.memory.parameters + alone.memory.gradients + alone.memory.optimizer
    room = alone.device.usable_bytes - alone.reserve.bytes
    n, before = 2, inf
    while n <= MOST_DEVICES:
        if n * room >= held:  # fewer cannot hold it
            best = estimate(model, devices=n, **settings)
            if best.fits:
                fewer = 3 * n // 4
                whole = best.cluster is not None and fewer % best.cluster.node == 0
                less = estimate(model, devices=fewer, **settings) if whole and fewer * room >= held else best
                return (fewer, less) if less.devices == fewer and less.fits else (n, best)
            if best.needed >= before:
                break
            before = float(best.needed)
        n *= 2
    return 0, None


def _sized(settings: Mapping[str, Any], solve: str, n: int) -> dict[str, Any]:
    if solve == "layers":
        return {**settings, "config": {**table("config", settings.get("config")), "layers": n}}
    return {**settings, solve: n}


Known = Mapping[int, float]  # sizes that were tried, and the bytes by which each is too large


def _search(excess: Callable[[int], float], low: int, guess: Callable[[Known, int, int], int]) -> int:
    """The largest n from `low` to MOST that fits, 0 for none; a larger n must never need less."""
    known = {low: excess(low)}
    if known[low] > 0:
        return 0
    high = MOST + 1
    while high - low > 1:
        n = min(max(guess(known, low, high), low + 1), high - 1)
        known[n] = excess(n)
        low, high = (low, n) if known[n] > 0 else (n, high)
    return low


def _halved(_: Known, low: int, high: int) -> int:
    """Twice the size, until one is too large; then the middle. Sides of images stay round numbers."""
    return 2 * low if high > MOST else (low + high) // 2


def _on_line(known: Known, low: int, high: int) -> int:
    """Where the line through two known sizes meets the limit: a peak is piecewise linear in the batch.

    Every third time the middle is tried, so that the search also ends where the peak is no line.
    """
    other = high if known.get(high, inf) < inf else max((n for n in known if n < low), default=low)
    rise = known[other] - known[low]
    if not rise or len(known) % 3 == 0:
        return _halved(known, low, high)
    met = low - int(known[low] * (other - low) / rise)
    return min(max(met, high // TRUSTED if high <= MOST else low), low * TRUSTED)
