"""The time of a collective's steps and of its largest flow over the links of a cluster, by algorithm.
Derived.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..cluster import Cluster, Tier
from ..named import NamedTuple
from ..size import Size, floor_div, log2, maximum, minimum, product

Levels = Sequence[tuple[Size, Size]]
# Small messages reach only a part of the bandwidth: a flow of x seconds takes x (1 + RAMP / (x + HALF)). So
# do few members on a switch: n of them reach 1 - 1/n^2, and lose half of that in an all-reduce. Fitted, with
# each link's `reached`, `reduced` and times, to every second one of 600 measured collectives within NVLink
# and PCIe nodes. Source: aiconfigurator-nccl.
RAMP_S, HALF_S = 38e-6, 23e-6
# A ring beyond a node takes steps of NCCL's simple protocol, longer than those of graphs within one: to the
# next device of a node, to the next node. Source: nccl-tuning.
HOP_S, LEAP_S = 3.4e-6, 14e-6


class Span(NamedTuple):
    """A tier as a group uses it: the group's members inside one unit of the tier below (`inner`), and inside
    one of this tier (`members`).
    """

    tier: Tier
    inner: Size
    members: Size


def spans(cluster: Cluster, group: Levels) -> tuple[Span, ...]:
    """Each tier as a group uses it."""
    parts: list[Span] = []
    inner: Size = 1
    for tier in cluster.tiers:
        whole = tier.devices is None or tier is cluster.tiers[-1]
        members = degree(group) if whole else product(_among(tier.devices or 1, level) for level in group)
        parts.append(Span(tier, inner, members))
        inner = members
    return tuple(parts)


def degree(group: Levels) -> Size:
    """How many devices a group has."""
    return product(size for size, _ in group)


def _among(devices: Size, level: tuple[Size, Size]) -> Size:
    """How many of a level's members are among so many neighbours."""
    size, stride = level
    return minimum(size, maximum(floor_div(devices, stride), 1))


def ring(parts: Sequence[Span], size: Size, times: int, alone: bool) -> Size:
    """Seconds of a tensor's way round a ring, once or, in an all-reduce, twice."""
    members = parts[-1].members
    slowest = _least([bandwidth(s, alone, times) * s.inner for s in parts], parts)
    flow = times * size * (members - 1) / members
    return _start(parts) + times * _ring_steps(parts) + _ramped(flow / slowest)


def tree(parts: Sequence[Span], size: Size, alone: bool, switch: bool = False) -> Size:
    """Seconds of an all-reduce up and down a tree; switch: the node's adds up."""
    return _start(parts) + 2 * _tree_steps(parts) + _ramped(_layered(parts, size, alone, switch))


def _ramped(flow: Size) -> Size:
    """Seconds of a flow whose bytes over bandwidth is `flow`."""
    return flow * (1 + RAMP_S / (flow + HALF_S))


def more(members: Size, inner: Size) -> Size:
    """1 where there are more members than inner ones, else 0."""
    return minimum((members / inner - 1) * 1e9, 1)


def used(s: Span) -> Size:
    """1 where a group crosses this tier, else 0."""
    return more(s.members, s.inner)


def _start(parts: Sequence[Span]) -> Size:
    """Seconds before the first step: of the outermost tier that the group crosses."""
    start: Size = 0.0
    for s in parts:
        start = maximum(start, s.tier.link.start_s * used(s))
    return start


def _ring_steps(parts: Sequence[Span]) -> Size:
    """Seconds of the steps of a ring once around: between nodes as often as there are nodes, less one."""
    total: Size = 0.0
    members, node = parts[-1].members, parts[0].members
    for s in parts:
        least = HOP_S if s is parts[0] else LEAP_S
        step = maximum(s.tier.link.step_s, least * more(members, node))
        total = total + (members / s.inner - members / s.members) * step
    return total


def _tree_steps(parts: Sequence[Span]) -> Size:
    """Seconds of the steps up a tree: a chain in the node, a binary tree of nodes."""
    total = (parts[0].members - 1) * parts[0].tier.link.step_s
    for s in parts[1:]:
        total = total + log2(s.members / s.inner) * s.tier.link.step_s
    return total


def bandwidth(s: Span, alone: bool, times: int = 1) -> Size:
    """Bytes/s that one member of a group gets from a tier's links, one way. times: how often a collective
    passes them, 0 for a single message.
    """
    rate = s.tier.bandwidth * s.tier.link.reached / s.tier.oversubscription
    if alone:
        rate = rate * s.tier.crowd
    few = maximum(s.members / s.inner, 2)
    if s.tier.link.kind == "mesh":  # a pair has one of a device's seven links
        return rate * (few - 1) / ((s.tier.devices or 2) - 1)
    if s.tier.link.kind == "switch" and times:
        return rate * (1 - 1 / (times * few**2))
    return rate


