"""What kernels hide of collectives, as far as these take as long: what a stack, a schedule or a layout lets
run beside them, a layer's beside the kernels of its pass, once a step beside one micro-batch's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..cluster import Cluster
from ..layout import Layout
from ..size import Size, maximum, minimum
from .communication import Communication
from .pipeline import schedule
from .time import Times

# The axis of a stack's overlap that a group belongs to.
AXES = {"edp": "dp", "replicate": "dp", "ends": "dp", "etp": "tp"}
# What a schedule hides whatever the stack does: another micro-batch's pass runs beside it. Source: dualpipe.
HIDDEN = {"dualpipe": {"ep": 1.0, "pp": 1.0}}
# What `tp_overlap` hides of a layer's collectives. A gather's pieces arrive while the product of those that
# are there runs, or all of it runs beside another product, as do scatters of inputs' gradients; a forward
# product's scatter goes in four pieces, each behind its own, and the last is waited for. Source: userbuffers.
PIECES = {
    ("all_gather", "forward"): 1.0,
    ("reduce_scatter", "forward"): 3 / 4,
    ("all_gather", "backward"): 1.0,
    ("reduce_scatter", "backward"): 1.0,
}
# An axis as a stack has it, the pass beside it, one micro-batch of that or all.
Beside = tuple[str, str, bool]


def exposed(
    found: Sequence[Communication],
    took: Sequence[Size],
    layout: Layout,
    overlap: Mapping[str, float],
    times: Times,
    micro: Size,
    cluster: Cluster,
) -> list[Size]:
    """Seconds of each communication that nothing hides.

    took: its seconds. overlap: a stack's (Stack.overlap). times: of the kernels of all `micro` batches.
    """
    overlap = {**overlap, **HIDDEN.get(schedule(layout), {}), **({"ep": 1.0} if layout.ep_overlap else {})}
    parts = [_part(c, layout, overlap) for c in found]
    most: dict[Beside, Size] = {}  # that could be hidden
    for c, s, part in zip(found, took, parts, strict=True):
        most[_beside(c)] = most.get(_beside(c), 0.0) + s * part
    left = 1 - taken_from(cluster)
    fits = {
        key: left * minimum(s, _kernels(key, layout, times, micro)) / maximum(s, 1e-30)
        for key, s in most.items()
    }
    return [s * (1 - part * fits[_beside(c)]) for c, s, part in zip(found, took, parts, strict=True)]


def axis_of(c: Communication) -> str:
    """The axis of a communication as a stack's overlap has it."""
    return AXES.get(c.axis, c.axis)


def taken_from(cluster: Cluster) -> float:
    """The part of a device that a collective takes from the kernels that hide it: 20 of 132 multiprocessors
    send and receive at a card's and NVLink's full rate. A torus's links have engines of their own. Source:
    deepseek-v3-overlap.
    """
    return 0.0 if cluster.tiers[0].torus else 20 / 132


def _beside(c: Communication) -> Beside:
    return axis_of(c), c.phase, c.once


def _part(c: Communication, layout: Layout, overlap: Mapping[str, float]) -> float:
    """The part of a communication's seconds that kernels may hide."""
    if layout.tp_overlap and c.axis == "tp" and not c.once:
        return PIECES.get((c.kind, c.phase), 0.0)
    if c.phase == "optimizer" and "optimizer" in overlap:
        return overlap["optimizer"]
    return overlap.get(axis_of(c), 0.0)


def _kernels(key: Beside, layout: Layout, times: Times, micro: Size) -> Size:
    """Seconds of the kernels beside it; with `tp_overlap`, of products alone."""
    axis, phase, once = key
    if layout.tp_overlap and axis == "tp":
        return sum(k.seconds for k in times.kernels if k.work.phase == phase and k.work.gemm is not None)
    found = times.backward if phase == "backward" else times.forward
    return found / micro if once else found
