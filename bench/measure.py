"""Measure functions side by side: in alternating order, warm on a processor, with a cold L2 on a GPU.

Each implementation is a list of calls, one for each set of inputs. On a GPU short calls are put into a CUDA
graph that walks over all the sets, of which there are so many that none is in the L2 when its turn comes;
long ones are called behind a flush of the L2 and a spin that hides the launch.

A processor's single thread is timed with its own clock, which stands while others run: on a shared
machine it is the only honest one. Several threads are timed by the wall clock, and each round notes how
long they waited for a processor (Linux's schedstat), so that a disturbed record is recognized and repeated.
"""

from __future__ import annotations

import gc
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

SHORTEST_S = 3e-4  # a round repeats shorter calls, so that reading the clock does not matter
GRAPH_S = 2e-3  # calls shorter than this are launched by a CUDA graph: else the launch is measured
LEAST_GRAPH_S = 2e-4  # one replay of a graph: events resolve half a microsecond
LEAST_STEPS_S = 2e-2  # of a network's steps between two events
FLUSH_BYTES = 256 * 2**20  # more than any L2
SPIN_CYCLES = 2_000_000  # about a millisecond, in which the host launches what is to be measured
MOST_SETS = 64  # of inputs in turn
CLEAN = 0.05  # a round is disturbed if its threads waited for longer than this share of it
AGAIN = 4  # times the budget, within which cases without an undisturbed round are repeated

Functions = Mapping[str, Sequence[Callable[[], Any]]]


class Samples(NamedTuple):
    """Seconds of one call in each round, and how they were taken."""

    seconds: list[float]
    waited: float | None  # share of the best round that threads spent waiting for a processor
    inner: int
    method: str
    cache: str
    host_s: float | None = None  # of a GPU's call: until it returned, with the launch


def sets_of_inputs(moved: float, device: torch.device) -> int:
    """How many sets of inputs a GPU needs, so that together they are more than four times its L2."""
    if device.type != "cuda":
        return 1
    l2 = torch.cuda.get_device_properties(device).L2_cache_size
    return min(MOST_SETS, 1 + math.ceil(4 * l2 / max(moved, 1)))


def measure(
    functions: Functions,
    device: torch.device,
    *,
    budget_s: float,
    rounds: tuple[int, int],
    network: bool = False,
) -> dict[str, Samples]:
    """Rounds of each function, alternating, until `budget_s` seconds or `rounds` (least, most) are spent.

    network: steps follow each other as in a training run, the host's part in them included.
    """
    gc.collect()
    gc.disable()
    try:
        if device.type == "cuda":
            return _on_gpu(functions, budget_s, rounds, network)
        return _on_cpu(functions, budget_s, rounds)
    finally:
        gc.enable()


def _on_cpu(functions: Functions, budget_s: float, rounds: tuple[int, int]) -> dict[str, Samples]:
    single = torch.get_num_threads() == 1
    clock = time.thread_time if single else time.perf_counter
    inner = {name: _inner(function, clock) for name, (function, *_) in functions.items()}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in functions}
    start, done = time.perf_counter(), 0
    while done < rounds[0] or (done < rounds[1] and time.perf_counter() - start < budget_s):
        names = list(functions) if done % 2 == 0 else list(reversed(functions))
        for name in names:
            taken[name].append(_round(functions[name][0], inner[name], clock, single))
        done += 1
    while time.perf_counter() - start < AGAIN * budget_s:
        if not (disturbed := [name for name in functions if min(taken[name])[1] > CLEAN]):
            break
        for name in disturbed:
            taken[name].append(_round(functions[name][0], inner[name], clock, single))
    method = "clock of the one thread" if single else f"wall clock, {torch.get_num_threads()} threads"
    return {
        name: Samples([s for s, _ in r], None if single else min(r)[1], inner[name], method, "warm")
        for name, r in taken.items()
    }


