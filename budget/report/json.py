"""JSON: the contract that scripts rely on. Keys may be added, never renamed; units in the keys."""

from __future__ import annotations

from json import dumps

from ..fold.time import by_kind
from ..named import TYPE_CHECKING, Any
from ..size import is_zero, minimum
from ._rows import rows

if TYPE_CHECKING:
    from ..estimate import Estimate

SCHEMA = "budget.estimate/1"
PLAIN = {int, float, str, bool, type(None)}


def render(estimate: Estimate, by: str = "") -> str:
    """The whole estimate as one JSON object."""
    answer = to_dict(estimate)
    if by:
        answer["by"] = {by: _plain(rows(estimate, by))}
    # One line a key: people find their way, and the encoder that is written in C does the work.
    lines = ",\n".join(f"{dumps(key)}: {dumps(value)}" for key, value in answer.items())
    return f"{{\n{lines}\n}}"


def to_dict(e: Estimate) -> dict[str, Any]:
    """Plain numbers (lists for arrays), in the contract's order."""
    answer: dict[str, Any] = _plain(
        {
            "schema": SCHEMA,
            "model": {"name": e.model.name, "arch": e.model.arch, "config": dict(e.model.config)},
            "workload": _workload(e),
            "params": e.params._asdict(),
            "flops": _flops(e),
            "memory_bytes": _memory(e),
            "time_s": seconds(e),
            "rate": rate(e),
            "cost": e.cost(),
            "device": {"name": e.device.name, "id": e.device.id, "count": 1},
            "fits": e.fits,
            "provenance": {
                "counts": "captured" if e.model.config.get("captured") else "exact",
                "time": e.profile.provenance,
                "profile": e.profile.name,
                "interval": "90 %",
                "device": e.device.source,
            },
            "ops": rows(e, "operator"),
        }
    )
    return answer


def _workload(e: Estimate) -> dict[str, Any]:
    task, asked = e.task, e.task.workload.seq
    usual = e.model.tokens // e.model.samples if e.model.counts_tokens else 0
    return {
        **task.workload._asdict(),
        "seq": usual if is_zero(asked) else asked,
        "tokens": e.model.tokens,
        "dtype": task.dtype,
        "optimizer": task.optimizer,
        "recompute": task.recompute,
        "attention": task.attention,
        "execution": task.execution,
        "techniques": task.techniques.used,
    }


def _flops(e: Estimate) -> dict[str, Any]:
    book, hardware = e.flops, e.hardware
    step = book.forward + book.backward
    return {
        "forward": book.forward,
        "backward": book.backward,
        "step": step,
        "model_step": step,
        "hardware_step": hardware.forward + hardware.backward,
        "pointwise": {
            "forward": hardware.forward_pointwise,
            "backward": hardware.backward_pointwise,
            "optimizer": hardware.optimizer,
        },
        "uncounted": list(e.model.uncounted),
    }


def _memory(e: Estimate) -> dict[str, Any]:
    m = e.memory
    sizes = {k: v for k, v in m._asdict().items() if k not in ("at", "at_peak")}
    return {**sizes, "peak_at": m.at, "at_peak": dict(m.at_peak), "device": e.device.usable_bytes}


def seconds(e: Estimate) -> dict[str, Any]:
    """Seconds by phase, the interval and the shares of each class of kernels."""
    t = e.times
    return {
        "forward": t.forward,
        "backward": t.backward,
        "optimizer": t.optimizer,
        "communication": 0.0,
        "bubble": 0.0,
        "overhead": t.overhead,
        "step": t.step,
        "low": t.step * e.profile.low,
        "high": t.step * e.profile.high,
        "shares": by_kind(t),
    }


def rate(e: Estimate) -> dict[str, Any]:
    """What a second brings, and the shares of the device's peak."""
    per_second = 1 / e.times.step
    peak = e.device.rate(e.task.dtype)
    hardware_step = e.hardware.forward + e.hardware.backward
    # Where less runs than the model has (sparse products, absorbed ones), no more than that is used.
    model_step = minimum(e.flops.forward + e.flops.backward, hardware_step)
    return {
        "samples_per_s": e.model.samples * per_second,
        "tokens_per_s": e.model.tokens * per_second,
        "tflops_per_device": model_step * per_second / 1e12,
        "mfu": model_step * per_second / peak,
        "hfu": hardware_step * per_second / peak,
    }


def _plain(value: Any) -> Any:
    """Arrays to lists, whole floats from arrays kept as they are, mappings and tuples walked."""
    if type(value) in PLAIN:
        return value
    if hasattr(value, "items"):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)
