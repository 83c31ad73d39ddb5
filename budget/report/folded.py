"""Folded stacks: input of flamegraph.pl and speedscope, which draw the predicted time as a flame graph.

Each line is a path (network, phase, blocks, operator) and its time in nanoseconds. Source: flamegraph.
`gpt2;backward;layers;attn;q 51730`.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..answer import Estimate
from ..errors import InputError
from ..size import is_number
from ._answer import Answer


def render(answer: Answer) -> str:
    """One line per operator and phase of each estimate. Raises InputError for arrays or no estimate."""
    if not answer.estimates or not all(is_number(e.times.step) for e in answer.estimates):
        raise InputError("format", "folded shows the times of single cases; allowed: json, csv")
    return "\n".join(line for e in answer.estimates for line in _stacks(e))


def _stacks(e: Estimate) -> Iterator[str]:
    seconds: dict[tuple[str, ...], float] = {}
    for k in e.times.kernels:
        path = (k.work.phase, *k.work.op.split("."))
        seconds[path] = seconds.get(path, 0.0) + k.seconds
    if e.times.overhead:
        seconds["host",] = e.times.overhead
    for path, s in seconds.items():
        yield f"{';'.join((e.model.name, *path))} {round(s * 1e9)}"
