"""The batch of a step: samples of all devices, and the micro-batches into which they are divided."""

from __future__ import annotations

from collections.abc import Mapping

from ..config import size
from ..errors import InputError, shown, wrong
from ..named import TYPE_CHECKING, Any
from ..size import Size, any_of

if TYPE_CHECKING:
    from ..layout import Layout
    from ..read.source import Source


def micro_batches(whole: Size, layout: Layout | None, source: Source, techniques: Mapping[str, Any]) -> Size:
    """How many micro-batches a step's batch is divided into. Raises InputError."""
    if techniques.get("accumulate", 1) != 1:
        raise InputError("accumulate", "given together with global_batch; allowed: one of the two")
    each = source.workload.batch * (1 if layout is None else layout.dp)
    if isinstance(whole, str):
        built = source.network.build(source.workload)
        whole = whole_samples(whole, built.tokens // built.samples, each)
    samples = size("global_batch", whole)
    if any_of(samples % each != 0):
        unit = "batch" if layout is None else "dp x micro_batch"
        raise wrong("global_batch", samples, f"multiples of {unit}, {shown(each)}")
    return samples // each


def whole_samples(text: str, length: int, each: int) -> int:
    """Samples of so many tokens (`4M-tokens`): the nearest multiple of `each`. Raises InputError."""
    from ..quantity import COUNT, read

    if not text.rstrip().endswith(("token", "tokens")) or not length:
        raise wrong("global_batch", text, "samples, or tokens as 4M-tokens")
    return max(1, round(read("global_batch", text, COUNT) / length / each)) * each