def _round(
    function: Callable[[], Any], inner: int, clock: Callable[[], float], single: bool
) -> tuple[float, float]:
    """Seconds of a call, and the share of the round that threads waited for a processor."""
    waited, begin = _waiting(single), clock()
    for _ in range(inner):
        function()
    seconds = clock() - begin
    return seconds / inner, max(0.0, _waiting(single) - waited) / seconds


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
    """Seconds that this process's threads have waited for a processor so far; 0 where it is not known."""
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


def _on_gpu(
    functions: Functions, budget_s: float, rounds: tuple[int, int], network: bool
) -> dict[str, Samples]:
    flush = None if network else torch.empty(FLUSH_BYTES // 4, dtype=torch.int32, device="cuda")
    plans = {name: _planned(calls, flush) for name, calls in functions.items()}
    taken: dict[str, list[float]] = {name: [] for name in functions}
    start, done = time.perf_counter(), 0
    while done < rounds[0] or (done < rounds[1] and time.perf_counter() - start < budget_s):
        for name in list(functions) if done % 2 == 0 else list(reversed(functions)):
            plan = plans[name]
            taken[name].append(_events(plan.call, flush) / plan.inner)
        done += 1
    return {
        name: Samples(taken[name], None, plan.inner, plan.method, plan.cache, plan.host_s)
        for name, plan in plans.items()
    }


class _Plan(NamedTuple):
    """How an implementation is called: once behind a flush, or `inner` times in a graph."""

    call: Callable[[], Any]
    inner: int
    method: str
    cache: str
    host_s: float | None


def _planned(calls: Sequence[Callable[[], Any]], flush: torch.Tensor | None) -> _Plan:
    for _ in range(2):
        calls[0]()
    once = _events(calls[0], flush)
    if flush is None:
        steps = range(max(1, math.ceil(LEAST_STEPS_S / once)))
        together = lambda: [calls[0]() for _ in steps]  # noqa: E731 - called below
        return _Plan(together, len(steps), "CUDA events around steps back to back", "as in a run", None)
    host = _host(calls[0])
    repeat = len(calls) * math.ceil(LEAST_GRAPH_S / max(once * len(calls), 1e-6))
    graph = _graph(calls, repeat) if once < GRAPH_S else None
    if graph is None:
        return _Plan(calls[0], 1, "CUDA events behind a spin", "cold", host)
    cache = f"{len(calls)} sets of inputs in turn" if len(calls) > 1 else "warm in the graph"
    return _Plan(graph.replay, repeat, "CUDA events around a CUDA graph", cache, host)


def _host(function: Callable[[], Any], times: int = 10) -> float:
    """Seconds until a call returns, the device's queue being neither empty nor full."""
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(times):
        function()
    seconds = (time.perf_counter() - begin) / times
    torch.cuda.synchronize()
    return seconds


def _events(function: Callable[[], Any], flush: torch.Tensor | None) -> float:
    """Seconds on the device; behind a flush and a spin, the host has launched it all when they end."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    if flush is not None:
        flush.zero_()
        torch.cuda._sleep(SPIN_CYCLES)  # noqa: SLF001 - torch's own tests spin with it
    begin.record()
    function()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) * 1e-3


def _graph(calls: Sequence[Callable[[], Any]], repeat: int) -> Any:
    """The calls in turn, `repeat` in all, as one CUDA graph; None where they cannot be captured."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    try:
        with torch.cuda.stream(stream):
            for call in calls:
                call()
        torch.cuda.current_stream().wait_stream(stream)
        graph, outputs = (
            torch.cuda.CUDAGraph(),
            [None] * len(calls),
        )  # one output a set: as cold as the inputs
        with torch.cuda.graph(graph):
            for i in range(repeat):
                outputs[i % len(calls)] = calls[i % len(calls)]()
    except RuntimeError:  # it synchronizes or allocates in a way that a graph does not allow
        torch.cuda.synchronize()
        return None
    return graph
