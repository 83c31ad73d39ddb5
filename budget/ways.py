"""Ways to make a model fit: what people try, cheapest first, within a second.

Each axis has ways in the order in which they save memory; a way has a kind: the training stays the same, it
is the same but for rounding or much slower, other weights are trained, or sequences are shorter. A choice
of ways that is no less of anything than one that fits is not tried.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from itertools import product
from math import inf, log
from time import perf_counter

from .answer import Estimate
from .errors import InputError
from .estimate import estimate
from .ir import LOSS, Model, walk
from .named import Any, NamedTuple
from .read import module as modules
from .read._shapes import sized

SAME, NEARLY, OTHER, SHORTER = KINDS = ("same", "nearly the same", "other weights", "shorter")
SECONDS = 0.8  # of trying; what is tried first is what costs least
QUANTIZED = ("none", "int8", "nf4", "nf4-dq")  # weights to serve from, each in fewer bits
ATTENTION = ("eager", "sdpa")
RECOMPUTE = ("none", "selective", "full")
SEQ = 512  # no way is shorter
LEAST = 0.5  # bytes of a weight: no way stores one in fewer
RANK = 16  # of adapters that are proposed


class Way(NamedTuple):
    """Settings that save memory, what they are called, and their kind's place in KINDS."""

    settings: dict[str, Any]
    words: str
    kind: int = 0


class Change(NamedTuple):
    """Settings that make a model fit, the estimate with them, and what becomes of the training."""

    settings: dict[str, Any]
    estimate: Estimate
    kind: str = SAME


class Advice(NamedTuple):
    """The changes that are enough, those that keep the training first, then the fastest; what was tried."""

    changes: tuple[Change, ...]
    tried: tuple[str, ...]
    evaluated: int
    seconds: float
    complete: bool  # whether there was time for all


Ask = Callable[..., Estimate]
Axes = tuple[tuple[Way, ...], ...]
Choice = tuple[int, ...]  # of each axis none (0), or the number of one of its ways


class _Trials:
    """Choices that were tried, and whether they fit; None where a network or a setting cannot have them."""

    def __init__(self, ask: Ask, axes: Axes, until: float):
        self.ask, self.axes, self.until = ask, axes, until
        self.fits: dict[Choice, bool | None] = {}
        self.found: dict[Choice, Change] = {}
        self.complete = True

    def __call__(self, choice: Choice, kind: int) -> bool | None:
        """Whether a choice fits; None too where time is over."""
        if choice in self.fits:
            return self.fits[choice]
        # Not before something is found, however slow a machine is.
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
                self.found[choice] = Change(change, answer, KINDS[kind])
        self.fits[choice] = fits
        return fits

    def pare(self, choice: Choice, kind: int) -> None:
        """Leave out what a choice that fits can do without: the last axes, which cost most, first."""
        for i in reversed(range(len(choice))):
            low = next(n for n in range(choice[i] + 1) if self._kind_with(choice, i, n) == kind)
            while low < choice[i]:  # a way later on its axis saves more
                middle = (low + choice[i]) // 2
                without = (*choice[:i], middle, *choice[i + 1 :])
                if self(without, kind):
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
    if now.spread is None and now.params.total * LEAST > now.device.usable_bytes:
        return Advice((), ("weights in four bits",), 1, perf_counter() - started, complete=True)
    axes = _axes(now, given=isinstance(model, Model) or _fixed(settings))
    trials = _Trials(ask, axes, inf if first else started + (SECONDS if seconds is None else seconds))
    by_kind = _by_kind(axes)
    dear = modules.is_module(model)  # captured anew for each size
    for kind in by_kind:
        if trials(_most(axes, kind), kind) and (first or not dear):
            trials.pare(_most(axes, kind), kind)
            if first:
                break
    for kind, choices in {} if first else by_kind.items():
        if trials(_most(axes, kind), kind) is False:
            continue  # if all together are not enough, no fewer are
        for choice in choices:
            if not any(_less(f, choice) for f in trials.found):
                trials(choice, kind)
    found = trials.found
    fewest = (change for own, change in found.items() if not any(o != own and _less(o, own) for o in found))
    tried = sum(fits is not None for fits in trials.fits.values())
    return Advice(
        tuple(sorted(fewest, key=_cost)), trials.words, tried, perf_counter() - started, trials.complete
    )


def changes(model: object, **settings: Any) -> list[Change]:
    """Changes that make a model fit, as `advise` has them."""
    return list(advise(model, **settings).changes)


def _cost(change: Change) -> tuple[int, int, int]:
    """What becomes of the training, its time in steps of 5 %, how much changes."""
    e = change.estimate
    return KINDS.index(change.kind), round(log(e.times.step / e.model.samples) / 0.05), len(change.settings)


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
    """A choice's kind; None for nothing, and for what is not proposed together."""
    kinds = [ways[n - 1].kind for ways, n in zip(axes, choice, strict=True) if n]
    if not kinds or (max(kinds) > 1 and sum(kind > 0 for kind in kinds) > 1):
        return None
    return max(kinds)


