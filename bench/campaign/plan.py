"""The plan of a campaign, as data: stages with their shares of the time; tasks, the most valuable first."""

from __future__ import annotations

import importlib
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..cases import Case
from .checks import CHECKS

# stage: its share of the time, what it is for
STAGES = {
    "A": (5, "versions, clocks, and the two ceilings"),
    "P": (150, "planted failures, on a processor only: what becomes of a worker"),
    "B": (45, "gate: every kernel against float64, with both assemblers"),
    "C": (40, "headline: this project's kernels against torch's"),
    "D": (110, "calibration: torch alone, which makes the profile of the device"),
    "G": (130, "networks: peak memory and step time, beside what was predicted"),
    "E": (65, "settings: candidates for each kernel"),
    "F": (20, "again: cases whose settings changed, in turns with the settings before"),
    "H": (35, "rest: what torch compiles"),
}
FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # of the suites
CANDIDATES = os.path.join(os.path.dirname(__file__), "candidates.toml")
FORKS = "forks"  # a worker that never touches the GPU: its children do
NEWEST, BUNDLED = "newest", "bundled"  # assemblers: the one that was brought along, and Triton's own
SILENT_S = 25.0  # after which a worker hangs
COMPILING_S = 75.0  # where torch.compile starts its processes
LAG = 20  # checks
PRODUCTS = ("attention", "matmul", "linear_cross_entropy")  # kernels with wgmma
READY_S = 130.0  # until networks that torch.compile compiles have made a step


class Task(NamedTuple):
    """One thing to do; its result is one line.

    kernel: two failures of it skip the rest of its tasks. do and what: the worker's function and its
    arguments.
    lane: the kind of worker, "" or FORKS. silent_s: how long the worker may be silent.
    """

    id: str
    stage: str
    kernel: str
    do: str
    what: Mapping[str, Any]
    assembler: str = NEWEST
    lane: str = ""
    silent_s: float = SILENT_S


CEILINGS = ("versions", "copy", "product")
# suite, cases: today's settings against everything of torch's but what it compiles
HEADLINE = (
    ("matmul", "plain-8192x8192x8192 plain-4096x4096x14336 gelu-8192x14336x4096 gated-4096x4096x4096"),
    (
        "attention",
        "4x16x4096x4096x128-forward-causal 4x16x4096x4096x128-forward 4x16x4096x4096x128-train-causal",
    ),
    ("softmax", "4096x8192 4096x32768 1024x131072 4096x8192-train"),
    ("attention", "4x32x1x32768x128x8-forward 4x32x4096x4096x128x8-forward-causal 4x16x4096x4096x128-train"),
    (
        "attention",
        "4x32x4096x4096x64-forward-causal 4x32x4096x4096x64-forward 4x32x4096x4096x64-train-causal",
    ),
    (
        "matmul",
        "plain-2048x4096x4096 plain-128x1024x1024 plain-512x4096x4096 plain-128x4096x4096 plain-16x4096x4096",
    ),
    ("matmul", "plain-1024x1024x8192 train-8192x4096x4096 gelu-2048x4096x4096 plain-8192x14336x4096"),
    ("matmul", "gelu-4096x5120x1280 gated-8192x14336x4096 fp8-8192x8192x8192 fp8-4096x4096x4096"),
    ("cross_entropy", "8192x128256-train 8192x50257-train"),
    (
        "attention",
        "32x32x1x4096x128x8-forward 1x32x1x65536x128x8-forward packed-8x16x2048x2048x128-train-causal",
    ),
    (
        "attention",
        "1x16x16384x16384x128-forward-causal 2x16x4096x4096x256-train-causal 16x16x512x512x64-forward",
    ),
    ("softmax", "4096x1024 512x262144"),
    ("rms_norm", "8192x4096-forward 8192x4096-train 262144x128-forward 4096x16384-train"),
    ("linear_cross_entropy", "8192x2048x128256-train 8192x768x50257-train 8192x4096x128256-forward"),
    ("rope", "4x32x4096x128-forward 4x32x4096x128-train 8x12x1024x64-forward"),
)
AGAIN = """
matmul/plain-8192x8192x8192 matmul/plain-4096x4096x14336 matmul/gelu-8192x14336x4096
matmul/gated-4096x4096x4096 matmul/plain-512x4096x4096 matmul/plain-16x4096x4096 matmul/train-8192x4096x4096
matmul/plain-128x4096x4096 matmul/plain-1024x1024x8192 rms_norm/8192x4096-train rope/4x32x4096x128-forward
attention/4x16x4096x4096x128-forward-causal attention/4x16x4096x4096x128-forward
attention/4x16x4096x4096x128-train-causal attention/4x32x4096x4096x64-forward-causal
attention/4x32x4096x4096x64-train-causal attention/4x32x1x32768x128x8-forward
attention/4x32x4096x4096x128x8-forward-causal softmax/4096x8192 softmax/1024x131072
cross_entropy/8192x128256-train
"""
COMPILED = """
attention/4x16x4096x4096x128-forward-causal attention/4x32x4096x4096x64-train-causal softmax/4096x8192
matmul/gelu-2048x4096x4096 cross_entropy/8192x128256-train matmul/gated-4096x4096x4096 softmax/4096x32768
softmax/4096x8192-train matmul/train-8192x4096x4096 memory_bandwidth/gelu-65536x1024
memory_bandwidth/layer_norm-65536x1024 memory_bandwidth/gelu_new-65536x1024
attention/2x16x4096x4096x256-train-causal
"""
HEADLINE_ON_CPU = (
    ("softmax", "8x16 64x64"),
    ("matmul", "plain-16x64x64"),
    ("attention", "8x4x32x32x16-train"),
)


