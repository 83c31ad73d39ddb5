"""Measure settings on this machine's GPU and write the best ones: `python -m budget.kernels.tune [CALL ...]`.

Tries the values in SPACE around the settings in force, on the launches of lint_calls.py with random
data. What spills or does not fit is found by compiling, on all cores, before anything runs; a candidate
counts only if its output is right, beside float64 (exact.py). Triton's do_bench flushes the L2 cache before
every sample, and the candidates take turns. settings.toml (or --output) then has the measurement and the
machine. Exit status 2 where there is no GPU, 1 where the settings in force give wrong results.
"""

# ruff: noqa: T201 - a command prints.

import argparse
import datetime
import itertools
import re
import shutil
import statistics
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import triton

from . import settings
from .exact import Outputs, exact, is_right
from .launch import forget
from .lint import TARGETS, compiled, resources
from .lint_calls import CALLS
from .sample_launches import Launch, tensors_on
from .settings import Key, Setting, overridden

# The values to try, for kernels that have the setting.
SPACE: dict[str, tuple[Any, ...]] = {
    "BLOCK_M": (32, 64, 128, 256),
    "BLOCK_N": (32, 64, 128, 256),
    "BLOCK_K": (32, 64, 128),
    "COLUMNS": (),  # names the class of rows it serves
    "TILE": (2048, 4096, 8192),
    "STAGES": (1, 2, 3),
    "STEPS": (4, 8, 16),
    "HEADS": (2, 4, 8, 16),
    "PER_PROCESSOR": (1, 2),
    "HALVES": (False, True),
    "FLATTEN": (False, True),
    "SPLIT_STEPS": (8, 16, 32),
    "DESCRIPTORS": (False, True),
    "num_warps": (4, 8, 16),
    "num_stages": (1, 2, 3, 4),
}
ROUNDS = 3
FINALISTS = 5
MOST_SPILLED = 64  # bytes of a thread's stack


def neighbours(setting: Setting) -> Iterator[Setting]:
    """setting itself, then every setting that differs from it in at most two values of SPACE."""
    yield setting
    for count in (1, 2):
        for names in itertools.combinations(setting, count):
            for values in itertools.product(*(SPACE.get(name, ()) for name in names)):
                if all(setting[name] != value for name, value in zip(names, values, strict=True)):
                    yield setting | dict(zip(names, values, strict=True))


def looked_up(launch: Launch) -> dict[Key, Setting]:
    """The entries, by (kernel, shape class), that launch looks up."""
    forget()
    with mock.patch.object(settings, "find", wraps=settings.find) as find:
        launch()
    arguments = [call.args for call in find.call_args_list]
    return {(kernel, name): settings.find(kernel, device, name) for kernel, device, name in arguments}


