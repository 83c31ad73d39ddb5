"""The performance lint, without a GPU: `python -m budget.kernels.lint`.

Every kernel is compiled ahead of time with its settings, for every architecture that has
settings of its own. Violations: a kernel does not compile or takes more shared memory than there
is; on Hopper, a tensor-core kernel without warp-group instructions (wgmma), wgmma that ptxas
serializes (C7510 to C7519), more registers or spilled bytes than lint_baseline.json records;
settings that no launch compiles. Prints a table; the exit status is 1 where there is a violation.

The baseline is by Triton's version, and by the assembler's where TRITON_PTXAS_PATH names another than
Triton's own. --record writes its entry anew. --markdown prints the table for docs/lint.md.
"""

# ruff: noqa: T201 - a command prints.

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
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import triton
from tabulate import tabulate
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from . import settings
from .launch import forget
from .lint_calls import CALLS, HOPPER_CALLS

BASELINE = Path(__file__).with_name("lint_baseline.json")

# The target, and the most shared memory of one program.
TARGETS = {
    "sm90": (GPUTarget("cuda", 90, 32), 227 * 1024),
    "sm80": (GPUTarget("cuda", 80, 32), 163 * 1024),
    "sm100": (GPUTarget("cuda", 100, 32), 227 * 1024),
    "gfx942": (GPUTarget("hip", "gfx942", 64), 64 * 1024),
    "generic": (GPUTarget("cuda", 86, 32), 99 * 1024),
}

# Calls whose products are for the tensor cores, in 64-row tiles: these need wgmma on Hopper.
WGMMA = re.compile(r"(matmul|attention) (?!.*fp32)")
WITHOUT_PRODUCTS = ("_delta_kernel", "_clear_kernel", "_reduce_kernel")


class Row(NamedTuple):
    """The result for one kernel of a call; without numbers where the target's compiler reports none."""

    architecture: str
    call: str
    kernel: str
    registers: int | None = None
    spilled: int | None = None
    shared: int | None = None
    wgmma: int | None = None
    problem: str = ""


class CompilerDriver:
    """In the place of Triton's driver: names a target, and has no device."""

    def __init__(self, target: GPUTarget) -> None:
        self.get_current_target = lambda: target
        self.get_current_device = lambda: str(target)
        self.get_current_stream = lambda _device: 0


@contextlib.contextmanager
def compiled(architecture: str) -> Iterator[tuple[list[tuple[str, Any]], set[tuple[str, str, str]]]]:
    """Compile what is launched instead of running it: (the kernels, the settings looked up)."""
    kernels: list[tuple[str, Any]] = []
    used: set[tuple[str, str, str]] = set()
    run, find = JITFunction.run, settings.find

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        kernel = run(self, *args, grid=grid, warmup=True, **options)
        kernels.append((self.fn.__name__, kernel))
        return kernel

    def note(kernel: str, device: Any, shape_class: str) -> dict[str, Any]:
        used.add((kernel, architecture, shape_class))
        return find(kernel, device, shape_class)

    forget()
    driver.set_active(CompilerDriver(TARGETS[architecture][0]))
    with (
        mock.patch.object(JITFunction, "run", compile_only),
        mock.patch.object(settings, "find", note),
        mock.patch.object(settings, "processors", return_value=132),
        settings.compiling_for(architecture),
    ):
        yield kernels, used


def resources(code: Any) -> tuple[int, int]:
    """(bytes of a thread's stack, where registers are spilled to; bytes of shared memory) of a kernel."""
    if "cubin" not in code.asm:
        return 0, code.metadata.shared
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code.asm["cubin"])
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603
    return max(map(int, re.findall(r"STACK:(\d+)", output)), default=0), code.metadata.shared


