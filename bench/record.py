"""From a case to a record: build, verify, measure, verify again, refuse what cannot be, describe."""

from __future__ import annotations

import hashlib
import math
import os
import statistics
import subprocess
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from budget import record as records
from budget.device import Device
from budget.errors import InputError
from budget.profile import profile_for

from .cases import Case
from .measure import Samples, measure

ROUNDS = {"quick": (3, 40), "full": (10, 200)}
BUDGET_S = {"quick": 0.15, "full": 1.0}  # for each group of implementations, when rounds are short
FOLDER = os.path.dirname(__file__)


class Built(NamedTuple):
    """Implementations of a case, and what they are checked against.

    reference: the exact result, in float64, and the implementation whose error the others may have
    twice; None where a network is measured, whose loss must be finite and the same again.
    """

    functions: Mapping[str, Callable[[], Any]]
    reference: Callable[[], torch.Tensor] | None = None
    yardstick: str = "torch"


def take(
    case: Case, build: Callable[[Case, torch.device], Built], device: Device, where: torch.device, mode: str
):
    """The group of records of a case: {implementation: {"seconds": [...], "extra_info": {...}}}."""
    torch.manual_seed(0)
    built = build(case, where)
    before = _errors(case, built)
    sensors = _sensors(where)
    taken = measure(built.functions, where, budget_s=BUDGET_S[mode], rounds=ROUNDS[mode])
    sensors |= {f"{k}_after": v for k, v in _sensors(where).items()}
    after = _errors(case, built)
    facts = _facts(case, device)
    group = {}
    for name, samples in taken.items():
        best = typical(samples, where)
        _refuse(case, name, facts, best, device)
        group[name] = {
            "seconds": samples.seconds,
            "extra_info": {
                **facts, **_rates(facts, best, device), **_method(samples, where),
                "implementation": name, "error": before[name], "error_after": after[name], **sensors,
            },
        }  # fmt: skip
    for name, entry in group.items():
        own = typical(taken[name], where)
        entry["extra_info"]["ratio_to"] = {n: typical(s, where) / own for n, s in taken.items() if n != name}
    return group


def typical(samples: Samples, where: torch.device) -> float:
    """The least of a processor's rounds, which others disturb; the median of a GPU's."""
    return min(samples.seconds) if where.type == "cpu" else statistics.median(samples.seconds)


def _errors(case: Case, built: Built) -> dict[str, Any]:
    """Largest error of each implementation; raises AssertionError for a wrong result."""
    if built.reference is None:
        values = {name: float(function()) for name, function in built.functions.items()}
        assert all(map(math.isfinite, values.values())), f"{case.name}: the loss is not finite: {values}"
        return dict.fromkeys(values)
    exact = built.reference()
    found = {n: (f().double() - exact).abs().max().item() for n, f in built.functions.items()}
    unit = torch.finfo(getattr(torch, case.dtype)).eps * exact.abs().max().item()
    bound = 2 * found.get(built.yardstick, 0.0) + unit
    for name, error in found.items():
        assert error <= bound, f"{case.name}, {name}: error {error:.3g}, allowed {bound:.3g}"
    return found


def _facts(case: Case, device: Device) -> dict[str, Any]:
    """What does not depend on the implementation: sizes, FLOPs, bytes, the predicted time."""
    workload = {**case.workload, "dtype": case.dtype}
    work = records.work(workload)
    facts = {
        "schema": records.SCHEMA,
        "device": records.device_key(device), "suite": case.suite, "case": case.name,
        "split": case.split, "sizes": dict(case.sizes), "dtype": case.dtype, "workload": workload,
        "flops": work.flops, "flops_convention": "1 multiply-add = 2 FLOPs, attention in full",
        "bytes": work.bytes, "bound_flops": work.flops / (2 if case.sizes.get("causal") else 1),
    }  # fmt: skip
    try:
        facts["predicted_s"] = records.predict(workload, device, profile_for(device, case.dtype))
    except InputError as error:
        facts["predicted_s"], facts["not_predicted"] = None, str(error)
    return facts


def _rates(facts: Mapping[str, Any], seconds: float, device: Device) -> dict[str, Any]:
    flops, moved = facts["flops"] / seconds, facts["bytes"] / seconds
    predicted = facts["predicted_s"]
    measured = device.measured.get({"bfloat16": "bf16", "float8": "fp8"}.get(facts["dtype"], facts["dtype"]))
    return {
        "tflops": flops / 1e12,
        "gb_s": moved / 1e9,
        "share_of_peak": flops / device.rate(facts["dtype"]),
        "share_of_measured_peak": flops / measured if measured else None,
        "share_of_bandwidth": moved / device.bandwidth,
        "predicted_error": predicted / seconds - 1 if predicted else None,
    }


def _method(samples: Samples, where: torch.device) -> dict[str, Any]:
    quartiles = statistics.quantiles(samples.seconds, n=4)
    return {
        "method": samples.method,
        "cache": samples.cache,
        "n": len(samples.seconds),
        "inner": samples.inner,
        "statistic": "min" if where.type == "cpu" else "median",
        "interquartile_range_s": quartiles[2] - quartiles[0],
        "waited": samples.waited,
    }


def _refuse(case: Case, name: str, facts: Mapping[str, Any], seconds: float, device: Device) -> None:
    """A result above the roofline is a mistake in the measurement, never a record."""
    most = facts["bound_flops"] / (device.rate(case.dtype) * device.uncertainty)
    if device.id != "cpu":  # a processor's caches are faster than its memory
        most = max(most, facts["sizes"].get("least_bytes", 0) / (device.bandwidth * device.uncertainty))
    assert seconds >= most, f"{case.name}, {name}: {seconds:.3g} s is above the roofline, {most:.3g} s"


def _sensors(where: torch.device) -> dict[str, Any]:
    """Clocks, power, temperature and throttling of a GPU, as its driver tells; load of a processor."""
    if where.type == "cpu":
        return {"load": os.getloadavg()[0]} if hasattr(os, "getloadavg") else {}
    fields = ("clocks.sm", "clocks.mem", "power.draw", "temperature.gpu", "clocks_throttle_reasons.active")
    ask = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits", "--id=0"]
    try:
        told = subprocess.run(ask, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(fields, (x.strip() for x in told.stdout.split(",")), strict=False))


def versions() -> dict[str, str]:
    """Of everything that settings and times depend on."""
    import platform

    found = {"python": platform.python_version(), "torch": torch.__version__}
    try:
        import triton

        found["triton"] = triton.__version__
    except ImportError:
        pass
    try:
        import transformers

        found["transformers"] = transformers.__version__
    except ImportError:
        pass
    if torch.cuda.is_available():
        found |= {"cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version())}
        found["driver"] = str(_driver())
    return found


def _driver() -> str:
    ask = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    try:
        return subprocess.run(ask, capture_output=True, text=True, check=True, timeout=10).stdout.strip()  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def source_hash() -> str:
    """Of all files of the kernels and the benchmarks: other code, other measurements."""
    from budget import kernels

    digest = hashlib.sha256()
    for folder in (*kernels.__path__, FOLDER):
        for name in sorted(os.listdir(folder)):
            if name.endswith((".py", ".toml")):
                with open(os.path.join(folder, name), "rb") as file:
                    digest.update(file.read())
    return digest.hexdigest()[:16]