def _least(rates: Sequence[Size], parts: Sequence[Span]) -> Size:
    """The least of the rates of the tiers that a group crosses."""
    least: Size = None
    for rate, s in zip(rates, parts, strict=True):
        here = rate / maximum(used(s), 1e-30)  # a tier that is not crossed is no limit
        least = here if least is None else minimum(least, here)
    return least


def _layered(parts: Sequence[Span], size: Size, alone: bool, switch: bool = False) -> Size:
    """Seconds of a tree's largest flow: in the node the whole tensor, up and down; beyond it a member's
    part.
    """
    first = parts[0]
    sent = size * (first.members + 1) / first.members if switch else 2 * size
    reduced = first.tier.bandwidth * first.tier.link.reduced
    rate = reduced if switch else bandwidth(first, alone, 2)
    slowest = sent / rate * used(first)
    for s in parts[1:]:
        within = s.members / s.inner
        slowest = maximum(slowest, 2 * size / s.inner * (within - 1) / within / bandwidth(s, alone))
    return slowest


def pairs(parts: Sequence[Span], size: Size, members: Size, alone: bool, copies: Size = 1) -> Size:
    """An all-to-all: every device to every other one, within and beyond the node at the same time.

    copies: the rows of the buffer that belong to one token; they go once to each node, and to each device in
    it (DeepEP's kernels). The number of different destinations is the expected one for balanced choices.
    Source: deepseek-v3.
    """
    slowest: Size = 0.0
    steps: Size = 0.0
    for s in parts:
        # What leaves for farther tiers crosses this one too, but not the links inside the node.
        beyond = s.members if s is parts[0] else members
        apart = members if s is parts[0] else members / s.inner  # devices, or nodes
        once = apart / copies * (1 - (1 - 1 / apart) ** copies)  # of a token's rows
        slowest = maximum(slowest, size * once * (beyond - s.inner) / members / bandwidth(s, alone))
        steps = steps + log2(s.members / s.inner) * s.tier.link.step_s
    return _start(parts) + steps + _ramped(slowest)


def send(cluster: Cluster, size: Size, stride: Size, alone: bool) -> Size:
    """A message to the device that is `stride` ranks on: over the innermost tier that joins the two."""
    took: Size = 0.0
    farther: Size = 1  # whether no tier so far joins them
    for tier in cluster.tiers:
        last = tier.devices is None or tier is cluster.tiers[-1]
        joined = 1 if last else minimum(floor_div(tier.devices, stride + 1), 1)
        rate = _axis(tier) if tier.torus else bandwidth(Span(tier, 1, 2), alone, 0)
        here = tier.link.start_s + tier.link.step_s + size / rate
        took = took + farther * joined * here
        farther = farther * (1 - joined)
    return took


def _axis(tier: Tier) -> float:
    """Bytes/s of one link of a torus, one way: a device has two along each axis."""
    return tier.bandwidth * tier.link.reached / (2 * len(tier.torus))


def _apart(group: Levels, before: int, axis: int) -> Size:
    """How far apart neighbours of a group lie along a torus's axis; the groups in between share its links."""
    apart: Size = axis
    for size, stride in group:
        here = maximum(stride / before, 1)
        apart = minimum(apart, here + (1 - minimum(size - 1, 1)) * axis)
    return maximum(apart, 1)


def torus(parts: Sequence[Span], kind: str, size: Size, group: Levels, alone: bool) -> Size:
    """Rings along all axes that a group spans at once, in both directions where it spans a whole axis.

    An all-to-all is bound by its longest axis: over half of its ring, n/8 of a device's buffer on each link.
    Between tori each device sends its share over the network.
    """
    tier, link = parts[0].tier, parts[0].tier.link
    inside = parts[0].members
    links: Size = 0.0
    longest: Size = 1.0
    hops: Size = 0.0
    before, reached = 1, group[0][0] * 0 + 1
    for axis in tier.torus:
        upto = product(_among(before * axis, level) for level in group)
        along = upto / reached
        apart = _apart(group, before, axis)
        both = 1 + floor_div(along * apart, axis)  # a ring where the axis is whole, else a line
        links = links + minimum(along - 1, 1) * both / apart
        longest = maximum(longest, along * apart * 2 / both)
        hops = hops + (along - 1) * apart
        before, reached = before * axis, upto
    rate = _axis(tier) * maximum(links, 1e-30)
    twice = 2 if kind == "all_reduce" else 1
    part = (inside - 1) / inside
    if kind == "all_to_all":
        flow = size * longest / 8 / _axis(tier) * minimum(inside - 1, 1)
    else:
        flow = twice * size * part / rate
    took = link.start_s + twice * hops * link.step_s + flow
    for s in parts[1:]:
        within = s.members / s.inner
        over = twice * size / s.inner * (within - 1) / within
        if kind == "all_to_all":
            over = size * (1 - s.inner / degree(group))
        took = took + over / bandwidth(s, alone) + twice * log2(within) * s.tier.link.step_s
    return took