def seconds(launch: Launch, key: Key, setting: Setting, milliseconds: int) -> float:
    """The median device time of launch with setting in the place of key's, measured for so long."""
    with overridden(key, setting):
        taken = triton.testing.do_bench(launch, milliseconds // 5, milliseconds, return_mode="median")
    return taken / 1000


def fits(architecture: str, call: str, key: Key, setting: Setting) -> bool:
    """Whether a call with setting compiles for architecture, spills next to nothing and fits its memory.

    Needs no GPU; what is compiled is in Triton's cache for the launch that measures it.
    """
    try:
        with overridden(key, setting), compiled(architecture) as (kernels, _):
            CALLS[call]()()
        used = [resources(kernel) for _, kernel in kernels]
    except Exception:  # noqa: BLE001 - whatever the compiler raises: not a candidate
        return False
    limit = TARGETS[architecture][1]
    return all(stack <= MOST_SPILLED and shared <= limit for stack, shared in used)


def pruned(architecture: str, call: str, key: Key, candidates: Sequence[Setting]) -> list[Setting]:
    """The candidates that fit, and the first (the settings in force) in any case; compiled on all cores."""
    first, *others = candidates
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        fitting = pool.map(partial(fits, architecture, call, key), others)
        return [first, *itertools.compress(others, fitting)]


def agrees(launch: Launch, key: Key, setting: Setting, right: Outputs) -> bool:
    """Whether setting runs at all and gives the exact output, as nearly as its format allows."""
    try:
        with overridden(key, setting):
            outputs = launch()
    except Exception:  # noqa: BLE001 - a shape that the launch refuses: not a candidate
        return False
    return all(is_right(*pair) for pair in zip(outputs, right, strict=True))


def best(launch: Launch, key: Key, candidates: Sequence[Setting]) -> tuple[Setting, float, float]:
    """(the fastest candidate, its seconds, the first's): all in turns, then the fastest again and longer.

    Raises ValueError where the first, the settings in force, gives a wrong result.
    """
    forget()
    values = exact(launch)
    right = [setting for setting in candidates if agrees(launch, key, setting, values)]
    del values
    if not right or right[0] != candidates[0]:
        raise ValueError(f"{key[0]} {key[1]}: the settings in force give a wrong result: {candidates[0]}")
    for milliseconds, rounds, kept in ((10, 1, FINALISTS), (50, ROUNDS, 1)):
        samples = [[seconds(launch, key, s, milliseconds) for s in right] for _ in range(rounds)]
        medians = [statistics.median(times) for times in zip(*samples, strict=True)]
        ranked = sorted(range(len(right)), key=medians.__getitem__)[:kept]
        before = medians[0]
        if kept > 1:
            right = [right[i] for i in sorted({0, *ranked})]
    return right[ranked[0]], medians[ranked[0]], before


def provenance(call: str, taken: float) -> str:
    """The measurement, the device and the versions: settings do not carry over to other versions."""
    name = torch.cuda.get_device_name()
    versions = f"torch {torch.__version__}, Triton {triton.__version__}, CUDA {torch.version.cuda}"
    return f"{call}: {taken * 1e6:.1f} us, {name}, {versions}, {datetime.date.today()}"  # noqa: DTZ011


def written(text: str, kernel: str, architecture: str, shape_class: str, setting: Setting) -> str:
    """The text of settings.toml with one entry replaced."""

    def value(item: Any) -> str:
        return (
            str(item).lower()
            if isinstance(item, bool)
            else f'"{item}"'
            if isinstance(item, str)
            else str(item)
        )

    entry = ", ".join(f"{name} = {value(item)}" for name, item in setting.items())
    pattern = rf"(?m)(^\[{kernel}\.{architecture}\]\n(?:(?!\[).*\n)*?{shape_class} *= )\{{[^\n]*\}}"
    text, count = re.subn(pattern, lambda match: f"{match[1]}{{ {entry} }}", text)
    if count != 1:
        raise ValueError(f"settings: found {count} entries [{kernel}.{architecture}] {shape_class}")
    return text


def main() -> int:
    """Tune the calls that were asked for; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m budget.kernels.tune", description=__doc__.split("\n")[0])
    parser.add_argument("call", nargs="*", help=f"one of: {', '.join(CALLS)} (default: all)")
    parser.add_argument("--output", type=Path, default=settings.PATH, help="default: settings.toml in place")
    options = parser.parse_args()
    if unknown := [call for call in options.call if call not in CALLS]:
        print(f"tune: call {unknown[0]!r} is not one of {', '.join(CALLS)}", file=sys.stderr)
        return 2
    if not torch.cuda.is_available():
        print("tune: no GPU here; settings are measured on the GPU that they are for", file=sys.stderr)
        return 2
    architecture = settings.architecture(torch.device("cuda", torch.cuda.current_device()))
    if options.output != settings.PATH:
        shutil.copy(settings.PATH, options.output)
    tuned: set[Key] = set()
    failed = False
    for call in options.call or CALLS:
        with tensors_on("cuda"):
            launch = CALLS[call]()
        for key, current in looked_up(launch).items():
            if key in tuned:
                continue
            tuned.add(key)
            candidates = list(neighbours(current))
            if architecture in TARGETS:
                candidates = pruned(architecture, call, key, candidates)
            try:
                setting, taken, before = best(launch, key, candidates)
            except ValueError as error:
                print(f"tune: {call}: {error}", file=sys.stderr)
                failed = True
                continue
            print(
                f"{call}: {key[0]} {key[1]} {before * 1e6:.1f} -> {taken * 1e6:.1f} us {setting}", flush=True
            )
            entry = setting | {"chosen_by": provenance(call, taken)}
            text = written(options.output.read_text(), key[0], architecture, key[1], entry)
            options.output.write_text(text)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
