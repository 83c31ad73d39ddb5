"""An estimate as the JSON object that scripts rely on: plain numbers, units in the keys.

Keys may be added but are never renamed.
"""

from __future__ import annotations

from ..answer import Estimate
from ..answer.held import provenance
from ..fold.count import modelled
from ..named import Any

SCHEMA = "budget.estimate/1"
PLAIN = {int, float, str, bool, type(None)}


def as_object(e: Estimate) -> dict[str, Any]:
    """The object; arrays of sizes give lists."""
    answer: dict[str, Any] = plain(
        {
            "schema": SCHEMA,
            "model": {
                "name": e.model.name,
                "arch": e.model.arch,
                "config": dict(e.model.config),
            },
            "workload": _workload(e),
            "params": e.params._asdict(),
            "flops": _flops(e),
            "memory_bytes": _memory(e),
            "time_s": e.seconds(),
            "rate": {**e.throughput._asdict(), "mbu": e.mbu},
            "cost": e.cost(),
            **({"job": e.job.to_dict()} if e.job else {}),
            "device": {"name": e.device.name, "id": e.device.id, "count": e.devices, **_mode(e)},
            "fits": e.fits,
            "provenance": {
                "counts": "captured" if e.model.config.get("captured") else "exact",
                "modelled": modelled(e.program),
                "time": e.profile.provenance,
                "memory": provenance(e.stack, e.task.workload.mode),
                "profile": e.profile.name,
                "stack": list(e.stack.source),
                "interval": "90 %",
                "device": e.device.source,
                "dtype": e.device.lacks(e.task.dtype) or "the device's own",
                **({"published": e.task.published} if e.task.published else {}),
            },
            "ops": e.rows(),
            **_spread(e),
        }
    )
    return answer


def _mode(e: Estimate) -> dict[str, str]:
    """What is assumed of the board's power mode, where it has several."""
    return {"mode": e.device.modes} if e.device.modes else {}


def _spread(e: Estimate) -> dict[str, Any]:
    """The layout, and the communication between the devices."""
    if e.spread is None or e.cluster is None:
        return {} if e.task.layout is None else {"layout": vars(e.task.layout), "communication": []}
    layout = {**vars(e.spread.layout), "micro_batches": e.spread.micro}
    return {
        "layout": layout,
        "cluster": {"id": e.cluster.id, "provenance": e.cluster.provenance},
        **({"searched": e.searched} if e.searched else {}),
        "communication": e.spread.communication_rows(e.ran),
    }


def _workload(e: Estimate) -> dict[str, Any]:
    task = e.task
    return {
        **task.workload._asdict(),
        "seq": e.seq,
        "tokens": e.model.tokens,
        "dtype": task.dtype,
        "precision": task.precision,
        "optimizer": task.optimizer,
        "recompute": task.recompute,
        "attention": task.attention,
        "execution": task.execution,
        "stack": e.stack.name,
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
    return {
        **sizes,
        "allocated": m.peak,
        **e.sizes(),
        "peak_at": m.at,
        "at_peak": dict(m.at_peak),
        "device": e.device.usable_bytes,
    }


def plain(value: Any) -> Any:
    """A value of nested mappings, sequences and arrays as JSON has it: arrays become lists."""
    if type(value) in PLAIN:
        return value
    if hasattr(value, "items"):
        return {str(k): v if type(v) in PLAIN else plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)
