"""A breakdown of parameters, FLOPs and time by operator, by part of a layer, or by layer."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..errors import unknown
from ..ir import SCALE, Model, contraction_flops, elements, pointwise_flops, walk, weights
from ..size import Size, any_of
from .time import Times

BY = ("operator", "part", "layer")
COLUMNS = ("params", "forward_flops", "backward_flops", "pointwise_flops", "time_s", "runs")


def rows(
    network: Model, programs: Iterable[tuple[Model, Size]], times: Times, by: str = "operator"
) -> dict[str, dict[str, Size]]:
    """COLUMNS of each operator, part (attention, mlp, ...) or layer by name, in the order of the program,
    without those that count nothing.

    Parameters are the network's; recomputation counts for the operator that is recomputed; `runs` is how
    often its first operator runs, over all blocks (frozen layers under a trained one, a recurrence's first
    step). Each program has its share: 1, or for arrays 0 where another one is asked about.
    Raises InputError.
    """
    if by not in BY:
        raise unknown("by", by, BY)
    table: dict[str, dict[str, Size]] = {}

    def row(op: str) -> dict[str, Size]:
        name = op if by == "operator" else _key(op, by)
        if name not in table:
            table[name] = dict.fromkeys(COLUMNS, 0)
        return table[name]

    for program, share in programs:
        first: dict[str, tuple[str, str]] = {}
        for o, times_run in walk(program.nodes):
            if o.kind == "resident":  # it runs nowhere: its row comes where its module runs
                continue
            n, r = times_run * share, row(o.of or o.name)
            runs = (o.name, o.phase)
            if (o.outs or o.weights) and first.setdefault(_key(o.of or o.name, by), runs) == runs:
                r["runs"] = r["runs"] + n
            column = "forward_flops" if o.phase == "forward" else "backward_flops"
            r[column] = r[column] + contraction_flops(o) * n
            r["pointwise_flops"] = r["pointwise_flops"] + pointwise_flops(o) * n
    for t, o, copies in weights(network.nodes):
        if t.role != SCALE:  # as in count.params
            row(o.name)["params"] += elements(t, o.sizes) * copies
    for k in times.kernels:
        r = row(k.work.op)
        r["time_s"] = r["time_s"] + k.seconds
    return {name: r for name, r in table.items() if any(any_of(r[c] != 0) for c in COLUMNS[:-1])}


def _key(op: str, by: str) -> str:
    """`layers.attn.q` is an operator; its layer is `layers`, its part `attn`."""
    if by == "operator":
        return op
    head, rest = layer_of(op)
    if not head:
        head, _, rest = op.partition(".")
    if by == "layer":
        return head
    return rest.partition(".")[0].rstrip("0123456789") or head if rest else head


def layer_of(name: str) -> tuple[str, str]:
    """A torch module's numbered layer, and what is inside: `model.layers.3`, `mlp.up`; or two empty texts."""
    numbered = re.match(r"(.*?\.\d+)(?:\.(.*))?$", name)
    return (numbered[1], numbered[2] or "") if numbered else ("", "")
