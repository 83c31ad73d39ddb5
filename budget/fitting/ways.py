"""Ways to make a model fit: what people try, cheapest first, within a second.

On each axis a later way saves more memory. A way has a kind: the training stays the same, it is the same but
for rounding or much slower, other weights are trained, or sequences are shorter; shorter and another at once
where nothing less is enough. A choice of ways is not tried where one that fits changes no more than it on any
axis. Over several devices whose layout was searched for, choices are tried on the layouts that came nearest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import product
from math import inf, log
from time import perf_counter

from ..answer import Estimate
from ..errors import InputError
from ..estimate import estimate
from ..ir import Model
from ..named import Any, NamedTuple
from ..read import module as modules
from ..read._shapes import sized
from ..read.source import is_module
from .proposals import HOW, KINDS, MIXED, SAME, SHORTER, Axes, Way, proposed

FEW = 40  # choices that are tried for one change
SECONDS = 0.8  # of trying; the cheapest choices are tried first


class Change(NamedTuple):
    """Settings that make a model fit, the estimate with them, their effect on the training, and the names of
    their ways.
    """

    settings: dict[str, Any]
    estimate: Estimate
    kind: str = SAME
    ways: tuple[str, ...] = ()

    @property
    def how(self) -> dict[str, str]:
        """What to set for it in common software for training and serving."""
        return {name: HOW[name] for name in self.ways if name in HOW}


class Advice(NamedTuple):
    """The changes that are enough (first those that keep the training, then the fastest), and what was
    tried.
    """

    changes: tuple[Change, ...]
    tried: tuple[str, ...]
    evaluated: int
    seconds: float
    complete: bool  # whether there was time for all


Ask = Callable[..., Estimate]
Choice = tuple[int, ...]  # for each axis none of its ways (0), or the number of one


class _Trials:
    """Choices that were tried, and whether they fit; None for those that the network or a setting rules
    out.
    """

    def __init__(self, ask: Ask, axes: Axes, until: float):
        self.ask, self.axes, self.until = ask, axes, until
        self.fits: dict[Choice, bool | None] = {}
        self.found: dict[Choice, Change] = {}
        self.complete = True

    def __call__(self, choice: Choice) -> bool | None:
        """Whether a choice fits; also None once the time is over."""
        if choice in self.fits:
            return self.fits[choice]
        # Time is not over before something is found, however slow the machine is.
        if self.found and perf_counter() > self.until:
            self.complete = False
            return None
        ways = [ways[n - 1] for ways, n in zip(self.axes, choice, strict=True) if n]
        change = {k: v for way in ways for k, v in way.settings.items()}
        fits = None
        try:
            answer = self.ask(**change)
        except InputError:
            pass
        else:
            if fits := bool(answer.fits):
                self.found[choice] = Change(change, answer, _called(ways), tuple(way.words for way in ways))
        self.fits[choice] = fits
        return fits

    def any_of(self, choices: Sequence[Choice]) -> None:
        """Try the first ones until one fits."""
        if not any(self(choice) for choice in choices[:FEW]):
            self.complete = self.complete and len(choices) <= FEW

    def pare(self, choice: Choice, kind: int) -> None:
        """Undo all ways that a fitting choice does not need: first those of the last axes, which cost
        most.
        """
        for i in reversed(range(len(choice))):
            low = next(n for n in range(choice[i] + 1) if self._kind_with(choice, i, n) == kind)
            while low < choice[i]:  # a way later on its axis saves more
                middle = (low + choice[i]) // 2
                without = (*choice[:i], middle, *choice[i + 1 :])
                if self(without):
                    choice = without
                else:
                    low = middle + 1

    def _kind_with(self, choice: Choice, i: int, n: int) -> int | None:
        return _kind(self.axes, (*choice[:i], n, *choice[i + 1 :]))

    @property
    def words(self) -> tuple[str, ...]:
        """What was tried, and the ways of the same axis that save less."""
        tried = [choice for choice, fits in self.fits.items() if fits is not None]
        most = [max(numbers) for numbers in zip(*tried, strict=True)] or [0] * len(self.axes)
        ways = (way for ways, n in zip(self.axes, most, strict=True) for way in ways[:n])
        return tuple(dict.fromkeys(way.words for way in ways))


def advise(model: object, seconds: float | None = None, *, first: bool = False, **settings: Any) -> Advice:
    """Changes that make a model fit; `first`: one, of the first kind that has any.

    `seconds` of trying: SECONDS if None. Raises InputError.
    """
    started = perf_counter()
    ask = _asking(model, settings)
    now = ask()
    if now.beyond_one:
        return Advice((), ("weights in four bits",), 1, perf_counter() - started, complete=True)
    axes = proposed(now, given=isinstance(model, Model) or _fixed(settings))
    until = inf if first else started + (SECONDS if seconds is None else seconds)
    dear = is_module(model)  # captured anew for each size
    trials = _tried(_Trials(_laid_out(ask, now, settings), axes, until), first=first, dear=dear)
    if now.tried and not trials.found:
        trials = _tried(_Trials(ask, axes, until), first=first, dear=dear)
    fitting = trials.found
    fewest = (
        change for own, change in fitting.items() if not any(o != own and _less(o, own) for o in fitting)
    )
    tried = sum(fits is not None for fits in trials.fits.values())
    return Advice(
        tuple(sorted(fewest, key=_cost)), trials.words, tried, perf_counter() - started, trials.complete
    )


def _tried(trials: _Trials, *, first: bool, dear: bool) -> _Trials:
    """Try for each kind all ways together, then fewer, then each choice; `first`: until one fits. dear: a
    trial takes long.
    """
    axes, by_kind = trials.axes, _by_kind(trials.axes)
    mixed = by_kind.pop(MIXED, [])
    for kind, choices in by_kind.items():
        together = trials(_most(axes, kind))
        if together and first:
            trials.pare(_most(axes, kind), kind)
        elif together is None and first:  # refused together: the fewest changes that fit
            trials.any_of(choices)
        if first and trials.found:
            break
    if mixed and not trials.found and trials(_most(axes, MIXED)):
        trials.pare(_most(axes, MIXED), MIXED)
    for kind in () if first or dear else by_kind:
        if trials(_most(axes, kind)):
            trials.pare(_most(axes, kind), kind)
    for kind, choices in {} if first else by_kind.items():
        if trials(_most(axes, kind)) is False:
            continue  # if all together are not enough, no fewer are
        for choice in choices:
            if not any(_less(f, choice) for f in trials.found):
                trials(choice)
    return trials


def _laid_out(ask: Ask, now: Estimate, settings: Mapping[str, Any]) -> Ask:
    """`estimate` on two of the layouts that a search found, the fastest and the one nearest to fitting, until
    it fits: to search again for each choice would take many times as long.
    """
    if not now.tried:
        return ask
    nearest, fastest = now.tried[0], max(now.tried, key=lambda t: t.rate)
    layouts = (nearest,) if fastest is nearest else (fastest, nearest)
    given = any(settings.get(name) is not None for name in ("batch", "micro_batch", "inputs"))

    def asked(**changed: Any) -> Estimate:
        for t in layouts:
            batch = {} if given else {"batch": t.batch}
            e = ask(**{"layout": t.layout, "recompute": t.recompute, **batch, **changed})
            if e.fits:
                break
        return e

    return asked


def changes(model: object, **settings: Any) -> list[Change]:
    """Changes that make a model fit, as `advise` has them."""
    return list(advise(model, **settings).changes)


def _cost(change: Change) -> tuple[int, int, int]:
    """The change's effect on the training, its time in steps of 5 %, and how many settings it changes."""
    e, worst = change.estimate, max(map(KINDS.index, change.kind.split(", ")))
    return worst, round(log(e.times.step / e.model.samples) / 0.05), len(change.settings)


