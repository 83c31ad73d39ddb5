"""How far an estimate can be trusted, in a line or two of its summary."""

from __future__ import annotations

from collections.abc import Iterator

from ..answer import Estimate
from ..answer.held import provenance
from ..fold.count import modelled


def trust(e: Estimate) -> Iterator[str]:
    """Which figures are exact, which are modelled, what is not counted, and whether stragglers are."""
    missing = f"; not counted: {', '.join(e.model.uncounted)}" if e.model.uncounted else ""
    parts = modelled(e.program)
    but = f" but for what {', '.join(parts)} move" if parts else ""
    config = e.model.config
    counted = f"captured from {config.get('library', 'transformers')}' {config.get('class')}"
    counts = counted if config.get("captured") else "exact"
    peaks = provenance(e.stack, e.task.workload.mode)
    yield f"trust       counts {counts}{but}{missing}; time {e.profile.summary}; memory by {peaks}"
    if e.task.workload.mode == "train" and e.unit == "images":
        yield "left out    reading and resizing pictures on the host; validation"
    if e.device.modes:
        yield f"mode        {e.device.modes}"
    if e.spread is not None and e.task.workload.mode == "train":
        from ..runs.failures import MANY

        if bool(e.devices >= MANY):
            yield f"stragglers  {_stragglers(float(e.spread.layout.straggler))}"


def _stragglers(factor: float) -> str:
    """What is taken of the slowest device, and what was seen elsewhere."""
    if factor != 1:
        return f"kernels of the slowest device take {factor:g} x as long, as you say"
    from ..runs.failures import JOBS, MANY, WASTED, WASTED_MOST

    usual = 1 / (1 - WASTED)
    return (
        f"none assumed; they wasted {WASTED:.1%} in the median of {JOBS:,} jobs on {MANY} or more,"
        f" {WASTED_MOST:.0%} in the worst tenth: straggler={usual:.3g} in the layout adds that"
    )
