"""Memory over time: every repetition of every layer, with the seconds that its operators take."""

from __future__ import annotations

from collections.abc import Sequence

from ..ir import Op
from ..named import NamedTuple
from ..size import Size
from ._bytes import KINDS
from .memory import Memory
from .time import Times

MOST = 20_000  # moments of one block's repetitions: of more, some stand for several


class Point(NamedTuple):
    """Memory while an operator runs: bytes alive by kind, and how long that takes."""

    op: str
    phase: str
    live: dict[str, Size]
    total: Size
    seconds: float


class _Moment(NamedTuple):
    op: Op
    live: dict[str, Size]
    total: Size
    runs: float  # how many that are alike it stands for


def over_time(memory: Memory, times: Times) -> list[Point]:
    """The whole curve of one run. Operators take the seconds of the kernels that run them, all together the
    step's: the host's are spread over it. For numbers, not arrays.
    """
    moments = unrolled(memory)
    runs: dict[tuple[str, str], float] = {}
    for m in moments:
        runs[_key(m.op)] = runs.get(_key(m.op), 0) + m.runs
    spent: dict[tuple[str, str], float] = {}
    for k in times.kernels:
        key = k.work.op, k.work.phase
        spent[key] = spent.get(key, 0) + k.seconds
    shown = sum(seconds for key, seconds in spent.items() if key in runs) or 1.0
    scale = times.step / shown
    each = {key: scale * spent.get(key, 0) / n for key, n in runs.items()}  # seconds of one run
    return [Point(m.op.name, m.op.phase, m.live, m.total, each[_key(m.op)] * m.runs) for m in moments]


def _key(o: Op) -> tuple[str, str]:
    return o.of or o.name, o.phase


def unrolled(memory: Memory) -> list[_Moment]:
    """Every operator as often as it runs, with what is alive. From the second to the last repetition of a
    block memory grows by the same amount each time (fold/_lifetimes.py).
    """
    moments: list[_Moment] = []
    lifetimes = memory.lifetimes
    live: dict[str, Size] = {**dict.fromkeys(KINDS, 0), **memory.there, "inputs": lifetimes.inputs}
    started: list[tuple[int, dict[str, Size]]] = []  # as the second repetitions of the blocks around began
    for o, made, gone, extra, skipped in lifetimes.events:
        if o is None and skipped is None:
            started.append((len(moments), dict(live)))
        elif o is None:
            first, before = started.pop()
            grown = {k: live[k] - before[k] for k in KINDS}
            moments += _repeated(moments[first:], grown, int(skipped))
            live = {k: live[k] + grown[k] * skipped for k in KINDS}
        else:
            for storage in made:
                kind, size = lifetimes.storages[storage]
                live[kind] += size
            now = {**live, "temporaries": live["temporaries"] + extra}
            moments.append(_Moment(o, now, sum(now.values()), 1))
            for storage in gone:
                kind, size = lifetimes.storages[storage]
                live[kind] -= size
    return moments


def _repeated(body: Sequence[_Moment], grown: dict[str, Size], times: int) -> list[_Moment]:
    """A repetition's moments `times` more, each time grown; of very many, some that stand for all."""
    drawn = max(1, min(times, MOST // max(1, len(body)))) if times > 0 else 0
    each = []
    for i in range(drawn):
        n = round((i + 1) * times / drawn)
        for m in body:
            live = {k: m.live[k] + grown[k] * n for k in KINDS}
            each.append(_Moment(m.op, live, sum(live.values()), m.runs * times / drawn))
    return each
