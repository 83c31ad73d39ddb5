"""Compile a campaign's kernels before they are measured: no GPU is needed, and many processes share the work.

    python -m budget.bench.campaign_cache --jobs 14

Every launch of the plan is made with tensors on the meta device, through the public functions, their custom
operators and their gradients; Triton compiles instead of running. A worker with the same TRITON_CACHE_DIR
then finds each kernel in the cache. Prints a line of JSON for each piece of the plan.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
import triton
from torch._C import (
    DispatchKey,
    DispatchKeySet,
)  # the way around an operator's implementation for meta tensors
from torch.utils._python_dispatch import TorchDispatchMode

from budget.kernels import lint

from . import campaign_checks, campaign_tune
from .campaign_plan import find_case, suites, tasks

META = torch.device("meta")


def state_key() -> None:
    """Let Triton's cache be keyed by its version alone, not by the bytes of its compiler's files: a wheel
    for another Python has other bytes and generates the same code.
    """
    from triton.runtime import cache

    cache.triton_key = lambda: f"budget-{triton.__version__}"
    triton.knobs.compilation.listener = _listen


_missed: list[str] = []


def _listen(src: Any, metadata: Any, metadata_group: Any, times: Any, cache_hit: bool) -> None:
    if not cache_hit:
        _missed.append(src.name)


def misses() -> list[str]:
    """The kernels that were not in the cache since this was asked last."""
    found = _missed.copy()
    _missed.clear()
    return found


class _Kernels(TorchDispatchMode):
    """Meta tensors take the way of CUDA tensors through this project's operators."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.namespace == "budget":
            return function.redispatch(DispatchKeySet(DispatchKey.CUDA), *args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


@contextlib.contextmanager
def compiling(architecture: str = "sm90") -> Iterator[list[tuple[str, Any]]]:
    """Compile what is launched; yields the list that (kernel, its compiled code) is added to."""
    modules = [
        m for n, m in sys.modules.items() if n.startswith("budget.kernels") and hasattr(m, "runs_triton")
    ]
    with contextlib.ExitStack() as stack:
        kernels, _ = stack.enter_context(lint.compiled(architecture))
        for module in modules:
            stack.enter_context(mock.patch.object(module, "runs_triton", return_value=True))
        stack.enter_context(_Kernels())
        yield kernels


def pieces(on: str = "cuda") -> list[str]:
    """What is compiled together: checks by name, cases as suite/name, each once, in the plan's order."""
    found: dict[str, None] = {}
    for task in tasks(on):
        if task.do == "check":
            found[task.what["name"]] = None
        elif task.do == "measure" and "triton" in task.what.get("only", ["triton"]):
            found[f"{task.what['suite']}/{task.what['case']}"] = None
        elif task.do == "search":
            found |= dict.fromkeys(campaign_tune.names(META, **task.what))
    return list(found)


def launch(piece: str) -> None:
    """Make every launch of a piece once, on the meta device."""
    name, _, candidate = piece.partition(campaign_tune.AT)
    suite, slash, case = name.partition("/")
    if not slash:
        campaign_checks.made(piece, META).run()
        return
    built = suites()[suite].build(find_case(suite, case, "cuda"), META)
    ours = built.functions.get("triton")
    if candidate:
        ours = campaign_tune.named(ours, META, candidate)
    if ours:
        ours(*(built.inputs() if built.inputs else ()))


def compile_piece(piece: str) -> dict[str, Any]:
    """Compile a piece: {piece, kernels, seconds}, and the error where there is one."""
    start, error = time.perf_counter(), ""
    with compiling() as kernels:
        try:
            launch(piece)
        except Exception as problem:  # noqa: BLE001 - the worker will meet it too, and say so
            error = f"{type(problem).__name__}: {' '.join(str(problem).split())[-300:]}"
    used = [(name, *resources(kernel)) for name, kernel in kernels] if campaign_tune.AT in piece else []
    return {
        "piece": piece, "kernels": [name for name, _ in kernels], "used": used,
        "compiled": misses(), "seconds": round(time.perf_counter() - start, 2), "error": error,
    }  # fmt: skip


def resources(kernel: Any) -> tuple[int, int]:
    """(bytes of the stack, where registers are spilled to; bytes of shared memory) of compiled code."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603 - Triton's own
    return max(map(int, re.findall(r"STACK:(\d+)", said)), default=0), kernel.metadata.shared


def main(argv: list[str]) -> int:
    """Compile the plan in --jobs processes."""
    parser = argparse.ArgumentParser(
        prog="python -m budget.bench.campaign_cache", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--only", action="append", help="a piece of the plan (may be given again)")
    options = parser.parse_args(argv)
    state_key()
    fork = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(options.jobs, fork) as pool:
        waiting = [pool.submit(compile_piece, piece) for piece in options.only or pieces()]
        for done in concurrent.futures.as_completed(waiting):
            print(json.dumps(done.result()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
