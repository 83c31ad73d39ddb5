"""Compile a campaign's kernels before they are measured: no GPU is needed, and many processes share the work.

    python -m budget.bench.campaign.precompile --jobs 14

Every launch of the plan is made with tensors on the meta device, through the public functions, their custom
operators and their gradients; Triton compiles instead of running. A worker with the same TRITON_CACHE_DIR
then finds each kernel in the cache. Prints a line of JSON for each piece of the plan.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import fcntl
import functools
import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
import triton
from torch._C import (
    DispatchKey,
    DispatchKeySet,
)  # the way around an operator's implementation for meta tensors
from torch.utils._python_dispatch import TorchDispatchMode
from triton.backends.nvidia import driver as nvidia
from triton.compiler import compiler
from triton.runtime import cache
from triton.runtime.jit import JITFunction

from budget.kernels import lint, settings

from . import checks, tune
from .plan import NEWEST, find_case, suites, tasks

UNSEEN = "transformers"  # its models read values, which tensors on the meta device do not have
META, ARCHITECTURE = torch.device("meta"), "sm90"
Setting = tuple[str, str, str]  # a kernel, an architecture, a class


def share_cache() -> None:
    """Let processes share Triton's cache of this project's kernels. Its key has Triton's version, not the
    bytes of the compiler's files: a wheel for another Python has other bytes, but generates the same code.
    While one process compiles a kernel, the others wait for it.
    """
    compiler.get_cache_key = _keyed(compiler.get_cache_key)
    cache.FileCacheManager.get_group = _waited(cache.FileCacheManager.get_group)
    cache.FileCacheManager.put_group = _released(cache.FileCacheManager.put_group)
    triton.knobs.compilation.listener = _listen


def _keyed(get_cache_key: Any) -> Any:
    def key(src: Any, *rest: Any, **more: Any) -> str:
        if not _ours(src):
            return get_cache_key(src, *rest, **more)
        with mock.patch.object(cache, "triton_key", return_value=f"budget-{triton.__version__}"):
            return get_cache_key(src, *rest, **more)

    return key


def _ours(src: Any) -> bool:
    """Whether this is the source of a kernel of ours, not of one that torch.compile has written."""
    return str(getattr(getattr(src, "fn", None), "module", "")).startswith("budget.kernels")


def _waited(get_group: Any) -> Any:
    """Called for a kernel that the cache lacks: one process compiles it next, and the others wait here."""

    def found(self: Any, filename: str) -> Any:
        group = get_group(self, filename)
        if group is None and self.cache_dir:
            _since.append(time.monotonic())
            _held.append(open(f"{self.cache_dir}.lock", "w", encoding="utf-8"))  # noqa: SIM115 - until it is compiled
            fcntl.flock(_held[-1], fcntl.LOCK_EX)
            group = get_group(self, filename)
            if group is not None:
                _release()
        return group

    return found


def _released(put_group: Any) -> Any:
    def put(self: Any, filename: str, group: Any) -> Any:
        try:
            return put_group(self, filename, group)
        finally:
            _release()

    return put


def _release() -> None:
    """Give back all locks of this process; those of a process that ends are given back with it."""
    _since.clear()
    while _held:
        _held.pop().close()


def tell(alive: Callable[[str], None]) -> None:
    """Report that this process is alive while a kernel is compiled, here or elsewhere, which may take
    long.
    """

    def watch() -> None:
        while True:
            time.sleep(TELL_S)
            if _since and time.monotonic() - _since[0] < COMPILED_S:
                alive("compiling")

    threading.Thread(target=watch, daemon=True).start()


TELL_S = 5.0
COMPILED_S = 150.0  # after which a compiler hangs
_since: list[float] = []  # when this process began to wait for a kernel
_held: list[Any] = []


_missed: list[str] = []
_used: set[str] = set()  # keys of the cache that this process has read or written


def _listen(src: Any, metadata: Any, metadata_group: Any, times: Any, cache_hit: bool) -> None:
    if not _ours(src):
        return
    _used.update(os.path.basename(os.path.dirname(path)) for path in metadata_group.values())
    if not cache_hit:
        _missed.append(src.name)


def misses() -> list[str]:
    """The kernels that were not in the cache since the last call."""
    _release()  # the lock of a kernel that did not compile
    found = _missed.copy()
    _missed.clear()
    return found


class _Kernels(TorchDispatchMode):
    """Within, meta tensors go through this project's operators as CUDA tensors do."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.namespace == "budget":
            return function.redispatch(DispatchKeySet(DispatchKey.CUDA), *args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


@contextlib.contextmanager
def compiling() -> Iterator[tuple[list[tuple[str, Any]], set[Setting]]]:
    """Compile what is launched: (the kernels and their compiled code, the settings looked up)."""
    modules = [
        m for n, m in sys.modules.items() if n.startswith("budget.kernels") and hasattr(m, "runs_triton")
    ]
    with contextlib.ExitStack() as stack:
        kernels, used = stack.enter_context(lint.compiled(ARCHITECTURE))
        for module in modules:
            stack.enter_context(mock.patch.object(module, "runs_triton", return_value=True))
        stack.enter_context(_Kernels())
        yield kernels, used


def pieces(assembler: str = NEWEST) -> list[str]:
    """The pieces that are compiled: checks by name, cases as suite/name, each once, in the plan's order."""
    found: dict[str, None] = {}
    for task in (t for t in tasks("cuda") if t.assembler == assembler):
        if task.do == "check" and task.kernel != UNSEEN:
            found[task.what["name"]] = None
        elif task.do == "measure" and "triton" in task.what.get("only", ["triton"]):
            found[f"{task.what['suite']}/{task.what['case']}"] = None
        elif task.do == "search":
            found |= dict.fromkeys(tune.names(META, **task.what))
    return list(found)


def launch(piece: str) -> None:
    """Make every launch of a piece once, on the meta device."""
    name, _, candidate = piece.partition(tune.AT)
    suite, slash, case = name.partition("/")
    if not slash:
        checks.made(piece, META).run()
        return
    built = suites()[suite].build(find_case(suite, case, "cuda"), META)
    ours = built.functions.get("triton")
    if candidate:
        ours = tune.named(ours, META, candidate)
    if ours:
        ours(*(built.inputs() if built.inputs else ()))


def compile_piece(piece: str) -> dict[str, Any]:
    """Compile a piece: {piece, kernels, seconds}, and the error where there is one."""
    start, error, used = time.perf_counter(), "", []
    with compiling() as (kernels, _):
        try:
            launch(piece)
            used = [(name, *lint.resources(code)) for name, code in kernels if tune.AT in piece]
        except Exception as problem:  # noqa: BLE001 - the worker will meet it too, and say so
            _release()
            error = f"{type(problem).__name__}: {' '.join(str(problem).split())[-300:]}"
    for _, kernel in kernels:
        _make_launcher(kernel)
    return {
        "piece": piece, "kernels": [name for name, _ in kernels], "used": used, "keys": sorted(_used),
        "compiled": misses(), "seconds": round(time.perf_counter() - start, 2), "error": error,
    }  # fmt: skip


def _make_launcher(kernel: Any) -> None:
    """Compile a kernel's launcher: before Triton 3.7 it is C code, one for each signature.

    Otherwise a worker's first call would wait for it.
    """
    if hasattr(nvidia, "make_launcher") and _has_libcuda():
        with contextlib.suppress(Exception):  # the worker will meet it too, and say so
            nvidia.CudaLauncher(kernel.src, kernel.metadata)


@functools.cache
def _has_libcuda() -> bool:
    """Whether there is a driver here, against which the launcher is linked."""
    try:
        return bool(nvidia.library_dirs())
    except (AssertionError, OSError, subprocess.SubprocessError):
        return False


def uncovered() -> list[str]:
    """The settings of ARCHITECTURE that no launch of the plan looks up. Nothing is compiled."""
    known = {
        (kernel, ARCHITECTURE, name)
        for kernel, tables in settings.load().items()
        for name in tables.get(ARCHITECTURE, ())
    }
    launched = mock.patch.object(JITFunction, "run", return_value=None)
    with launched, compiling() as (_, used):
        for piece in pieces():
            launch(piece)
    return [f"{kernel} {name}" for kernel, _, name in sorted(known - used)]


def main(argv: list[str]) -> int:
    """Compile the plan in --jobs processes."""
    parser = argparse.ArgumentParser(
        prog="python -m budget.bench.campaign.precompile", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--assembler", default=NEWEST, help="whose part of the plan")
    parser.add_argument("--nice", action="store_true", help="give way to other processes")
    parser.add_argument("--only", action="append", help="a piece of the plan (may be given again)")
    parser.add_argument("--uncovered", action="store_true", help="print the settings that the plan misses")
    options = parser.parse_args(argv)
    if options.uncovered:
        print(json.dumps(uncovered()))
        return 0
    share_cache()
    if options.nice:
        os.nice(19)
    fork = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(options.jobs, fork) as pool:
        waiting = [pool.submit(compile_piece, piece) for piece in options.only or pieces(options.assembler)]
        for done in concurrent.futures.as_completed(waiting):
            print(json.dumps(done.result()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
