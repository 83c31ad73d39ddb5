"""The layouts of so many devices: each is priced by an estimate of its own (best.py)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count

from ..answer import Estimate
from ..cluster import holds, joining
from ..config import size
from ..errors import InputError, shown
from ..layout import Layout
from ..named import Any
from ..progress import Progress
from .batches import whole_samples
from .best import REFINED, Found, search
from .degrees import facts

MOST = 10**9  # devices


def layouts(estimate: Callable[..., Estimate], devices: int, given: Mapping[str, Any]) -> Found:
    """The layouts of so many devices, the best first. estimate: of the network, with settings as those given.
    Raises InputError.
    """
    for name, x in {**given, "devices": devices}.items():
        if name != "inputs" and (getattr(x, "ndim", 0) > 0 or isinstance(x, list | range)):
            raise InputError(name, f"got {shown(x)}; allowed where layouts are searched: one number")
    settings, number = dict(given), size("devices", devices)
    if number > MOST:
        raise InputError("devices", f"got {number:,}; allowed: whole numbers from 1 to {MOST:,}")
    batch = settings.pop("micro_batch", None) or settings.pop("batch", None)
    one = estimate(**{**settings, "global_batch": None, "cluster": None, "batch": batch})
    if batch is None and "inputs" in settings:  # a module's inputs have so many samples
        batch = one.model.samples
    joined = joining(one.device, settings.get("cluster"))
    holds(joined, number, "devices")
    samples = settings.get("global_batch") or 0
    if isinstance(samples, str):  # as many as some of the devices divide
        least = whole_samples(samples, one.length, 1)
        each = next(n for n in range(min(least, number), 0, -1) if number % n == 0)
        samples = settings["global_batch"] = whole_samples(samples, one.length, each)
    network = facts(one, samples, batch, settings.get("recompute", "none"))

    tell, priced = Progress(), count(1)

    def price(layout: Layout, batch: int, recompute: str) -> Estimate:
        tell(f"{number:,} devices: {next(priced)} layouts priced")
        return estimate(**{**settings, "layout": layout, "batch": batch, "recompute": recompute})

    with tell:
        ranked = search(number, joined.node, network, price)
    best = ranked.best
    refined = best.estimate and best.estimate._replace(
        searched=len(ranked.tried), tried=ranked.tried[:REFINED]
    )
    return ranked._replace(tried=(best._replace(estimate=refined), *ranked.tried[1:]))
