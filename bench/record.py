"""From a case to a record: build, verify, measure, verify again, refuse impossible results, describe."""

from __future__ import annotations

import hashlib
import math
import os
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import torch

from budget import device as devices
from budget.device import Device
from budget.device import profile as profiles
from budget.device.profile import profile_for
from budget.errors import InputError
from budget.measured import record as records
from budget.measured import workload as workloads

from . import sensors
from .cases import Case
from .measure import Samples, measure, sets_of_inputs

ROUNDS = {"quick": (3, 20), "full": (10, 200), "campaign": (5, 100)}
BUDGET_S = {
    "quick": 0.1,
    "full": 0.5,
    "campaign": 0.15,
}  # for each group of implementations, when rounds are short
ROWS = 2**16  # compared at once
FOLDER = os.path.dirname(__file__)


class Built(NamedTuple):
    """Implementations of a case, functions from its inputs to a tensor or several, and the exact result.

    reference: the exact result for the same inputs, in float64; the others may have twice the error of the
    implementation `yardstick`. None for a network, whose loss must be finite.
    inputs: makes a set of inputs; so many are made that a GPU finds none in its L2. Without it the functions
    take no arguments.
    """

    functions: Mapping[str, Callable[..., Any]]
    reference: Callable[..., torch.Tensor | Sequence[torch.Tensor]] | None = None
    yardstick: str = "torch"
    inputs: Callable[[], tuple[Any, ...]] | None = None

    def calls(self, sets: int) -> dict[str, list[Callable[[], Any]]]:
        """By implementation, a call for each set of inputs."""
        made = [self.inputs() for _ in range(sets)] if self.inputs else [()]
        return {name: [partial(f, *x) for x in made] for name, f in self.functions.items()}


def take(
    case: Case,
    build: Callable[[Case, torch.device], Built],
    device: Device,
    where: torch.device,
    mode: str,
    only: Collection[str] | None = None,
    *,
    verified: bool = True,
):
    """The group of records of a case: {implementation: {"seconds": [...], "extra_info": {...}}}.

    only: the implementations to measure (default: all of the case's). verified: whether to compare with
    float64; where torch is measured alone there is nothing to verify.
    """
    torch.manual_seed(0)
    built = build(case, where)
    if only is not None:
        built = built._replace(functions={n: f for n, f in built.functions.items() if n in only})
    known = facts(case, device)
    calls = built.calls(sets_of_inputs(known["bytes"], where) if built.inputs else 1)
    before = _errors(case, built, calls) if verified else dict.fromkeys(calls)
    peaks = {name: _peak(call, where) for name, (call, *_) in calls.items()}
    seen = sensed(where)
    taken = measure(
        calls, where, budget_s=BUDGET_S[mode], rounds=ROUNDS[mode], network=built.reference is None
    )
    seen |= {f"{k}_after": v for k, v in sensed(where).items()}
    after = _errors(case, built, calls) if verified else before
    group = {}
    for name, samples in taken.items():
        best = typical(samples, where)
        _refuse(case, name, known, best, device)
        group[name] = {
            "seconds": samples.seconds,
            "extra_info": {
                **known, **rates(known, best, device), **method(samples, where), **peaks[name],
                "implementation": name, "error": before[name], "error_after": after[name], **seen,
            },
        }  # fmt: skip
    for name, entry in group.items():
        own = typical(taken[name], where)
        entry["extra_info"]["ratio_to"] = {n: typical(s, where) / own for n, s in taken.items() if n != name}
    return group


def _peak(call: Callable[[], Any], where: torch.device) -> dict[str, int]:
    """Bytes that a call holds at its peak, beyond those before it; nothing for a processor."""
    if where.type != "cuda":
        return {}
    call()  # workspaces that stay
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return {
        "peak_bytes": torch.cuda.max_memory_allocated() - before,
        "allocated_bytes": before,
        "reserved_bytes": torch.cuda.memory_reserved(),
    }


def typical(samples: Samples, where: torch.device) -> float:
    """The least of a processor's rounds, which others disturb; the median of a GPU's."""
    return min(samples.seconds) if where.type == "cpu" else statistics.median(samples.seconds)


