"""Does it fit, what is the largest that does, and what would make it fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from math import log

from .errors import InputError
from .estimate import Estimate, estimate
from .named import Any, NamedTuple

SOLVE = ("batch", "seq", "image", "layers")
MOST = 2**24  # no sensible answer is larger

# Changes that leave the results of training as they are, or nearly; each axis from what is usual on.
AXES: dict[str, tuple[str, ...]] = {
    "attention": ("eager", "fused", "flash"),
    "recompute": ("none", "selective", "full"),
    "optimizer": ("adamw", "adamw_8bit"),
}


class Change(NamedTuple):
    """Settings that make a model fit, and what they give."""

    settings: dict[str, Any]
    estimate: Estimate


def largest(model: object, solve: str, **settings: Any) -> tuple[int, Estimate | None]:
    """The largest batch, length, image or number of layers whose peak fits, and its estimate.

    0 and None where not even the smallest does. Raises InputError.
    """
    if solve not in SOLVE:
        raise InputError("--solve", f"got {solve!r}; allowed: {', '.join(SOLVE)}")

    def at(n: int) -> Estimate:
        if solve == "layers":
            return estimate(model, **{**settings, "config": {**settings.get("config", {}), "layers": n}})
        return estimate(model, **{**settings, solve: n})

    low = 32 if solve == "image" else 1
    known: dict[int, Estimate] = {}

    def fits(n: int) -> bool:
        try:
            known[n] = at(n)
        except InputError as error:
            # A context's end, an odd patch: as good as too large, unless nothing is possible at all.
            if n == low or error.field not in ("seq", "image"):
                raise
            return False
        return bool(known[n].fits)

    best = _bisect(fits, low)
    return best, known.get(best)


def _bisect(fits: Callable[[int], bool], low: int) -> int:
    """The largest n from `low` on that fits, if a larger one never does when a smaller does not."""
    if not fits(low):
        return 0
    high = 2 * low
    while high <= MOST and fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def changes(model: object, **settings: Any) -> list[Change]:
    """Changes that make a model fit, the fastest first, and of about equally fast ones the smaller ones."""
    found = [c for c in _candidates(model, settings) if c.estimate.fits]
    # Steps of 5 %: predicted times are not surer than that.
    found.sort(
        key=lambda c: (round(log(c.estimate.times.step / c.estimate.model.samples) / 0.05), len(c.settings))
    )
    kept: list[Change] = []
    for c in found:  # what adds to a change that is enough already is no news
        if not any(set(k.settings.items()) <= set(c.settings.items()) for k in kept):
            kept.append(c)
    return kept


def _fits_at_best(model: object, settings: dict[str, Any], first: Estimate) -> bool:
    """Whether the most that can be changed is enough: if not, nothing less is."""
    most = {axis: values[-1] for axis, values in AXES.items()} if first.task.workload.mode == "train" else {}
    return bool(estimate(model, **{**settings, **most, "batch": 1}).fits)


def _candidates(model: object, settings: dict[str, Any]) -> Iterator[Change]:
    first = estimate(model, **settings)
    batch = first.task.workload.batch
    if not _fits_at_best(model, settings, first):
        return
    now = {
        "attention": first.task.attention,
        "recompute": first.task.recompute,
        "optimizer": first.task.optimizer,
    }
    choices = [
        values[values.index(now[axis]) :] if now[axis] in values else (now[axis],)
        for axis, values in AXES.items()
    ]
    if first.task.workload.mode != "train":
        choices = [(value,) for value in now.values()]
    for values in product(*choices):
        changed = {axis: v for axis, v in zip(AXES, values, strict=True) if v != now[axis]}
        size = batch
        while size >= 1:
            setting = {**changed, **({"batch": size} if size != batch else {})}
            answer = estimate(model, **{**settings, **setting})
            yield Change(setting, answer)
            if answer.fits:
                break
            size //= 2
