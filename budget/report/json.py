"""JSON: the contract that scripts rely on. Keys may be added, never renamed; units in the keys."""

from __future__ import annotations

from json import dumps
from typing import TYPE_CHECKING, Any

from ..fold.time import by_kind
from ._rows import rows

if TYPE_CHECKING:
    from ..estimate import Estimate

SCHEMA = "budget.estimate/1"


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
    task, book, hardware, memory, times = e.task, e.flops, e.hardware, e.memory, e.times
    model_step = book.forward + book.backward
    peak_rate = e.device.rate(task.dtype)
    per_second = 1 / times.step
    low, high = times.step * e.profile.low, times.step * e.profile.high
    answer: dict[str, Any] = _plain(
        {
            "schema": SCHEMA,
            "model": {"name": e.model.name, "arch": e.model.arch, "config": dict(e.model.config)},
            "workload": {
                **task.workload._asdict(),
                "seq": e.model.tokens // e.model.samples if e.model.counts_tokens else 0,
                "tokens": e.model.tokens,
                "dtype": task.dtype,
                "optimizer": task.optimizer,
                "recompute": task.recompute,
                "attention": task.attention,
                "execution": task.execution,
                "techniques": task.techniques.used,
            },
            "params": e.params._asdict(),
            "flops": {
                "forward": book.forward,
                "backward": book.backward,
                "step": model_step,
                "model_step": model_step,
                "hardware_step": hardware.forward + hardware.backward,
                "pointwise": {
                    "forward": hardware.forward_pointwise,
                    "backward": hardware.backward_pointwise,
                    "optimizer": hardware.optimizer,
                },
                "uncounted": list(e.model.uncounted),
            },
            "memory_bytes": {
                **{k: v for k, v in memory._asdict().items() if k not in ("at", "at_peak", "curve")},
                "peak_at": memory.at,
                "at_peak": dict(memory.at_peak),
                "device": e.device.usable_bytes,
            },
            "time_s": {
                "forward": times.forward,
                "backward": times.backward,
                "optimizer": times.optimizer,
                "communication": 0.0,
                "bubble": 0.0,
                "overhead": times.overhead,
                "step": times.step,
                "low": low,
                "high": high,
                "shares": by_kind(times),
            },
            "rate": {
                "samples_per_s": e.model.samples * per_second,
                "tokens_per_s": e.model.tokens * per_second,
                "tflops_per_device": model_step * per_second / 1e12,
                "mfu": model_step * per_second / peak_rate,
                "hfu": (hardware.forward + hardware.backward) * per_second / peak_rate,
            },
            "cost": e.cost(),
            "device": {"name": e.device.name, "id": e.device.id, "count": 1},
            "fits": e.fits,
            "provenance": {
                "counts": "exact",
                "time": e.profile.provenance,
                "profile": e.profile.name,
                "interval": "90 %",
                "device": e.device.source,
            },
            "ops": rows(e, "operator"),
        }
    )
    return answer


def _plain(value: Any) -> Any:
    """Arrays to lists, whole floats from arrays kept as they are, mappings and tuples walked."""
    if isinstance(value, dict) or hasattr(value, "items"):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "tolist"):
        return value.tolist()
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