def _less(one: Choice, other: Choice) -> bool:
    """Whether one choice changes no more than another on any axis."""
    return all(a <= b for a, b in zip(one, other, strict=True))


def _by_kind(axes: Axes) -> dict[int, list[Choice]]:
    """The choices of each kind, those that change the fewest first."""
    by_kind: dict[int, list[Choice]] = {}
    for choice in product(*(range(len(ways) + 1) for ways in axes)):
        if (kind := _kind(axes, choice)) is not None:
            by_kind.setdefault(kind, []).append(choice)
    return {k: sorted(by_kind[k], key=lambda c: (sum(n > 0 for n in c), c)) for k in sorted(by_kind)}


def _kind(axes: Axes, choice: Choice) -> int | None:
    """A choice's kind; None for the empty choice, and for ways that are not proposed together."""
    kinds = [ways[n - 1].kind for ways, n in zip(axes, choice, strict=True) if n]
    changing = {kind for kind in kinds if kind}
    if len(changing) > 1 and SHORTER in changing:
        return MIXED
    if not kinds or (max(kinds) > 1 and sum(kind > 0 for kind in kinds) > 1):
        return None
    return max(kinds)


def _called(ways: Sequence[Way]) -> str:
    """The kinds of ways together, as an answer has them."""
    return ", ".join(KINDS[kind] for kind in sorted({way.kind for way in ways} - {0})) or SAME


def _most(axes: Axes, kind: int) -> Choice:
    """The last way on each axis that keeps the training, and the last way of this kind."""
    kinds = range(MIXED) if kind == MIXED else (0, kind)
    return tuple(max((i for i, way in enumerate(ways, 1) if way.kind in kinds), default=0) for ways in axes)


def _fixed(settings: Mapping[str, Any]) -> bool:
    """Whether inputs are given whose sizes must not change."""
    return (inputs := settings.get("inputs")) is not None and not sized(inputs)


def _asking(model: object, settings: dict[str, Any]) -> Ask:
    """`estimate` with changed settings; a torch module is captured once for each batch."""
    if not is_module(model):
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
