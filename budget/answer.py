"""The result of an estimate: what was counted, and what follows from it, computed on demand."""

from __future__ import annotations

from functools import cached_property

from . import arch as architectures
from .config import Task
from .device import Device
from .device.kernel_class import Profile
from .device.reserve import Reserve
from .errors import shown, unknown
from .face import Shown
from .fold.count import Flops, Params, modelled
from .fold.memory import Memory, Walked
from .fold.rows import BY, rows
from .fold.throughput import Throughput, throughput
from .fold.time import Times, bound, by_kind, moved, time
from .ir import Model
from .named import Any, NamedTuple
from .size import is_zero
from .stack import Stack

SCHEMA = "budget.estimate/1"
PLAIN = {int, float, str, bool, type(None)}


class _Estimate(NamedTuple):
    task: Task
    device: Device
    stack: Stack
    reserve: Reserve
    profile: Profile
    model: Model
    program: Model
    params: Params
    flops: Flops  # the model's: attention in full, recomputation not counted
    hardware: Flops  # what the device computes, recomputation included
    walked: Walked


class Estimate(Shown, _Estimate):
    """What a network costs. Counts are exact; `times` is a prediction with an interval.

    Memory and time are computed on first access.
    """

    def __repr__(self) -> str:
        task, device = self.task, self.device.name
        batch = shown(task.workload.batch)
        return f"Estimate({self.model.name}, {task.workload.mode}, batch={batch}, {task.dtype}, {device})"

    def __dir__(self) -> list[str]:
        """What an answer has, without what tuples have and what it was made from."""
        return sorted({*super().__dir__()} - {"count", "index", "walked"})

    @property
    def memory(self) -> Memory:
        """Bytes on one device."""
        return self.walked.memory

    @cached_property
    def times(self) -> Times:
        """Seconds of one step or pass."""
        return time(self.program, self.device, self.profile, self.task.dtype, self.task.execution)

    @property
    def fits(self) -> Any:
        """Whether the process fits the device's memory at the peak (an array of booleans for arrays)."""
        return self.process <= self.device.usable_bytes

    @property
    def process(self) -> Any:
        """Bytes of the device's memory that the process holds at the peak: the tensors and the reserve."""
        return self.reserve.process(self.memory.peak)

    def cost(self) -> dict[str, Any]:
        """Cost at the mean of the device's low and high price, energy at its TDP.

        None if the device's price or TDP is not known. Energy is an upper bound: few programs
        draw the full power all the time.
        """
        hours = self.times.step / 3600
        prices, watts = self.device.usd_per_hour, self.device.tdp_w
        price = sum(prices) / 2 if prices else None
        work = self.model.tokens if self.unit == "tokens" else self.model.samples
        return {
            "usd_per_hour": price,
            "usd_per_step": None if price is None else price * hours,
            "usd_per_million": None if price is None else price * hours / work * 1e6,
            "joules_per_step": None if watts is None else watts * self.times.step,
        }

    @property
    def throughput(self) -> Throughput:
        """Samples, tokens and FLOPs per second, MFU and HFU."""
        peak = self.device.rate(self.task.dtype)
        m = self.model
        return throughput(m.samples, m.tokens, self.flops, self.hardware, self.times.step, peak)

    @property
    def seq(self) -> Any:
        """Tokens, time steps or frames as asked (in decode those in the cache), or the usual ones."""
        asked = self.task.workload.seq
        return self.length if is_zero(asked) else asked

    @property
    def length(self) -> Any:
        """Tokens, time steps or frames of one sample; 0 where samples have none."""
        return self.model.tokens // self.model.samples if self.model.counts_tokens else 0

    @property
    def unit(self) -> str:
        """What the network works through: tokens, images, or samples of another kind."""
        arch, tokens = self.model.arch, self.model.counts_tokens
        if arch in architectures.names() and "image" in architectures.takes_of(architectures.load(arch)):
            return "images"
        return "tokens" if tokens else "samples"

    @property
    def rate(self) -> tuple[Any, str]:
        """How many units of work a second, and the unit."""
        found = self.throughput
        return found.tokens_per_s if self.unit == "tokens" else found.samples_per_s, self.unit

    @property
    def mbu(self) -> Any:
        """Bandwidth utilization: the bytes that kernels move, over what the device could in this time."""
        return moved(self.times) / (self.times.step * self.device.bandwidth)

    def rows(self, by: str = "operator") -> list[dict[str, Any]]:
        """A breakdown by operator, part of a layer, layer, or moment of the memory's curve over time.

        Raises InputError.
        """
        if by == "moment":
            return [{"name": m.op, "phase": m.phase, "bytes": m.total} for m in self.memory.curve]
        if by not in BY:
            raise unknown("by", by, (*BY, "moment"))
        table = rows(self.model, self.program, self.times, by)
        return [{"name": name, **values} for name, values in table.items()]

    def seconds(self) -> dict[str, Any]:
        """The time by phase with its interval, and the fraction that each class of kernel takes."""
        t = self.times
        return {
            "forward": t.forward,
            "backward": t.backward,
            "optimizer": t.optimizer,
            "communication": 0.0,
            "bubble": 0.0,
            "overhead": t.overhead,
            "step": t.step,
            "low": t.step * self.profile.low,
            "high": t.step * self.profile.high,
            "shares": by_kind(t),
            "bound": bound(t),
        }

    def to_dict(self) -> dict[str, Any]:
        """The JSON object, in plain numbers (lists for arrays).

        Keys may be added but are never renamed; they include units.
        """
        answer: dict[str, Any] = plain(
            {
                "schema": SCHEMA,
                "model": {
                    "name": self.model.name,
                    "arch": self.model.arch,
                    "config": dict(self.model.config),
                },
                "workload": _workload(self),
                "params": self.params._asdict(),
                "flops": _flops(self),
                "memory_bytes": _memory(self),
                "time_s": self.seconds(),
                "rate": {**self.throughput._asdict(), "mbu": self.mbu},
                "cost": self.cost(),
                "device": {"name": self.device.name, "id": self.device.id, "count": 1},
                "fits": self.fits,
                "provenance": {
                    "counts": "captured" if self.model.config.get("captured") else "exact",
                    "modelled": modelled(self.program),
                    "time": self.profile.provenance,
                    "profile": self.profile.name,
                    "stack": list(self.stack.source),
                    "interval": "90 %",
                    "device": self.device.source,
                    "dtype": self.device.lacks(self.task.dtype) or "the device's own",
                },
                "ops": self.rows(),
            }
        )
        return answer


def _workload(e: Estimate) -> dict[str, Any]:
    task = e.task
    return {
        **task.workload._asdict(),
        "seq": e.seq,
        "tokens": e.model.tokens,
        "dtype": task.dtype,
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
        "reserved": e.reserve.reserved(m.peak),
        "process": e.process,
        "peak_at": m.at,
        "at_peak": dict(m.at_peak),
        "device": e.device.usable_bytes,
    }


def plain(value: Any) -> Any:
    """A value of nested mappings, sequences and arrays as JSON has it: arrays become lists."""
    if type(value) in PLAIN:
        return value
    if hasattr(value, "items"):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)
