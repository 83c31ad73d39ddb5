"""A campaign's worker: imports torch once, then runs the tasks that it is told, one line of JSON each.

    python -m budget.bench.campaign_worker cuda

Reads a task's id a line from stdin; answers on the descriptor that stdout was, while everything printed
goes to stderr. A CUDA error ends the process: nothing after it would be right.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from budget import device as devices
from budget import record as records

from . import campaign_cache, campaign_checks, campaign_gate, record, sensors
from .campaign_plan import CEILINGS, STAGES, Task, find_case, suites, tasks

LOUD = (
    "CUDA error",
    "CUBLAS_STATUS",
    "CUDNN_STATUS",
    "cudaError",
    "device-side assert",
    "misaligned address",
    "illegal memory access",
    "unspecified launch failure",
)


def main(argv: list[str]) -> int:
    """Serve the parent until it closes stdin."""
    on = argv[0]
    out = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    where = torch.device(on)
    campaign_cache.state_key()
    plan = {task.id: task for task in tasks(on)}
    if on == "cpu":
        torch.set_num_threads(1)
    print(
        json.dumps(
            {
                "ready": os.getpid(),
                "plan": list(plan.values()),
                "shares": {s: share for s, (share, _) in STAGES.items()},
            }
        ),
        file=out,
    )
    for line in sys.stdin:
        task = plan[line.rstrip("\n")]
        started = time.perf_counter()
        answer = _answer(task, where)
        answer |= {"task": task.id, "stage": task.stage, "kernel": task.kernel, "assembler": task.assembler}
        answer |= {"compiled": campaign_cache.misses()}
        answer["wall_s"] = round(time.perf_counter() - started, 3)
        print(json.dumps(answer), file=out)
        if answer["status"] == "cuda_error":
            os._exit(3)  # no destructor may touch the device again
    return 0


def _answer(task: Task, where: torch.device) -> dict[str, Any]:
    """What the task found, or why it found nothing."""
    try:
        return {"status": "ok", **DO[task.do](where, **task.what)}
    except AssertionError as error:  # a result that is wrong, or above the roofline
        return {"status": "wrong", "error_text": _line(error)}
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        return {"status": "error", "error_text": _line(error)}
    except Exception as error:  # noqa: BLE001 - whatever it is, the next task must run
        traceback.print_exc()
        loud = type(error).__name__ == "AcceleratorError" or any(word in str(error) for word in LOUD)
        return {"status": "cuda_error" if loud else "error", "error_text": _line(error)}


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]


def environment(where: torch.device, name: str) -> dict[str, Any]:
    """Versions and clocks; or what the device can do at most."""
    if name == CEILINGS[0]:
        found: dict[str, Any] = {
            "versions": record.versions(),
            "source": record.source_hash(),
            "assembler": assembler(),
        }
        if where.type == "cuda":
            p = torch.cuda.get_device_properties(where)
            found |= {
                "gpu": p.name, "sms": p.multi_processor_count, "l2": p.L2_cache_size,
                "memory": p.total_memory,
                "capability": list(torch.cuda.get_device_capability(where)), **sensors.read(),
            }  # fmt: skip
        return {"environment": found}
    if name == "copy":
        size = 2 * 2**30 if where.type == "cuda" else 2**22
        x, y = torch.randint(100, (2, size), dtype=torch.uint8, device=where)
        return {"ceiling": {"copy_gb_s": 2 * size / _least(lambda: y.copy_(x), where) / 1e9}}
    n = 8192 if where.type == "cuda" else 128
    a, b = (torch.randn(n, n, device=where, dtype=torch.bfloat16) for _ in range(2))
    return {"ceiling": {"product_tflops": 2 * n**3 / _least(lambda: a @ b, where) / 1e12}}


def _least(function: Callable[[], Any], where: torch.device) -> float:
    """The median of ten calls, of which the first three do not count."""
    taken = []
    for _ in range(13):
        if where.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        function()
        if where.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return sorted(taken[3:])[5]


def check(where: torch.device, name: str) -> dict[str, Any]:
    """One check of the gate, on fresh memory that holds NaN."""
    compiles = "compiled" in name or "graph" in name  # these ask for memory in their own ways
    torch.use_deterministic_algorithms(not compiles, warn_only=True)
    try:
        found = campaign_gate.verdict(campaign_checks.made(name, where))
    finally:
        torch.use_deterministic_algorithms(False)
        if where.type == "cuda":
            torch.cuda.empty_cache()
    return {"status": "ok" if found["right"] and found["same"] else "wrong", "check": found}


@cache
def _device(on: str) -> devices.Device:
    return devices.load("auto" if on == "cuda" else "cpu")


@cache
def _versions() -> dict[str, str]:
    return record.versions() | {"assembler": assembler()}


def measure(
    where: torch.device, suite: str, case: str, only: Any = None, without: Any = ()
) -> dict[str, Any]:
    """The group of records of a case, as the journal has it."""
    c = find_case(suite, case, where.type)
    build = suites()[suite].build
    device = _device(where.type)

    def chosen(c, where):
        built = build(c, where)
        return built._replace(functions={n: f for n, f in built.functions.items() if n not in without})

    try:
        group = record.take(c, chosen, device, where, "campaign", only)
    finally:
        if where.type == "cuda":
            torch.cuda.empty_cache()
    fingerprint = {
        "versions": _versions(),
        "source": record.source_hash(),
        "threads": torch.get_num_threads(),
    }
    return {
        "key": f"{c.suite}/{c}", "fingerprint": fingerprint, "group": group,
        "device": {"key": records.device_key(device), "name": device.name, "type": where.type},
    }  # fmt: skip


def assembler() -> str:
    """The version of the ptxas that Triton calls; empty where there is none."""
    try:
        import triton

        return str(triton.knobs.nvidia.ptxas.version)
    except Exception:  # noqa: BLE001 - no Triton, or one that says it elsewhere
        return ""


DO: dict[str, Callable[..., dict[str, Any]]] = {
    "environment": environment,
    "check": check,
    "measure": measure,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
