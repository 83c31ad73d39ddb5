"""How far off a time may be that waits for links.

What a link carries differs between machines of one kind, so that an answer for several devices has two
errors: that of its kernels, and that of its links; and in training a third, of how devices work together, by
how many have trained so with the stack on the generation (data/together.json). They are taken to be
independent, so their logarithms add up as squares do. Derived.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..cluster import Cluster, Tier
from ..size import Size, log2
from .step import Ran, Spread

# Nine in ten collectives of other sources take between so many times less and more than the links' figures
# say (docs/clusters.md): within a node, between nodes. PCIe: inferred from published runs over GeForces,
# which carried 2.9 to 13 GB/s where 4 are taken and 8 to 40 where 20 are (once 1.9), and over two L40S in a
# cloud, 5 for 20.
WITHIN = {"switch": 1.15, "mesh": 1.15, "torus": 1.15, "network": 1.67, "pcie": 4.0}


def interval(
    kernels: tuple[float, float],
    step: Size,
    spread: Spread,
    ran: Sequence[Ran],
    cluster: Cluster,
    overlap: Mapping[str, float],
    together: float = 1.0,
) -> tuple[Size, Size]:
    """The factors of a step's time within which nine of ten measured ones lie.

    kernels: those of its kernels. step: its seconds. together: that of how the devices work together.
    """
    fast, slow = (
        spread.times(spread.on(ran, carrying(cluster, sign), overlap)).step / step for sign in (1, -1)
    )
    return 1 / both(both(1 / kernels[0], 1 / fast), together), both(both(kernels[1], slow), together)


def both(one: Size, other: Size) -> Size:
    """The factor of two independent ones, of 1 or more each."""
    return 2.0 ** ((log2(one) ** 2 + log2(other) ** 2) ** 0.5)


def carrying(cluster: Cluster, sign: int) -> Cluster:
    """A cluster whose links are as fast as nine in ten are at most (1), or at least (-1); what was measured
    on this machine stays.
    """
    engine = cluster.all_reduce
    if engine is not None:
        factor = WITHIN[cluster.tiers[0].link.kind] ** sign
        engine = engine._replace(
            one_shot_s=engine.one_shot_s / factor,
            two_shot_s=engine.two_shot_s / factor,
            bandwidth=engine.bandwidth * factor,
        )
    return cluster._replace(tiers=tuple(_tier(tier, sign) for tier in cluster.tiers), all_reduce=engine)


def _tier(tier: Tier, sign: int) -> Tier:
    factor, link = WITHIN[tier.link.kind] ** sign, tier.link
    link = link._replace(start_s=link.start_s / factor, step_s=link.step_s / factor)
    return tier._replace(link=link, bandwidth=tier.bandwidth * factor)
