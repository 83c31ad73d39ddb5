"""Validation of predicted times: the errors for kernels and networks, and the coverage of intervals.

An error is predicted / measured - 1. Only records of the split `held` count: calibration has not seen them.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from ..device import Device
from ..device.kernel_class import Profile
from ..errors import InputError
from ..named import Any, NamedTuple
from .record import Record
from .workload import seconds, work


class Row(NamedTuple):
    """One record with its prediction; both in seconds."""

    record: Record
    predicted: float
    low: float
    high: float
    flops: float
    bytes: float

    @property
    def error(self) -> float:
        """Predicted / measured - 1."""
        return self.predicted / self.record.seconds - 1

    @property
    def inside(self) -> bool:
        """Whether the measurement lies in the predicted interval."""
        return self.low <= self.record.seconds <= self.high

    @property
    def group(self) -> str:
        """Kernels by suite; networks by what is run."""
        if not self.record.is_network:
            return self.record.suite
        return "training steps" if self.record.workload.get("mode") == "train" else "forward passes"


class Summary(NamedTuple):
    """Errors of several rows: median and 90th percentile of their absolute values, and the signed median."""

    name: str
    number: int
    median: float
    p90: float
    bias: float
    coverage: float

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers by name."""
        return self._asdict()


def rows(records: Iterable[Record], device: Device, profile: Profile, split: str = "held") -> list[Row]:
    """Predictions for the records of a split. Raises InputError where there is none."""
    chosen = [r for r in records if r.split == split and (r.predicted or r.collective in profile.links)]
    if not chosen:
        raise InputError(
            "results",
            f"no record that calibration has not seen; measure with: pytest bench/ (split {split!r})",
        )
    return [_row(r, device, profile) for r in chosen]


def _row(record: Record, device: Device, profile: Profile) -> Row:
    if record.collective:
        start, bandwidth = profile.links[record.collective]
        predicted = start + record.info["bytes"] / bandwidth
        return Row(
            record,
            predicted,
            predicted * profile.kernels[0],
            predicted * profile.kernels[1],
            0.0,
            record.info["bytes"],
        )
    program = work(record.workload)
    predicted = seconds(program, device, profile)
    low, high = (profile.low, profile.high) if record.is_network else profile.kernels
    return Row(record, predicted, predicted * low, predicted * high, program.flops, program.bytes)


def p90(sizes: Iterable[float]) -> float:
    """The value that nine of ten are below."""
    ordered = sorted(sizes)
    return ordered[min(int(0.9 * len(ordered)), len(ordered) - 1)]


def summarize(name: str, some: Sequence[Row]) -> Summary:
    """The errors of some rows."""
    sizes = [abs(r.error) for r in some]
    return Summary(
        name,
        len(some),
        statistics.median(sizes),
        p90(sizes),
        statistics.median(r.error for r in some),
        sum(r.inside for r in some) / len(some),
    )


def summaries(every: Sequence[Row]) -> list[Summary]:
    """One summary per suite, one for all kernels, one per mode of networks, one for all networks."""
    groups: dict[str, list[Row]] = {}
    for row in every:
        groups.setdefault(row.group, []).append(row)
        if not row.record.collective:  # they depend on others' traffic: a class of their own
            groups.setdefault("all networks" if row.record.is_network else "all kernels", []).append(row)
    order = sorted(groups, key=lambda g: (groups[g][0].record.is_network, g.startswith("all"), g))
    return [summarize(name, groups[name]) for name in order]
