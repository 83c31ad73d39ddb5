"""What stacks reach, fitted to published runs.

A few factors for each stack (budget/stack/, CLASSES) and for each pair of a stack and a generation of
devices, shrunk towards the stack's own, and those towards one: with few rows, or none, a pair is like its
neighbours. No row has a constant of its own. scoreboard.py judges it on what was left out.
Sources: published-training, published-inference, published-serving, lambda-benchmarks.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from budget import stack as stacks
from budget.device import software
from budget.device.kernel_class import Dispatch, KernelClass, Profile, complete
from budget.device.profile import FOLDER, load
from budget.measured.least_squares import Prior, least_squares
from budget.named import Any
from budget.stack import CLASSES, Stack

from .kernels import Batch, batches, seconds
from .measured import Case

# Of a logarithm: how far a stack's factor lies from one, and a pair's from its stack's, and what is measured
# from the model. Less of kernels that were measured alone on each generation (data/kernels.json): what
# differs is how a stack starts them, and all that nobody measured. Chosen by publications left out.
STACK, PAIR, ROW = 0.25, 0.22, 0.12
KERNEL = 0.1, 0.075  # the first two, of these:
ALONE = ("product", "ordinary", "attention", "stream", "weight_only")
# What all stacks share, and how far it may lie from that: products and attention as measured alone;
# convolutions reach products' rate, but for narrow ones; memory-bound kernels 0.58 of the bandwidth in situ,
# 0.85 / 1.47 (SimuMax has 0.67); starts of kernels as profilers show them, and of operators as litgpt's
# decoding does, each several of torch's; an engine's host between two tokens. Assumed.
SHARED = {
    "product": (1.0, 0.15), "attention": (1.0, 0.15),
    "conv": (0.95, 0.2), "edge": (20.0, 0.5), "pointwise": (0.68, 0.1), "experts": (1.0, 0.3),
    "grouped": (1.0, 0.3), "launch": (5e-6, 0.2), "host": (5e-5, 0.3), "turn": (2e-4, 0.5),
    "sequence": (1e-5, 0.5),
}  # fmt: skip
STEP = 0.02  # of a logarithm, by which numbers are moved to see what rows do
STEPS, ENOUGH = 60, 1e-6  # at most so many, or until one gains less of the cost
# The same through soft maxima, and from the numbers of all rows on where a few are left out: of vLLM's 311
# rows, each publication left out, nine in ten errors are within 0.002 of what ENOUGH says, in a twentieth of
# the time.
ROUGH = 1e-4
# A step takes the longer of the device's and the host's seconds, and what is shorter has no slope: a fit
# would end where its start has it. So it goes through soft maxima, norms of these orders, to the real one.
NORMS = 2.0, 6.0, math.inf  # Source: graduated-non-convexity.
# A larger error counts linearly, and so does a number farther than its width from where it is drawn to: one
# bad row must not rule a stack, nor one odd stack what all share.
FAR, ODD = 0.1, 1.5


Name = tuple[str, ...]  # (class), (stack, class), (stack, generation, class)
Numbers = Mapping[Name, float]


def base(numbers: Numbers) -> Profile:
    """The profile that all stacks share."""
    datasheet = load(os.path.join(FOLDER, "datasheet.json"))
    forms = {
        "matmul": KernelClass(share=numbers["product",]),
        "attention": KernelClass(share=numbers["attention",]),
        "conv": KernelClass(share=numbers["conv",], edge=(numbers["edge",],) * 3),
        "pointwise": KernelClass(traffic=1 / numbers["pointwise",]),
        "grouped": KernelClass(numbers["grouped",], bandwidth=numbers["experts",]),
    }
    launch, dispatch = numbers["launch",], Dispatch(numbers["host",], numbers["host",], 0.0)
    turn = numbers["turn",], numbers["sequence",]
    return datasheet._replace(forms=complete(forms), launch_s=launch, dispatch=dispatch, turn=turn)


def fitted(name: str, numbers: Numbers, generations: Iterable[str], version: str = "") -> Stack:
    """A stack with its factors, or another version of it, which has them too."""
    everywhere = {c: numbers.get((name, c), 1.0) for c in CLASSES}
    pairs = {g: {c: everywhere[c] * numbers.get((name, g, c), 1.0) for c in CLASSES} for g in generations}
    return stacks.load(version or name)._replace(reached={"": everywhere, **pairs}, like="")


def predictions(batched: Sequence[Batch], numbers: Numbers, norm: float = math.inf) -> Any:
    """Logarithms of the predicted seconds of all rows. norm: see `seconds`."""
    common, generations = base(numbers), {b.device.generation for b in batched}
    versions = {(b.stack, b.version) for b in batched}
    fits = {(name, version): fitted(name, numbers, generations, version) for name, version in versions}
    predicted = np.zeros(1 + max(b.rows.max() for b in batched))
    for b in batched:
        stack = fits[b.stack, b.version].run(b.mode, b.execution, b.attention)
        profile = software.profile(common, b.device, stack, b.dtype, mode=b.mode)
        np.add.at(predicted, b.rows, seconds(b, profile, norm))
    return np.log(predicted)


def start() -> dict[Name, float]:
    """Where a fit of what all stacks share starts, and what it is drawn to."""
    return {(name,): value for name, (value, _) in SHARED.items()}


def fit(
    cases: Sequence[Case],
    begin: Numbers,
    known: Numbers | None = None,
    *,
    shared: bool = True,
    norms: Sequence[float] = NORMS,
    enough: float = ENOUGH,
) -> dict[Name, float]:
    """The numbers that predict the cases best, each drawn to where it comes from.

    known: numbers from which to go on. shared: also those that all stacks share. enough: a step that gains
    less of the cost is the last.
    """
    numbers = dict(known or {})
    for norm in norms:
        last = enough if norm == math.inf else ROUGH
        numbers = _fit(cases, begin, numbers, norm, shared=shared, enough=last)
    return numbers


def _fit(
    cases: Sequence[Case], begin: Numbers, known: Numbers, norm: float, *, shared: bool, enough: float
) -> dict[Name, float]:
    """The numbers that predict best by a norm, from those that are known."""
    names = [*(begin if shared else ()), *_names(cases)]
    first = {**begin, **known}
    origin = np.array([math.log(begin.get(n, 1.0)) for n in names])
    x = np.array([math.log(first.get(n, 1.0)) for n in names])
    width = np.array([_width(n) for n in names])
    measured, batched = np.array([c.measured for c in cases]), batches(cases)
    concerns = np.array([[n[:-1] == (c.stack, c.generation)[: len(n) - 1] for n in names] for c in cases])
    common = {n: v for n, v in first.items() if len(n) == 1}

    def at(x: Any) -> dict[Name, float]:
        return {**common, **{n: math.exp(v) for n, v in zip(names, x, strict=True)}}

    def errors(x: Any) -> Any:
        return (predictions(batched, at(x), norm) - measured) / ROW

    def slopes(x: Any, _: Any) -> Any:
        return _slopes(batched, names, concerns, at(x), norm)

    prior = Prior(origin, width, ODD)
    return at(least_squares(errors, slopes, x, prior, far=FAR / ROW, steps=STEPS, enough=enough))


def _slopes(
    batched: Sequence[Batch], names: Sequence[Name], concerns: Any, numbers: Numbers, norm: float
) -> Any:
    """The errors' derivatives by the numbers' logarithms, [rows, names]. concerns: [rows, names], whether a
    number is one of a row's.

    All numbers of a class move a row alike that they concern, so each class is moved once: both ways by STEP,
    which sees both sides of a kink (arithmetic or traffic, device or host, whichever is longer), as a minimum
    lies in one as often as not.
    """
    owners: list[Name] = [(stack,) for stack in sorted({b.stack for b in batched})]

    def moved(kind: str, by: float) -> Any:
        of_kind = [(*owner, kind) for owner in (owners if kind in CLASSES else [()])]
        changed = {n: numbers.get(n, 1.0) * math.exp(by) for n in of_kind}
        return predictions(batched, {**numbers, **changed}, norm)

    kinds = sorted({n[-1] for n in names})
    slope = {kind: (moved(kind, STEP) - moved(kind, -STEP)) / (2 * STEP * ROW) for kind in kinds}
    return np.stack([slope[n[-1]] for n in names], axis=1) * concerns


def _names(cases: Sequence[Case]) -> Iterator[Name]:
    for stack in sorted({c.stack for c in cases}):
        yield from ((stack, c) for c in CLASSES)
        pairs = sorted({c.generation for c in cases if c.stack == stack})
        yield from ((stack, g, c) for g in pairs for c in CLASSES)


def _width(name: Name) -> float:
    if len(name) == 1:
        return SHARED[name[0]][1]
    stack, pair = KERNEL if name[-1] in ALONE else (STACK, PAIR)
    return stack if len(name) == 2 else pair
