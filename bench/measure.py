"""Measure functions side by side: in alternating order, warm on a processor, with a cold L2 on a GPU.

A processor's single thread is timed with its own clock, which stands while others run: on a shared
machine it is the only honest one. Several threads are timed by the wall clock, and each round notes how
long they waited for a processor (Linux's schedstat), so that a disturbed record can be told and repeated.
"""

from __future__ import annotations

import gc
import math
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

SHORTEST_S = 3e-4  # a round repeats what is shorter, so that reading the clock does not count
GRAPH_S = 5e-5  # kernels shorter than this are launched by a CUDA graph: else the launch is measured
FLUSH_BYTES = 256 * 2**20  # more than any L2
CLEAN = 0.05  # a round is disturbed if its threads waited for longer than this share of it

Functions = Mapping[str, Callable[[], Any]]


class Samples(NamedTuple):
    """Seconds of one call in each round, and how they were taken."""

    seconds: list[float]
    waited: float | None  # share of the best round that threads spent waiting for a processor
    inner: int
    method: str
    cache: str


def measure(
    functions: Functions, device: torch.device, *, budget_s: float, rounds: tuple[int, int]
) -> dict[str, Samples]:
    """Rounds of each function, alternating, until `budget_s` seconds or `rounds` (least, most) are spent."""
    gc.collect()
    gc.disable()
    try:
        if device.type == "cuda":
            return _on_gpu(functions, budget_s, rounds)
        return _on_cpu(functions, budget_s, rounds)
    finally:
        gc.enable()


def _on_cpu(functions: Functions, budget_s: float, rounds: tuple[int, int]) -> dict[str, Samples]:
    single = torch.get_num_threads() == 1
    clock = time.thread_time if single else time.perf_counter
    inner = {name: _inner(function, clock) for name, function in functions.items()}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in functions}
    start, done = time.perf_counter(), 0
    while done < rounds[0] or (done < rounds[1] and time.perf_counter() - start < budget_s):
        names = list(functions) if done % 2 == 0 else list(reversed(functions))
        for name in names:
            function, repeat = functions[name], range(inner[name])
            waited, begin = _waiting(single), clock()
            for _ in repeat:
                function()
            seconds = clock() - begin
            taken[name].append((seconds / inner[name], max(0.0, _waiting(single) - waited) / seconds))
        done += 1
    method = "clock of the one thread" if single else f"wall clock, {torch.get_num_threads()} threads"
    return {
        name: Samples([s for s, _ in r], None if single else min(r)[1], inner[name], method, "warm")
        for name, r in taken.items()
    }


def _inner(function: Callable[[], Any], clock: Callable[[], float]) -> int:
    for _ in range(2):
        begin = clock()
        function()
        once = max(clock() - begin, 1e-7)
        if once > 100 * SHORTEST_S:  # long enough not to need a second warm call
            return 1
    if once > SHORTEST_S:
        return 1
    begin = clock()
    for _ in range(10):
        function()
    return max(1, math.ceil(SHORTEST_S / max((clock() - begin) / 10, 1e-8)))


def _waiting(single: bool) -> float:
    """Seconds that this process's threads have waited for a processor so far; 0 where Linux does not say."""
    if single:
        return 0.0
    total = 0
    try:
        for thread in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{thread}/schedstat", encoding="ascii") as file:
                total += int(file.read().split()[1])
    except (OSError, IndexError, ValueError):
        return 0.0
    return total * 1e-9


def _on_gpu(functions: Functions, budget_s: float, rounds: tuple[int, int]) -> dict[str, Samples]:
    """CUDA events around each call, the L2 flushed before it; short kernels many times in a graph."""
    flush = torch.empty(FLUSH_BYTES // 4, dtype=torch.int32, device="cuda")
    calls, inner, method = {}, {}, {}
    for name, function in functions.items():
        function()
        once = _events(function, flush)
        calls[name], inner[name], method[name] = function, 1, "CUDA events"
        if once < GRAPH_S:
            repeat = math.ceil(4 * GRAPH_S / max(once, 1e-6))
            graph = _graph(function, repeat)
            if graph is not None:
                calls[name], inner[name], method[name] = (
                    graph.replay,
                    repeat,
                    "CUDA events around a CUDA graph",
                )
    taken: dict[str, list[float]] = {name: [] for name in functions}
    start, done = time.perf_counter(), 0
    while done < rounds[0] or (done < rounds[1] and time.perf_counter() - start < budget_s):
        for name in list(functions) if done % 2 == 0 else list(reversed(functions)):
            taken[name].append(_events(calls[name], flush) / inner[name])
        done += 1
    cache = {name: "cold" if inner[name] == 1 else "cold before the first of the graph" for name in functions}
    return {name: Samples(taken[name], None, inner[name], method[name], cache[name]) for name in functions}


def _events(function: Callable[[], Any], flush: torch.Tensor) -> float:
    """Seconds on the device. The flush keeps the queue full, so that the launch is hidden behind it."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    flush.zero_()
    begin.record()
    function()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) * 1e-3


def _graph(function: Callable[[], Any], repeat: int) -> Any:
    """The function `repeat` times as one CUDA graph; None where it cannot be captured."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    try:
        with torch.cuda.stream(stream):
            for _ in range(3):
                function()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(repeat):
                function()
    except RuntimeError:  # it synchronizes or allocates in a way that a graph does not allow
        torch.cuda.synchronize()
        return None
    return graph
