"""Goodput: the part of a run's time that is training, when devices fail and checkpoints take time.

Failures come at random and independently, so a job of N devices fails N times as often as one device, and
every failure stops all of it (synchronous training). Source: daly-2006.
"""

from __future__ import annotations

import math

from ..errors import InputError, wrong
from ..named import Any, NamedTuple

# Unexpected interruptions of Llama 3 405B: 419 in 54 days on 16,384 H100, one in 50,700 hours of a device.
# Source: llama-3-interruptions.
DEVICE_MTBF_S = 54 * 86400 * 16384 / 419
# How long training stands still for a checkpoint, and from a failure until it goes on. Assumed: asynchronous
# checkpoints take less; measure the second on your own system.
CHECKPOINT_S, RESTART_S = 60.0, 600.0
# The share of device-hours that stragglers wasted in ByteDance's jobs on 128 GPUs or more, early in 2024: in
# the median, and in the worst tenth. Slower last stages and unequal sequences are among the causes; the
# former are part of a layout's prediction. Source: stragglers-2025.
JOBS, MANY, WASTED, WASTED_MOST = 3079, 128, 0.078, 0.213

SCHEMA = "budget.goodput/1"


class Goodput(NamedTuple):
    """fraction: the share of the time that is training, each step once. The others are seconds, or shares."""

    fraction: float
    mtbf_s: float  # of the job
    interval_s: float  # of training between two checkpoints
    checkpoint_s: float
    restart_s: float
    checkpoints: float  # the share of the time in which checkpoints are written
    lost: float  # the share of training that failures undo
    restarts: float
    devices: int = 1

    @property
    def failures_per_day(self) -> float:
        """How often the job fails."""
        return 86400 / self.mtbf_s

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of `budget goodput`."""
        return {"schema": SCHEMA, "failures_per_day": self.failures_per_day, **self._asdict()}


def goodput(
    devices: int,
    *,
    device_mtbf_s: float = DEVICE_MTBF_S,
    checkpoint_s: float = CHECKPOINT_S,
    restart_s: float = RESTART_S,
    interval_s: float | None = None,
) -> Goodput:
    """The goodput of a job on so many devices, each of which fails once in `device_mtbf_s` on average.

    interval_s: training between two checkpoints; None: the best. Raises InputError.
    """
    given: dict[str, Any] = {"devices": devices, "device_mtbf_s": device_mtbf_s, "checkpoint_s": checkpoint_s}
    for name, value in {**given, "interval_s": 1.0 if interval_s is None else interval_s}.items():
        if isinstance(value, str) or not 0 < value < 1e15:
            raise wrong(name, value, "numbers above 0")
    if not 0 <= restart_s < 1e15:
        raise InputError("restart_s", f"got {restart_s}; allowed: numbers from 0")
    mtbf = device_mtbf_s / devices
    interval = best_interval(checkpoint_s, mtbf) if interval_s is None else interval_s
    busy = interval + checkpoint_s
    # Expected seconds of a segment with failures, the training that they undo, and restarts (which may fail,
    # too):
    # M e^(R/M) (e^((interval + checkpoint)/M) - 1). Where that overflows, a job is so large that it makes no
    # progress.
    exponent = (restart_s + busy) / mtbf
    took = math.inf if exponent > 700 else mtbf * math.exp(restart_s / mtbf) * math.expm1(busy / mtbf)
    restarts = -math.expm1(-restart_s / mtbf)  # share of the time, with restarts that fail themselves
    done, written = interval / took, checkpoint_s / took
    return Goodput(
        fraction=done,
        mtbf_s=mtbf,
        interval_s=interval,
        checkpoint_s=checkpoint_s,
        restart_s=restart_s,
        checkpoints=written,
        lost=max(1 - done - written - restarts, 0.0),
        restarts=restarts,
        devices=devices,
    )


def best_interval(checkpoint_s: float, mtbf_s: float) -> float:
    """The training between two checkpoints that finishes soonest: the root of the expected time's derivative,
    e^((t + c)/M) (1 - t/M) = 1. Young's sqrt(2 c M) is its first approximation. Sources: daly-2006,
    young-1974.
    """
    low, high = 0.0, mtbf_s  # in between, the left side falls from e^(c/M), above 1, to 0
    for _ in range(200):
        middle = (low + high) / 2
        exponent = min((middle + checkpoint_s) / mtbf_s, 700.0)
        if math.exp(exponent) * (1 - middle / mtbf_s) > 1:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def young(checkpoint_s: float, mtbf_s: float) -> float:
    """Young's interval, from the start of a checkpoint to the next one's. Source: young-1974."""
    return math.sqrt(2 * checkpoint_s * mtbf_s)
