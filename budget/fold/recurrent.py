"""Recurrent layers as an accelerator's library runs them.

The elementwise work of a step is one kernel, and the gradient of a loop's weight is one product over all
steps after the loop. Source: cudnn-rnn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from ..size import Size
from .kernels import Work


def at_once(kernels: Iterable[Work]) -> Iterator[Work]:
    """The kernels of a program, with those of recurrent cells joined where one kernel does their work."""
    kernels = list(kernels)
    steps: dict[tuple[str, bool], Size] = {}
    for w in kernels:
        if w.summed:
            steps[_gradient(w)] = steps.get(_gradient(w), 0) + w.times
    for elements, run in groupby(_once(kernels, steps), _elements):
        first, *others = run
        for w in others if elements else ():
            first = first._replace(pointwise=first.pointwise + w.pointwise, bytes=first.bytes + w.bytes)
        yield first
        yield from () if elements else others


def _gradient(w: Work) -> tuple[str, bool]:
    """The operator whose weight's gradient a kernel is part of, and whether it multiplies."""
    return w.op, w.gemm is not None


def _once(kernels: Iterable[Work], steps: dict[tuple[str, bool], Size]) -> Iterator[Work]:
    """The kernels, with a gradient's only once, for all steps."""
    for w in kernels:
        if not w.summed:
            yield w
        elif _gradient(w) in steps:
            yield _of_all_steps(w, steps.pop(_gradient(w)))


def _elements(w: Work) -> tuple[str, int] | None:
    """A key that elementwise neighbours in one step of a loop share (their `times` is one object); None for
    other kernels.
    """
    return (w.phase, id(w.times)) if w.form == "recurrent" and w.gemm is None and not w.summed else None


def _of_all_steps(w: Work, times: Size) -> Work:
    """One kernel instead of one for each step: a product over all steps, or the sum next to it."""
    if (g := w.gemm) is None:
        return w._replace(times=1)
    inputs = g.k * (g.m + g.n)
    size = w.bytes / (g.m * g.n + inputs)
    return w._replace(
        form="matmul",
        times=1,
        contraction=w.contraction * times,
        bytes=size * (g.m * g.n + inputs * times),
        gemm=g._replace(k=g.k * times),
    )
