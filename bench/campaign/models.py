"""Whole training steps: peak memory, memory by phase and step time, beside earlier predictions.

Each network runs in a process of its own, forked from a worker that has imported everything and never touched
the GPU, so that it holds as much memory as a user's program. Networks that have to compile first do so at the
same time, and are then measured one after the other.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

import budget
from budget.measured.workload import settings

from .. import networks, record, sensors
from ..forked import Forked, Say, Wait
from ..measure import Samples
from .plan import find_case

READY_S = 100.0  # until all networks have made their first steps
SOON_S = 40.0  # until one has been measured
STEPS, ROUNDS = 5, 6
READY = {"ready": True}
HOW = {
    "torch": {},
    "triton": {"attention": "budget"},  # this project's, registered with transformers
    "compile": {"wrap": lambda net: torch.compile(net, dynamic=False)},
}
Provenance = Callable[[torch.device], dict[str, Any]]
Spec = Mapping[str, str]  # {"case": ..., "implementation": ...}


def run(
    where: torch.device,
    specs: Sequence[Spec],
    provenance: Callable[[torch.device], Any],
    alive: Callable[[str], None],
) -> list[dict[str, Any]]:
    """The result for each network: the group of its record, or the reason why there is none.

    provenance: called in the child, as it may touch the device. alive: called when a network is ready, and
    when it has been measured.
    """
    children = [_Network(where, spec, provenance) for spec in specs]
    try:
        end = time.monotonic() + READY_S
        for child in children:
            child.start(end - time.monotonic())
            alive(f"{child.spec['case']} is ready")
        results = []
        for child in children:
            results.append(child.measured())
            if len(children) > 1:  # NVML reports the whole device's memory
                for entry in results[-1].get("group", {}).values():
                    entry["extra_info"]["used_mib"] = None
            alive(f"{child.spec['case']} is measured")
        return results
    finally:
        for child in children:
            child.stop()


class _Network(Forked):
    """A child that makes its first steps, says so, waits, measures, answers."""

    def __init__(self, where: torch.device, spec: Spec, provenance: Provenance):
        def work(say: Say, wait: Wait) -> None:
            steps = measured(where, **spec)
            next(steps)
            say(READY)
            wait()
            say({"status": "ok", **next(steps), **provenance(where)})

        self.spec, self.answer = spec, READY
        super().__init__(work)

    def start(self, timeout: float) -> None:
        """Wait until it is ready; anything else that a child says, or nothing, is its answer."""
        self.answer = self.receive(timeout)

    def measured(self) -> dict[str, Any]:
        """The answer, measured now where the child was ready."""
        if self.answer == READY:
            self.go()
            self.answer = self.receive(SOON_S)
        self.stop()  # its memory is the next one's
        return {"network": dict(self.spec), **self.answer}


def predicted(workload: Mapping[str, Any], device: Any) -> dict[str, Any]:
    """Budget's prediction before anything runs: the peak, its tensors, the step."""
    e = budget.estimate(workload["model"], device=device, **settings(workload))
    return {
        "predicted_peak_bytes": int(e.memory.peak), "predicted_at": e.memory.at,
        "predicted_at_peak": {k: int(v) for k, v in e.memory.at_peak.items()},
        "predicted_kept_bytes": int(e.memory.activations), "predicted_step_s": float(e.times.step),
        "parameters": int(e.params.total),
    }  # fmt: skip


def measured(where: torch.device, case: str, implementation: str) -> Iterator[dict[str, Any]]:
    """Run two steps; when asked again, return their memory and the time of a step."""
    used_before = sensors.read().get("memory.used") if where.type == "cuda" else None  # by other processes
    device = record.this_device(where)
    c = find_case("models", case, where.type)
    execution = {"execution": "compiled"} if implementation == "compile" else {}
    c = c._replace(workload={**c.workload, **execution})
    facts = record.facts(c, device) | predicted({**c.workload, "dtype": c.dtype}, device)
    if implementation == "triton":
        from budget.kernels import transformers_attention

        transformers_attention.register()
    meter = Meter(where)
    torch.manual_seed(0)
    step = networks.build({**c.workload, "dtype": c.dtype}, where, mark=meter.mark, **HOW[implementation])
    for _ in range(2):
        meter.mark("start")
        loss = float(step())
    yield {}
    meter.mark("start")
    step()
    meter.mark("end")
    steady, meter.on = meter.steps[-1], False
    seconds = [_seconds(step, where) for _ in range(ROUNDS)]
    samples = Samples(seconds, None, STEPS, "steps back to back", "as in a run")
    best = record.typical(samples, where)
    info = {
        **facts, **record.rates(facts, best, device), **record.method(samples, where),
        "implementation": implementation, "loss": loss, "ratio_to": {},
        "peak_bytes": steady[-1].get("peak"), "reserved_bytes": steady[-1].get("reserved"),
        "used_mib": steady[-1].get("used_mib"), "used_before_mib": used_before,
        "first_step": meter.steps[0], "steady_step": steady,
        "error": None, "error_after": None, **record.sensed(where),
    }  # fmt: skip
    yield {"key": f"models/{c}", "group": {implementation: {"seconds": seconds, "extra_info": info}}}


class Meter:
    """Memory at each mark of each step, and the peak since the step's start."""

    def __init__(self, where: torch.device):
        self.cuda, self.on, self.steps = where.type == "cuda", True, [[]]

    def mark(self, phase: str) -> None:
        """Note what is allocated, reserved and used now."""
        if not self.on:
            return
        if phase == "start":
            gc.collect()
            self.steps.append([])
        mark: dict[str, Any] = {"phase": phase}
        if self.cuda:
            torch.cuda.synchronize()
            if phase == "start":
                torch.cuda.reset_peak_memory_stats()
            mark |= {
                "allocated": torch.cuda.memory_allocated(), "peak": torch.cuda.max_memory_allocated(),
                "reserved": torch.cuda.memory_reserved(), "used_mib": sensors.read().get("memory.used"),
            }  # fmt: skip
        self.steps[-1].append(mark)


def _seconds(step: Callable[[], Any], where: torch.device) -> float:
    """Seconds of a step, of several back to back."""
    start = time.perf_counter()
    for _ in range(STEPS):
        step()
    if where.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / STEPS
