"""Overlap: the part of the communication that kernels hide.

A stack, a schedule or a layout says which fraction may be hidden: a layer's communication behind the kernels
of its pass, as far as these take as long; communication once a step behind one micro-batch's kernels.
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
# What a schedule hides whatever the stack does, behind another micro-batch's pass. Source: dualpipe.
HIDDEN = {"dualpipe": {"ep": 1.0, "pp": 1.0}}
# What `tp_overlap` hides of a layer's collectives. A gather's pieces arrive while products of earlier pieces
# run, or the gather runs beside another product, and so do scatters of inputs' gradients. A forward product's
# scatter goes in four pieces, each while the next is computed; only the last is waited for. Source:
# userbuffers.
PIECES = {
    ("all_gather", "forward"): 1.0,
    ("reduce_scatter", "forward"): 3 / 4,
    ("all_gather", "backward"): 1.0,
    ("reduce_scatter", "backward"): 1.0,
}
# What can hide a communication: by the axis in a stack's overlap, the pass beside which it runs, and whether
# that is one micro-batch's pass or those of all.
Beside = tuple[str, str, bool]


def exposed(
    sent: Sequence[Communication],
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
    parts = [_part(c, layout, overlap) for c in sent]
    most: dict[Beside, Size] = {}  # seconds that could be hidden
    for c, s, part in zip(sent, took, parts, strict=True):
        most[_beside(c)] = most.get(_beside(c), 0.0) + s * part
    left = 1 - taken_from(cluster)
    fits = {
        key: left * minimum(s, _kernels(key, layout, times, micro)) / maximum(s, 1e-30)
        for key, s in most.items()
    }
    return [s * (1 - part * fits[_beside(c)]) for c, s, part in zip(sent, took, parts, strict=True)]


def axis_of(c: Communication) -> str:
    """The axis of a communication as a stack's overlap has it."""
    return AXES.get(c.axis, c.axis)


def taken_from(cluster: Cluster) -> float:
    """The fraction of a device that a collective takes from the kernels that hide it: 20 of 132
    multiprocessors send and receive at the full rate of a card and of NVLink. A torus's links have engines of
    their own. Source: deepseek-v3-overlap.
    """
    return 0.0 if cluster.tiers[0].torus else 20 / 132


def _beside(c: Communication) -> Beside:
    return axis_of(c), c.phase, c.once


def _part(c: Communication, layout: Layout, overlap: Mapping[str, float]) -> float:
    """The fraction of a communication's time that kernels may hide."""
    if layout.tp_overlap and c.axis == "tp" and not c.once:
        return PIECES.get((c.kind, c.phase), 0.0)
    if c.phase == "optimizer" and "optimizer" in overlap:
        return overlap["optimizer"]
    return overlap.get(axis_of(c), 0.0)


def _kernels(key: Beside, layout: Layout, times: Times, micro: Size) -> Size:
    """Seconds of the kernels that can hide a communication; with `tp_overlap`, of products alone."""
    axis, phase, once = key
    if layout.tp_overlap and axis == "tp":
        return sum(k.seconds for k in times.kernels if k.work.phase == phase and k.work.gemm is not None)
    seconds = times.backward if phase == "backward" else times.forward
    return seconds / micro if once else seconds
