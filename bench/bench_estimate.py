"""One estimate of Llama-3-405B: the whole process against an empty one, and within a process.

These are no records of a device's kernels: calibration and validation leave them aside.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from itertools import count

import pytest
from budget.bench.clock import replay

import budget
from budget.measured.record import ASIDE

ESTIMATE = ["-m", "budget", "estimate", "llama-3-405b", "--format", "json"]
ROUNDS = 15
NEW = count(2)  # batches that were not asked for before


def process(arguments: list[str]) -> float:
    """Seconds of a whole Python process, its bytecode cached as an installed package's is."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, env=environment, check=True)  # noqa: S603 - ours
    return time.perf_counter() - start


def test_whole_process(benchmark):
    """Alternating with `python -c pass`, as the machine is noisy; the ratio is what counts."""
    process(ESTIMATE)  # writes the bytecode
    pairs = [(process(["-c", "pass"]), process(ESTIMATE)) for _ in range(ROUNDS)]
    empty, estimate = (min(times) for times in zip(*pairs, strict=True))
    benchmark.extra_info.update(
        schema=ASIDE,
        empty_process_s=empty,
        ratio_to_empty=estimate / empty,
        above_empty_s=estimate - empty,
    )
    replay(benchmark, [estimate for _, estimate in pairs])


@pytest.mark.parametrize("what", ["counts", "memory", "time"])
@pytest.mark.parametrize("asked", ["new", "again"])
def test_in_process(benchmark, what, asked):
    """Counts alone, with the walk over memory, with the time; of a new batch, and of one asked before."""

    def once(i: int) -> float:
        start = time.perf_counter()
        answer = budget.estimate("llama-3-405b", batch=i)
        if what != "counts":
            assert answer.memory.peak
        if what == "time":
            assert answer.times.step
        return time.perf_counter() - start

    budget.estimate("llama-3-405b")
    benchmark.extra_info.update(schema=ASIDE)
    replay(benchmark, [once(next(NEW) if asked == "new" else 1) for _ in range(3 * ROUNDS)])