def _most(axes: Axes, kind: int) -> Choice:
    """All ways that keep the training together, and the last one of this kind."""
    return tuple(
        max((i for i, way in enumerate(ways, 1) if way.kind in (0, kind)), default=0) for ways in axes
    )


def _axes(now: Estimate, *, given: bool) -> Axes:
    """What can be changed: for each axis its ways behind the present value."""
    task, used = now.task, now.task.techniques.used
    train, captured = task.workload.mode == "train", modules.is_captured(now.model)
    batches = () if given else _batches(task.workload.batch, used, accumulate=train and not captured)
    if not train:
        return (_quantized(now, used), batches)
    fewer = (
        Way({"optimizer": "adamw_fused"}, "a fused optimizer"),
        Way({"optimizer": "adamw_8bit"}, "an 8-bit optimizer", 1),
    )
    known = {"adamw": fewer, "adamw_fused": fewer[1:]}
    optimizer = known.get(task.optimizer, ())
    if captured:
        return (optimizer, batches)
    sdpa, again = _behind(ATTENTION, task.attention), _behind(RECOMPUTE, task.recompute)
    return (
        optimizer,
        _chunked(now, str(used.get("fuse", ""))),
        tuple(Way({"attention": name}, f"attention {name}") for name in sdpa),
        batches,
        tuple(Way({"recompute": name}, "recomputation") for name in again),
        () if "offload" in used else (Way({"offload": "optimizer"}, "offload", 1),),
        (Way({"precision": "pure"}, "pure 16 bits", 1),) if task.precision in ("autocast", "master") else (),
        _adapters(used),
        _shorter(now),
    )


def _behind(names: tuple[str, ...], name: str) -> tuple[str, ...]:
    return names[names.index(name) + 1 :] if name in names else ()


def _chunked(now: Estimate, fuse: str) -> tuple[Way, ...]:
    """A loss whose logits exist by chunks, where there is one over a vocabulary."""
    from .plan.fused import OF_LOSS

    losses = any(o.tag == LOSS and "s" in o.ins[0].dims for o, _ in walk(now.program.nodes))
    if not losses or any(name in fuse.split(",") for name in OF_LOSS):
        return ()
    names = ",".join(filter(None, (fuse, "chunked_cross_entropy")))
    return (Way({"fuse": names}, "a chunked loss"),)


def _batches(batch: int, used: Mapping[str, Any], *, accumulate: bool) -> tuple[Way, ...]:
    """Smaller micro-batches: as many more of them where the step stays the same."""
    if not isinstance(batch, int):
        return ()
    halves: list[int] = []
    while (batch := batch // 2) >= 1:
        halves.append(batch)
    if not accumulate:
        return tuple(Way({"batch": n}, "a smaller batch") for n in halves)
    whole = 2 * halves[0] if halves else 1
    steps = used.get("accumulate", 1)
    return tuple(
        Way({"batch": n, "accumulate": steps * whole // n}, "accumulation") for n in halves if whole % n == 0
    )


def _adapters(used: Mapping[str, Any]) -> tuple[Way, ...]:
    """LoRA, and on weights in four bits, where the network's own weights are trained now."""
    from .plan import keeps_weights

    if keeps_weights(used) or used.get("precision") == "fp8":
        return ()
    lora = {"lora_rank": RANK, "precision": "pure"}
    return (Way(lora, "LoRA", 2), Way({**lora, "quantize": "nf4-dq"}, "QLoRA", 2))


def _shorter(now: Estimate) -> tuple[Way, ...]:
    """Half of the sequence, and so on."""
    seq = now.length if now.model.counts_tokens else 0
    halves = (seq // 2**n for n in (1, 2, 3)) if isinstance(seq, int) else ()
    return tuple(Way({"seq": n}, "shorter sequences", 3) for n in halves if n >= SEQ)


def _quantized(now: Estimate, used: Mapping[str, Any]) -> tuple[Way, ...]:
    """Weights to serve from in fewer bits, where plan/quantize.py can have them so."""
    from .plan.fp8 import is_linear

    stored = used.get("quantize", "none")
    named = not modules.is_captured(now.model) and stored in QUANTIZED
    if not named or not any(is_linear(o) for o, _ in walk(now.model.nodes)):
        return ()
    return tuple(Way({"quantize": name}, "weights in fewer bits") for name in _behind(QUANTIZED, stored))


def _fixed(settings: Mapping[str, Any]) -> bool:
    """Whether inputs are given whose sizes are not to be changed."""
    return (inputs := settings.get("inputs")) is not None and not sized(inputs)


def _asking(model: object, settings: dict[str, Any]) -> Ask:
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
