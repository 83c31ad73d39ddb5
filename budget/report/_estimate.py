"""An estimate as an Answer: its JSON, its summary, and the requested breakdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from ..answer import Estimate
from ..fold.memory import Moment
from ..named import Any
from ._answer import Answer, Column, Table

RANKS = {
    "name": "stage", "in_flight": "live", "parameters": "params", "gradients": "grads", "optimizer": "states",
    "activations": "kept", "communication": "waits",
}  # fmt: skip
STRETCHES = 24  # lines of a curve


def answer(estimate: Estimate, by: str = "") -> Answer:
    """An estimate; by: operator, part, layer or moment for a breakdown, else empty."""
    return Answer(
        data=lambda: data(estimate, by),
        records=partial(breakdown, estimate, by or "operator"),
        text=partial(text, estimate),
        tables=lambda: (breakdown(estimate, by),) if by else (),
        estimates=(estimate,),
        by=by,
    )


def text(estimate: Estimate) -> str:
    """The summary. Raises InputError for an estimate of arrays."""
    from ._summary import summary  # not for JSON

    return summary(estimate)


def data(estimate: Estimate, by: str) -> dict[str, Any]:
    """The estimate's JSON, with the breakdown under the key `by`."""
    from ._object import as_object, plain  # not for a table

    return {**as_object(estimate), **({"by": {by: plain(estimate.rows(by))}} if by else {})}


def breakdown(estimate: Estimate, by: str) -> Table:
    """A table of operators, parts, layers or moments. Raises InputError for another name."""
    from ._units import count, decimal, memory, seconds

    parts = estimate.rows(by)
    rows = [tuple(row.values()) for row in parts]
    if by == "moment":
        moments = (Column("name", "moment"), Column("phase", "phase"), Column("bytes", "memory", memory))
        return Table(moments, rows, "Memory over time", partial(curve, estimate))
    if by == "rank":
        return Table(_of_ranks(parts), rows, "By stage of the pipeline")
    columns = (
        Column("name", by),
        Column("params", "params", count),
        Column("forward_flops", "fwd FLOP", decimal),
        Column("backward_flops", "bwd FLOP", decimal),
        Column("pointwise_flops", "pointwise", decimal),
        # What has no kernel of its own runs in a neighbour's.
        Column("time_s", "time", lambda s: seconds(s) if s else "-"),
        Column("runs", "runs", "{:,}".format),
    )
    return Table(columns, rows, f"By {by}")


def _of_ranks(rows: Sequence[Mapping[str, Any]]) -> tuple[Column, ...]:
    """The columns of a pipeline's stages: bytes and seconds by the endings of their names."""
    from ._units import memory, seconds

    shown = {"bytes": memory, "s": seconds}
    columns = []
    for key in rows[0]:
        name, _, unit = key.rpartition("_")
        title = RANKS.get(name, name)
        columns.append(Column(key, title, shown[unit]) if unit in shown else Column(key, RANKS.get(key, key)))
    return tuple(columns)


def curve(estimate: Estimate) -> list[str]:
    """Memory over time, one line of text with a bar per stretch of time."""
    from ._units import memory

    peak = estimate.memory.peak
    return [
        f"{m.phase:<10}{m.op[:30]:<30}{memory(m.total):>9}  {'#' * round(29 * m.total / peak)}"
        for m in highest(estimate.memory.curve, STRETCHES)
    ]


def highest(moments: Sequence[Moment], stretches: int) -> list[Moment]:
    """The peak of each of at most `stretches` equal parts of a curve."""
    size = -(-len(moments) // stretches)
    return [max(moments[i : i + size], key=lambda m: m.total) for i in range(0, len(moments), size)]
