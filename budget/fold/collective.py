"""Collectives: the seconds of one, of so many bytes, in a group of devices on a cluster.

A group is a list of levels (size, stride): `size` devices, each `stride` ranks after the one before, where
ranks fill nodes in order. A group whose devices are not evenly spaced has several levels, from the nearest to
the farthest. All devices run the same program, so all groups communicate at once and share the network cards.
Bytes are those of the whole (gathered or reduced) tensor on one device; for an all-to-all, of the device's
whole buffer; for a send, of the message. Sizes may be arrays.

A collective can run by several algorithms; as in NCCL, the fastest is taken. The time of each is that of its
steps plus that of its largest flow over the slowest links that it crosses:

    ring    g - 1 steps; each device sends (g - 1)/g of the tensor, twice in an all-reduce
    tree    an all-reduce up and down a chain in the node and a binary tree of nodes: each device sends the
            tensor twice, and over the network its share of what its node does
    switch  the same with NVLink SHARP: the node's switch adds up, and a device sends the tensor once, and
            1/g of the sum
    torus   rings along each axis at once
    pairs   all-to-all and send: everything at once, within and beyond the node

Steps as NCCL counts them. Source: nccl-tuning. Flows: Derived.
"""

from __future__ import annotations

from ..cluster import Cluster
from ..errors import unknown
from ..size import Size, floor_div, minimum
from ..stack import AllReduce
from . import _flows as flows
from ._flows import Levels, degree, spans

OWN_BYTES = 8 * 2**20  # from here on engines leave an all-reduce to NCCL. Source: engine-all-reduce.
KINDS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send")


def seconds(
    cluster: Cluster, kind: str, size: Size, group: Levels, *, alone: bool = False, copies: Size = 1
) -> Size:
    """Seconds of one collective: 0 in a group of one. `alone`: no other group of the node communicates
    meanwhile. copies: the rows of an all-to-all that belong to one token, which go only once to each device
    and node.

    Raises InputError for an unknown kind.
    """
    times = tuple(algorithms(cluster, kind, size, group, alone=alone, copies=copies).values())
    least = times[0]
    for other in times[1:]:
        least = minimum(least, other)
    least = least + cluster.call_s
    if cluster.records:
        least = _as_measured(cluster, kind, size, group, least)
    if cluster.all_reduce and kind == "all_reduce" and cluster.tiers[0].link.kind == "switch":
        least = minimum(least, _engines(cluster, cluster.all_reduce, size, group, least))
    return least * minimum(degree(group) - 1, 1)  # a group of one has nothing to do


def _as_measured(cluster: Cluster, kind: str, size: Size, group: Levels, otherwise: Size) -> Size:
    """Seconds by measurements, where there are any: within the node, and between nodes by those of most
    nodes.
    """
    parts = spans(cluster, group)
    beyond = flows.more(parts[-1].members, parts[0].members)
    bytes_crossed = bus_bandwidth(kind, size, degree(group), 1.0)
    name = "send_receive" if kind == "send" else kind
    measured = sorted((n, line) for (collective, n), line in cluster.records.items() if collective == name)
    for count, (start, bandwidth) in measured:
        here = beyond if count > 1 else 1 - beyond
        otherwise = here * (start + bytes_crossed / bandwidth) + (1 - here) * otherwise
    return otherwise


def _engines(cluster: Cluster, engine: AllReduce, size: Size, group: Levels, otherwise: Size) -> Size:
    """Seconds of an engine's own all-reduce: of few bytes, within a node."""
    (inner, *outer), members = spans(cluster, group), degree(group)
    elsewhere = minimum(sum([flows.used(s) for s in outer]) + floor_div(size, OWN_BYTES), 1)
    rate = min(engine.bandwidth, flows.bandwidth(inner, False, 0))
    one = engine.one_shot_s + (members - 1) * size / rate
    two = engine.two_shot_s + 2 * (members - 1) / members * size / rate
    return (1 - elsewhere) * minimum(one, two) + elsewhere * otherwise


def algorithms(
    cluster: Cluster, kind: str, size: Size, group: Levels, *, alone: bool = False, copies: Size = 1
) -> dict[str, Size]:
    """Seconds by each algorithm that the cluster has for this kind."""
    if kind not in KINDS:
        raise unknown("collective", kind, KINDS)
    parts, members = spans(cluster, group), degree(group)
    if kind == "send":
        return {"send": flows.send(cluster, size, group[0][1], alone)}
    if cluster.tiers[0].torus:
        return {"torus": flows.torus(parts, kind, size, group, alone)}
    if kind == "all_to_all":
        return {"pairs": flows.pairs(parts, size, members, alone, copies)}
    times = {"ring": flows.ring(parts, size, 2 if kind == "all_reduce" else 1, alone)}
    if kind == "all_reduce":
        times["tree"] = flows.tree(parts, size, alone)
        if parts[0].tier.link.reduced:
            times["switch"] = flows.tree(parts, size, alone, switch=True)
    return times


def bus_bandwidth(kind: str, size: Size, members: Size, seconds: Size) -> Size:
    """Bytes/s that cross each device's links by a ring's count, as NCCL's tests print it. Source:
    nccl-tests.
    """
    part = 1 if kind == "send" else (members - 1) / members
    return size * part * (2 if kind == "all_reduce" else 1) / seconds