def _errors(case: Case, built: Built, calls: Mapping[str, Sequence[partial]]) -> dict[str, Any]:
    """Largest error of each implementation; raises AssertionError for a wrong result."""
    if built.reference is None:
        values = {name: float(call()) for name, (call, *_) in calls.items()}
        assert all(map(math.isfinite, values.values())), f"{case.name}: the loss is not finite: {values}"
        return dict.fromkeys(values)
    exact = parts(built.reference(*next(iter(calls.values()))[0].args))
    outputs = {n: parts(call()) for n, (call, *_) in calls.items()}
    found = {n: [_largest(*pair) for pair in zip(out, exact, strict=True)] for n, out in outputs.items()}
    own = found.get(built.yardstick, [0.0] * len(exact))
    for name, errors in found.items():
        for error, yardstick, out, right in zip(errors, own, outputs[name], exact, strict=True):
            bound = 2 * yardstick + torch.finfo(out.dtype).eps * right.abs().max().item()
            assert error <= bound, f"{case.name}, {name}: error {error:.3g}, allowed {bound:.3g}"
    return {name: max(errors) for name, errors in found.items()}


def parts(result: Any) -> Sequence[torch.Tensor]:
    """A result as a sequence: of one tensor, or several."""
    return (result,) if isinstance(result, torch.Tensor) else result


def _largest(out: torch.Tensor, exact: torch.Tensor) -> float:
    """The largest difference, by rows: a float64 copy of a large result is larger than the result."""
    rows = zip(*(_rows(t.detach()).split(ROWS) for t in (out, exact)), strict=True)
    return max(((a.double() - b).abs().max().item() for a, b in rows), default=0.0)


def _rows(t: torch.Tensor) -> torch.Tensor:
    return t.reshape(-1, t.shape[-1]) if t.ndim > 1 else t.reshape(1, -1)


def facts(case: Case, device: Device) -> dict[str, Any]:
    """The facts of a case that all implementations share: sizes, FLOPs, bytes, the predicted time."""
    workload = {**case.workload, "dtype": case.dtype}
    work = workloads.work(workload)
    known = {
        "schema": records.SCHEMA,
        "device": profiles.key(device), "suite": case.suite, "case": case.name,
        "split": case.split, "sizes": dict(case.sizes), "dtype": case.dtype, "workload": workload,
        "flops": work.flops, "flops_convention": "1 multiply-add = 2 FLOPs, attention in full",
        "bytes": work.bytes, "bound_flops": work.flops / (2 if case.sizes.get("causal") else 1),
    }  # fmt: skip
    try:
        known["predicted_s"] = workloads.predict(workload, device, profile_for(device, case.dtype))
    except InputError as error:
        known["predicted_s"], known["not_predicted"] = None, str(error)
    return known


def rates(facts: Mapping[str, Any], seconds: float, device: Device) -> dict[str, Any]:
    """FLOP/s and B/s, their shares of the device's peaks, and the prediction's error."""
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


def method(samples: Samples, where: torch.device) -> dict[str, Any]:
    """How the seconds were taken."""
    quartiles = statistics.quantiles(samples.seconds, n=4)
    return {
        "method": samples.method,
        "cache": samples.cache,
        "n": len(samples.seconds),
        "inner": samples.inner,
        "statistic": "min" if where.type == "cpu" else "median",
        "interquartile_range_s": quartiles[2] - quartiles[0],
        "waited": samples.waited,
        "host_s": samples.host_s,
    }


def _refuse(case: Case, name: str, facts: Mapping[str, Any], seconds: float, device: Device) -> None:
    """A result above the roofline is a mistake in the measurement, never a record."""
    most = facts["bound_flops"] / (device.rate(case.dtype) * device.uncertainty)
    if device.id != "cpu":  # a processor's caches are faster than its memory
        most = max(most, facts["sizes"].get("least_bytes", 0) / (device.bandwidth * device.uncertainty))
    assert seconds >= most, f"{case.name}, {name}: {seconds:.3g} s is above the roofline, {most:.3g} s"


def sensed(where: torch.device) -> dict[str, Any]:
    """Clocks, power, temperature and throttling of a GPU, from its driver; the load of a processor."""
    if where.type == "cpu":
        return {"load": os.getloadavg()[0]} if hasattr(os, "getloadavg") else {}
    return sensors.read()


@cache
def this_device(where: torch.device) -> Device:
    """The measured device's entry in the data. Raises InputError where there is none."""
    return devices.load("auto" if where.type == "cuda" else "cpu")


def versions() -> dict[str, str]:
    """The versions of everything on which settings and times depend."""
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
        found |= sensors.driver()
    return found


def source_hash() -> str:
    """A hash of the kernels' and suites' files: other code, other measurements. Files of bench/campaign/ do
    not count: what it selects, and what it makes of the results, changes no measurement.
    """
    from budget import kernels

    digest = hashlib.sha256()
    for folder in (*kernels.__path__, FOLDER):
        for name in sorted(os.listdir(folder)):
            if name.endswith((".py", ".toml")):
                with open(os.path.join(folder, name), "rb") as file:
                    digest.update(file.read())
    return digest.hexdigest()[:16]