def candidates() -> list[dict[str, Any]]:
    """The settings to try: a case, a kernel, its class, and the changes to the settings in force."""
    with open(CANDIDATES, "rb") as file:
        return tomllib.load(file)["try"]


def suites() -> dict[str, Any]:
    """The modules bench_*.py that have cases, by the suite's name."""
    names = sorted(n[6:-3] for n in os.listdir(FOLDER) if n.startswith("bench_"))
    found = {n: importlib.import_module(f"budget.bench.bench_{n}") for n in names if n != "estimate"}
    return {n: m for n, m in found.items() if hasattr(m, "cases")}


def find_case(suite: str, name: str, on: str) -> Case:
    """The case of this name that is made for the device. Raises KeyError."""
    fits = {c.name: c for c in suites()[suite].cases() if (c.dtype == "float32") == (on == "cpu")}
    return fits[name]


def tasks(on: str) -> list[Task]:
    """All tasks for a device, "cuda" or "cpu", in the order in which they are worth doing."""
    return [
        *_environment(), *_gate(on), *_headline(on), *_calibration(on),
        *_networks(on), *_settings(on), *_again(on), *_rest(on), *_planted(on),
    ]  # fmt: skip


def _environment() -> Iterator[Task]:
    for name in CEILINGS:
        yield Task(f"A/{name}", "A", "torch", "environment", {"name": name})


def _gate(on: str) -> Iterator[Task]:
    """The gate's checks; with Triton's own assembler only products, which it is reported to get wrong, LAG
    checks later.
    """
    order = [(i, NEWEST, name) for i, name in enumerate(CHECKS)]
    if on == "cuda":
        order += [
            (i + LAG, BUNDLED, n) for i, n in enumerate(CHECKS) if CHECKS[n].kernel.startswith(PRODUCTS)
        ]
    for _, assembler, name in sorted(order, key=lambda check: check[0]):
        entry = CHECKS[name]
        if on == "cuda" or entry.tiny is not None:
            silent = COMPILING_S if "compiled" in name or "llama" in name else SILENT_S
            task = f"B/{assembler}/{name}"
            yield Task(task, "B", entry.kernel, "check", {"name": name}, assembler, "", silent)


def _headline(on: str) -> Iterator[Task]:
    known = suites()
    for suite, names in HEADLINE if on == "cuda" else HEADLINE_ON_CPU:
        for name in names.split():
            if suite in known:
                what = {"suite": suite, "case": name, "without": ["compile", "flex", "math"]}
                yield Task(f"C/{suite}/{name}", "C", suite, "measure", what)


def _calibration(on: str) -> Iterator[Task]:
    """Calibration's cases, networks last: operators give more records a second."""
    if on == "cpu":
        return
    for suite, module in sorted(suites().items(), key=lambda item: item[0] == "models"):
        for c in module.cases():
            if c.dtype != "float32" and not (suite == "models" and c.name in NETWORKS):
                what = {"suite": suite, "case": c.name, "only": ["torch"], "verified": False}
                yield Task(f"D/{suite}/{c}", "D", f"torch {suite}", "measure", what)


NETWORKS = ("gpt2-train", "llama-500m-train", "resnet50-train", "vit-base-train")
OURS_IN_NETWORKS = ("gpt2-train", "llama-500m-train")


def _networks(on: str) -> Iterator[Task]:
    """Eager networks one by one, as NVML reports the whole device's memory; those that compile first,
    together.
    """
    if on == "cpu":
        specs = (("mlp-8-8-8-train", "torch"), ("gpt2-tiny-train", "torch"))
        what = {"specs": [{"case": case, "implementation": how} for case, how in specs]}
        yield Task("G/two", "G", "network", "network", what, NEWEST, FORKS)
        return
    for name in NETWORKS:
        yield _network([name], "torch")
    yield _network(OURS_IN_NETWORKS, "triton")
    yield _network(NETWORKS, "compile")


def _network(names: Sequence[str], implementation: str) -> Task:
    specs = [{"case": name, "implementation": implementation} for name in names]
    task = f"G/{implementation}/{' '.join(names)}"
    return Task(task, "G", f"network {implementation}", "network", {"specs": specs}, NEWEST, FORKS, READY_S)


def _settings(on: str) -> Iterator[Task]:
    for entry in candidates() if on == "cuda" else ():
        what = {"case": entry["case"], "kernel": entry["kernel"], "shape_class": entry["class"]}
        yield Task(f"E/{' '.join(what.values())}", "E", entry["kernel"], "search", what)


def _again(on: str) -> Iterator[Task]:
    if on == "cuda":
        for name in AGAIN.split():
            yield Task(f"F/{name}", "F", name.partition("/")[0], "again", {"case": name})


def _planted(on: str) -> Iterator[Task]:
    """A kernel that fails twice, one that fails once, one that is fine."""
    if on == "cpu":
        for kernel, how in (("a", "hang"), ("a", "crash"), ("a", "fine"), ("b", "cuda_error"), ("c", "fine")):
            yield Task(f"P/{kernel}/{how}", "P", f"planted {kernel}", "planted", {"how": how}, silent_s=3.0)


def _rest(on: str) -> Iterator[Task]:
    if on == "cuda":
        for name in COMPILED.split():
            suite, _, case = name.partition("/")
            what = {"suite": suite, "case": case, "only": ["torch", "triton", "compile", "flex"]}
            yield Task(f"H/{name}", "H", suite, "measure", what, NEWEST, "", COMPILING_S)
