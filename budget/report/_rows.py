"""The breakdown that every format shows: rows of operators, layers or parts with their shares."""

from __future__ import annotations

import re

from ..errors import unknown
from ..model import walk, weights
from ..named import TYPE_CHECKING, Any
from ..op import contraction_flops, elements, pointwise_flops
from ..size import Size

if TYPE_CHECKING:
    from ..estimate import Estimate

BY = ("operator", "part", "layer", "moment")
COLUMNS = ("params", "forward_flops", "backward_flops", "pointwise_flops", "time_s")


def rows(estimate: Estimate, by: str) -> list[dict[str, Any]]:
    """One row an operator, a part of a layer (attention, mlp, ...), a layer, or a moment of the memory's
    curve over time. Raises InputError.
    """
    if by not in BY:
        raise unknown("by", by, BY)
    if by == "moment":
        return [{"name": m.op, "phase": m.phase, "bytes": m.total} for m in estimate.memory.curve]
    table: dict[str, dict[str, Size]] = {}

    def row(op: str) -> dict[str, Size]:
        return table.setdefault(_key(op, by), dict.fromkeys(COLUMNS, 0))

    for o, _ in walk(estimate.program.nodes):
        if o.outs or o.weights:
            row(o.of or o.name)
    for t, o, copies in weights(estimate.model.nodes):
        r = row(o.name)
        r["params"] = r["params"] + elements(t, o.sizes) * copies
    for o, times in walk(estimate.program.nodes):
        r = row(o.of or o.name)
        column = "forward_flops" if o.phase == "forward" else "backward_flops"
        r[column] = r[column] + contraction_flops(o) * times
        r["pointwise_flops"] = r["pointwise_flops"] + pointwise_flops(o) * times
    for k in estimate.times.kernels:
        r = row(k.work.op)
        r["time_s"] = r["time_s"] + k.seconds
    return [{"name": name, **values} for name, values in table.items()]


def _key(op: str, by: str) -> str:
    """`layers.attn.q` is an operator; its layer is `layers`, its part `attn`."""
    if by == "operator":
        return op
    # A torch module's layers are numbered, `model.layers.3.mlp.up`: the layer is `model.layers.3`.
    numbered = re.match(r"(.*?\.\d+)(?:\.(.*))?$", op)
    head, rest = (numbered[1], numbered[2] or "") if numbered else op.partition(".")[::2]
    if by == "layer":
        return head
    return rest.partition(".")[0].rstrip("0123456789") or head if rest else head
