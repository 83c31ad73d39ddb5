"""A campaign's worker: imports torch once, then runs the tasks that it is given, one line of JSON each.

    python -m budget.bench.campaign.worker cuda [forks]

Reads a task a line from stdin: its id, and the earlier answers that it needs. Answers on the descriptor that
was stdout, while everything printed goes to stderr. A CUDA error ends the process: nothing after it would be
right. A worker of `forks` never touches the device, so that its children can.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TextIO

import torch

from budget.device import profile as profiles

from .. import networks, record, sensors
from . import checks, gate, models, precompile, tune
from .fatal import is_fatal, one_line
from .plan import CEILINGS, FORKS, STAGES, Task, find_case, suites, tasks

OUT: list[TextIO] = []  # to the parent
SAYING = threading.Lock()


def main(argv: list[str]) -> int:
    """Serve the parent until it closes stdin."""
    where = torch.device(argv[0])
    OUT.append(os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8"))
    os.dup2(2, 1)
    if where.type == "cpu":
        torch.set_num_threads(1)
    if argv[1:] == [FORKS]:
        networks.import_all()
    elif problem := _unusable(where):
        _say({"refused": problem})
        return 2
    else:
        precompile.tell(alive)
    precompile.share_cache()
    plan = {task.id: task for task in tasks(where.type)}
    shares = {stage: share for stage, (share, _) in STAGES.items()}
    _say({"ready": os.getpid(), "plan": list(plan.values()), "fields": Task._fields, "shares": shares})
    for line in sys.stdin:
        name, given = json.loads(line)
        task, started = plan[name], time.perf_counter()
        answer = {"task": task.id, "stage": task.stage, "kernel": task.kernel, "assembler": task.assembler}
        answer |= _answer(task, where, given)
        answer |= {"compiled": precompile.misses(), "wall_s": round(time.perf_counter() - started, 3)}
        _say(answer)
        if answer["status"] == "cuda_error":
            os._exit(3)  # no destructor may touch the device again
    return 0


def _unusable(where: torch.device) -> str:
    """Why torch cannot use the device (a driver that is too old, a build for processors); empty if it can."""
    try:
        torch.zeros(1, device=where)
    except (RuntimeError, AssertionError) as error:
        return one_line(error)
    return ""


def _say(answer: Mapping[str, Any]) -> None:
    with SAYING:
        OUT[0].write(json.dumps(answer) + "\n")


def alive(what: str) -> None:
    """Tell the parent that a long task goes on."""
    _say({"alive": what})


def _answer(task: Task, where: torch.device, given: Mapping[str, Any]) -> dict[str, Any]:
    """The task's result, or why there is none."""
    try:
        return {"status": "ok", **DO[task.do](where, **task.what, **given)}
    except AssertionError as error:  # a result that is wrong, or above the roofline
        return {"status": "wrong", "error_text": one_line(error)}
    except torch.OutOfMemoryError as error:
        return {"status": "error", "error_text": one_line(error)}
    except Exception as error:  # noqa: BLE001 - whatever it is, the next task must run
        with contextlib.suppress(OSError):  # a full disk
            traceback.print_exc()
        return {"status": "cuda_error" if is_fatal(error) else "error", "error_text": one_line(error)}


def environment(where: torch.device, name: str) -> dict[str, Any]:
    """Versions and clocks; or the device's measured peak rates."""
    if name == CEILINGS[0]:
        return {
            "environment": {"versions": _versions(), "source": record.source_hash(), **_properties(where)}
        }
    if name == "copy":
        size = 2 * 2**30 if where.type == "cuda" else 2**22
        x, y = torch.randint(100, (2, size), dtype=torch.uint8, device=where)
        return {"ceiling": {"copy_gb_s": 2 * size / _least(lambda: y.copy_(x), where) / 1e9}}
    n = 8192 if where.type == "cuda" else 128
    a, b = (torch.randn(n, n, device=where, dtype=torch.bfloat16) for _ in range(2))
    return {"ceiling": {"product_tflops": 2 * n**3 / _least(lambda: a @ b, where) / 1e12}}


