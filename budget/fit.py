"""Fitting a model into memory: the largest size that fits, and changes that make a model fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import product
from math import inf, log

from .answer import Estimate
from .config import table
from .errors import InputError
from .estimate import estimate
from .ir import Model, walk
from .named import Any, NamedTuple
from .plan.fp8 import is_linear
from .read import module as modules
from .read._shapes import sized

SOLVE = ("batch", "seq", "image", "layers")
MOST = 2**24  # no sensible answer is larger
QUANTIZED = ("none", "int8", "nf4", "nf4-dq")  # weights to serve from, each in fewer bits
SIDES = range(32, 1025, 32)  # of the smallest image: networks with many stages, and with windows, need more
FAR = 16  # times a known size: a line through two known ones is not trusted beyond

# Changes that leave the results of training the same, or nearly; each axis starts with the usual value.
AXES: dict[str, tuple[str, ...]] = {
    "attention": ("eager", "fused", "sdpa", "flash"),
    "recompute": ("none", "selective", "full"),
    "optimizer": ("adamw", "adamw_8bit"),
}
OF_MODULES = ("optimizer",)  # axes that a torch module's own code does not fix


class Change(NamedTuple):
    """Settings that make a model fit, and the estimate with them."""

    settings: dict[str, Any]
    estimate: Estimate


def largest(model: object, solve: str, **settings: Any) -> tuple[int, Estimate | None]:
    """The largest batch, length, image or number of layers whose peak fits, and its estimate.

    0 and None where not even the smallest does. A torch module is captured for every size that is
    tried; its layers are its own. Raises InputError.
    """
    allowed = SOLVE[:-1] if modules.is_module(model) else SOLVE
    if solve not in allowed:
        raise InputError("--solve", f"got {solve!r}; allowed: {', '.join(allowed)}")
    if (inputs := settings.get("inputs")) is not None and (solve != "batch" or not sized(inputs)):
        raise InputError(
            "--solve", "the inputs are given; allowed: a module alone, or batch of --input's sizes"
        )
    known: dict[int, Estimate] = {}
    refused: list[InputError] = []

    def excess(n: int) -> float:
        try:
            answer = known[n] = estimate(model, **_sized(settings, solve, n))
        except InputError as error:
            # A context's end, an odd patch: as good as too large, unless nothing is possible at all.
            if solve == "image" or (n > 1 and solve == "seq" and error.field in (solve, "inputs")):
                refused.append(error)
                return inf
            raise
        return float(answer.process - answer.device.usable_bytes)

    smallest = SIDES if solve == "image" else (1,)
    low = next((n for n in smallest if excess(n) < inf), 0)
    if not low:
        raise refused[0]
    best = _search(excess, low, _halved if solve == "image" else _on_line)
    if best == MOST and known[best].memory.peak == known[low].memory.peak:
        raise InputError("--solve", f"{known[low].model.name} has no {solve}; allowed: a size that it has")
    return best, known.get(best)


def _sized(settings: Mapping[str, Any], solve: str, n: int) -> dict[str, Any]:
    if solve == "layers":
        return {**settings, "config": {**table("config", settings.get("config")), "layers": n}}
    return {**settings, solve: n}


Known = Mapping[int, float]  # sizes that were tried, and the bytes by which each is too large


def _search(excess: Callable[[int], float], low: int, guess: Callable[[Known, int, int], int]) -> int:
    """The largest n from `low` to MOST that is not too large, if a larger one never is less so; else 0."""
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

    Every third time the middle: what is no line ends too.
    """
    other = high if known.get(high, inf) < inf else max((n for n in known if n < low), default=low)
    rise = known[other] - known[low]
    if not rise or len(known) % 3 == 0:
        return _halved(known, low, high)
    met = low - int(known[low] * (other - low) / rise)
    return min(max(met, high // FAR if high <= MOST else low), low * FAR)


def changes(model: object, **settings: Any) -> list[Change]:
    """Changes that make a model fit, fastest first; among about equally fast ones, the simpler first."""
    found = [c for c in _candidates(model, settings) if c.estimate.fits]
    # In steps of 5 %: predicted times are no more accurate than that.
    found.sort(
        key=lambda c: (round(log(c.estimate.times.step / c.estimate.model.samples) / 0.05), len(c.settings))
    )
    kept: list[Change] = []
    for c in found:  # skip supersets of a change that is enough
        if not any(set(k.settings.items()) <= set(c.settings.items()) for k in kept):
            kept.append(c)
    return kept


def _candidates(model: object, settings: dict[str, Any]) -> Iterator[Change]:
    """For each combination along the axes: the largest batch that fits, else the smallest."""
    ask = _asking(model, settings)
    first = ask()
    batch = first.task.workload.batch
    inputs = settings.get("inputs")
    given = isinstance(model, Model) or (inputs is not None and not sized(inputs))
    batches = [{}] if given else [{}, *({"batch": n} for n in _halvings(batch // 2))]
    axes = _axes(first)
    if not ask(**{axis: values[-1] for axis, values in axes.items()}, **batches[-1]).fits:
        return  # if all changes together are not enough, no fewer are
    for chosen in product(*axes.values()):
        changed = {axis: v for (axis, values), v in zip(axes.items(), chosen, strict=True) if v != values[0]}
        for size in batches:
            setting = {**changed, **size}
            answer = ask(**setting)
            yield Change(setting, answer)
            if answer.fits:
                break


def _halvings(batch: int) -> Iterator[int]:
    while batch >= 1:
        yield batch
        batch //= 2


def _axes(now: Estimate) -> dict[str, tuple[str, ...]]:
    """What can be changed: for each axis the present value and those after it."""
    if now.task.workload.mode != "train":
        stored = now.task.techniques.used.get("quantize", "none")
        return {"quantize": QUANTIZED[QUANTIZED.index(stored) :]} if _quantizes(now, stored) else {}
    names = OF_MODULES if modules.is_captured(now.model) else AXES
    used = {axis: getattr(now.task, axis) for axis in names}
    return {
        axis: AXES[axis][AXES[axis].index(value) :] if value in AXES[axis] else (value,)
        for axis, value in used.items()
    }


def _quantizes(now: Estimate, stored: str) -> bool:
    """Whether plan/quantize.py can quantize weights of this model further."""
    named = not modules.is_captured(now.model) and stored in QUANTIZED
    return named and any(is_linear(o) for o, _ in walk(now.model.nodes))


def _asking(model: object, settings: dict[str, Any]) -> Callable[..., Estimate]:
    """`estimate` with changed settings; a torch module is captured once for each batch."""
    if not modules.is_module(model):
        return lambda **changed: estimate(model, **{**settings, **changed})
    rest = {k: v for k, v in settings.items() if k not in modules.SIZES}

    @cache
    def program(batch: int | None) -> Model:
        own = {k: v for k, v in settings.items() if k in (*modules.SIZES, "mode", "dtype")}
        return modules.program(model, **{**own, "batch": batch})

    def ask(**changed: Any) -> Estimate:
        batch = changed.pop("batch", settings.get("batch"))
        return estimate(program(batch), **{**rest, **changed})

    return ask