def assemble(ptx: str) -> str:
    """ptxas's report on Hopper code: registers, spills, warnings."""
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as source:
        source.write(ptx)
        source.flush()
        ptxas = triton.knobs.nvidia.ptxas.path
        command = [ptxas, "-v", "--gpu-name=sm_90a", "-o", os.devnull, source.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stderr  # noqa: S603


def toolchain() -> str:
    """The versions on which registers and spills depend: Triton's, and an assembler's that is not its own."""
    own = "TRITON_PTXAS_PATH" not in os.environ
    return triton.__version__ + ("" if own else f", ptxas {triton.knobs.nvidia.ptxas.version}")


def examine(architecture: str, call: str, kernel: str, code: Any) -> Row:
    """The row of one compiled kernel."""
    shared = code.metadata.shared
    problems = []
    if shared > TARGETS[architecture][1]:
        problems.append(f"shared memory above {TARGETS[architecture][1] // 1024} KB")
    if architecture != "sm90":
        return Row(architecture, call, kernel, shared=shared, problem="; ".join(problems))
    listing = assemble(code.asm["ptx"])
    registers = int(re.findall(r"Used (\d+) registers", listing)[0])
    spilled = sum(map(int, re.findall(r"(\d+) bytes spill", listing)))
    wgmma = code.asm["ptx"].count("wgmma.mma_async")
    serialized = sorted(set(re.findall(r"C751\d", listing)))
    if serialized:
        problems.append(f"wgmma serialized: {', '.join(serialized)}")
    if not wgmma and WGMMA.match(call) and kernel not in WITHOUT_PRODUCTS:
        problems.append("no wgmma")
    return Row(architecture, call, kernel, registers, spilled, shared, wgmma, "; ".join(problems))


def lint_call(architecture: str, call: str) -> tuple[list[Row], set[tuple[str, str, str]]]:
    """Compile one call for one architecture."""
    with compiled(architecture) as (kernels, used):
        try:
            (CALLS | HOPPER_CALLS)[call]()()
        except Exception as error:  # noqa: BLE001 - whatever the compiler raises is the finding
            reason = str(error.__cause__ or error).strip().splitlines()[-1]
            return [Row(architecture, call, "", problem=f"does not compile: {reason}")], used
    return [examine(architecture, call, *kernel) for kernel in kernels], used


def recording(rows: list[Row]) -> dict[str, list[int]]:
    """A baseline of registers and spilled bytes; the larger ones where a call launches a kernel twice."""
    found: dict[str, list[int]] = {}
    for row in rows:
        if row.registers is not None and row.spilled is not None:
            most = found.setdefault(f"{row.call}: {row.kernel}", [0, 0])
            most[:] = max(most[0], row.registers), max(most[1], row.spilled)
    return found


SLACK = 16  # bytes: one kernel, compiled twice, has spilled 0 and 8


def compared(rows: list[Row], baseline: dict[str, list[int]]) -> list[Row]:
    """rows, with violations where they are worse than the baseline."""
    out = []
    for row in rows:
        problem = row.problem
        if row.registers is not None and row.spilled is not None and baseline:
            recorded = baseline.get(f"{row.call}: {row.kernel}")
            if recorded is None:
                problem = problem or "not in the baseline: --record"
            elif row.registers > recorded[0] or row.spilled > recorded[1] + SLACK:
                problem = problem or f"worse than {recorded[0]} registers, {recorded[1]} bytes spilled"
        out.append(row._replace(problem=problem))
    return out


def unused(used: set[tuple[str, str, str]]) -> list[Row]:
    """Settings that no launch looked up."""
    return [
        Row(architecture, f"{kernel} {shape_class}", "", problem="settings that no call compiles")
        for kernel, tables in settings.load().items()
        for architecture, classes in tables.items()
        for shape_class in classes
        if architecture in TARGETS and (kernel, architecture, shape_class) not in used
    ]


def table(rows: list[Row], style: str) -> str:
    """The rows for people."""
    headers = ["target", "call", "kernel", "registers", "spilled B", "shared KB", "wgmma", "verdict"]
    lines = [
        [
            row.architecture, row.call, row.kernel.strip("_").removesuffix("_kernel"),
            row.registers, row.spilled,
            None if row.shared is None else round(row.shared / 1024, 1), row.wgmma,
            row.problem or "ok",
        ]
        for row in rows
    ]  # fmt: skip
    return tabulate(lines, headers, tablefmt=style)


def main() -> int:
    """Run the lint; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m budget.kernels.lint", description=__doc__.split("\n")[0])
    parser.add_argument("--record", action="store_true", help="write lint_baseline.json anew")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    parser.add_argument("--call", action="append", help="only this call (may be given again)")
    parser.add_argument("--target", choices=TARGETS, help="only this one; unused settings are not looked for")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (default: one a core)")
    options = parser.parse_args()
    if settings.INTERPRETED:
        print("lint: TRITON_INTERPRET is set; nothing can be compiled", file=sys.stderr)
        return 2

    jobs = [(architecture, call) for architecture in TARGETS for call in CALLS]
    jobs += [("sm90", call) for call in HOPPER_CALLS]
    jobs = [job for job in jobs if options.call is None or job[1] in options.call]
    jobs = [job for job in jobs if options.target in (None, job[0])]
    rows: list[Row] = []
    used: set[tuple[str, str, str]] = set()
    fork = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(options.jobs, fork) as pool:
        for done, (found, looked_up) in enumerate(pool.map(lint_call, *zip(*jobs, strict=True)), 1):
            rows += found
            used |= looked_up
            print(f"\r{done} of {len(jobs)} calls", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)

    recorded = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    if options.record:
        recorded[toolchain()] = recording(rows)
        BASELINE.write_text(json.dumps(recorded, indent=1) + "\n")
    rows = compared(rows, recorded.get(toolchain(), {}))
    if options.call is None and options.target is None:
        rows += unused(used)
    print(table(rows, "github" if options.markdown else "simple"))
    violations = sum(bool(row.problem) for row in rows)
    if toolchain() not in recorded:
        print(f"no baseline for Triton {toolchain()}: registers and spills not compared")
    print(f"{len(rows)} kernels, {violations} violations")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