def _properties(where: torch.device) -> dict[str, Any]:
    if where.type != "cuda":
        return {}
    p = torch.cuda.get_device_properties(where)
    return {
        "gpu": p.name, "sms": p.multi_processor_count, "l2": p.L2_cache_size, "memory": p.total_memory,
        "capability": list(torch.cuda.get_device_capability(where)), **sensors.read(),
    }  # fmt: skip


def _least(function: Callable[[], Any], where: torch.device, calls: int = 20) -> float:
    """Seconds of a call among calls back to back, the least of five tries: the clocks are up by then."""
    wait = torch.cuda.synchronize if where.type == "cuda" else lambda: None
    taken = []
    for _ in range(5):
        wait()
        start = time.perf_counter()
        for _ in range(calls):
            function()
        wait()
        taken.append((time.perf_counter() - start) / calls)
    return min(taken)


def check(where: torch.device, name: str) -> dict[str, Any]:
    """One check of the gate, on fresh memory that holds NaN."""
    compiles = "compiled" in name or "graph" in name  # these ask for memory in their own ways
    torch.use_deterministic_algorithms(not compiles, warn_only=True)
    try:
        found = gate.verdict(checks.made(name, where))
    finally:
        torch.use_deterministic_algorithms(False)
        _free(where)
    return {"status": "ok" if found["right"] and found["same"] else "wrong", "check": found}


def measure(
    where: torch.device, suite: str, case: str, only: Any = None, without: Any = (), verified: bool = True
) -> dict[str, Any]:
    """The group of records of a case, as the journal has it."""
    c = find_case(suite, case, where.type)

    def chosen(c, where):
        built = suites()[suite].build(c, where)
        return built._replace(functions={n: f for n, f in built.functions.items() if n not in without})

    try:
        group = record.take(c, chosen, record.this_device(where), where, "campaign", only, verified=verified)
    finally:
        _free(where)
    return {"key": f"{c.suite}/{c}", "group": group, **provenance(where)}


def network(where: torch.device, specs: Any) -> dict[str, Any]:
    """Networks in processes of their own; a part for each."""
    return {"parts": models.run(where, specs, provenance, alive)}


def search(where: torch.device, winners: Any = (), **what: str) -> dict[str, Any]:
    """Candidates for the settings of a kernel."""
    try:
        return tune.search(where, **what, winners=winners) | provenance(where)
    finally:
        _free(where)


def again(where: torch.device, case: str, winners: Any = ()) -> dict[str, Any]:
    """A case with the settings that were found."""
    try:
        return tune.again(where, case, winners) | provenance(where)
    finally:
        _free(where)


def planted(where: torch.device, how: str) -> dict[str, Any]:
    """Every possible end of a task, for the test of the parent."""
    if how == "hang":
        time.sleep(1000)
    if how == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "cuda_error":
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    return {}


def _free(where: torch.device) -> None:
    if where.type == "cuda":
        torch.cuda.empty_cache()


def provenance(where: torch.device) -> dict[str, Any]:
    """The device, versions and sources of a result."""
    device = record.this_device(where)
    fingerprint = {
        "versions": _versions(),
        "source": record.source_hash(),
        "threads": torch.get_num_threads(),
    }
    named = {"key": profiles.key(device), "name": device.name, "type": where.type}
    return {"fingerprint": fingerprint, "device": named}


@cache
def _versions() -> dict[str, str]:
    return record.versions() | {"assembler": _assembler()}


def _assembler() -> str:
    """The version of the ptxas that Triton calls; empty where there is none."""
    try:
        import triton

        return str(triton.knobs.nvidia.ptxas.version)
    except Exception:  # noqa: BLE001 - no Triton, or one that says it elsewhere
        return ""


DO: dict[str, Callable[..., dict[str, Any]]] = {
    f.__name__: f for f in (environment, check, measure, network, search, again, planted)
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
