"""Published rows with a measured time, and the kernels from which it is predicted: what fit.py fits to."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import ModuleType

import numpy as np

from budget import device as devices
from budget.answer import Estimate
from budget.errors import InputError
from budget.fold.host import decoded
from budget.fold.kernels import Work
from budget.fold.time import waiting
from budget.ir import Gemm
from budget.named import Any, NamedTuple

from . import inference
from .predict import run, seconds
from .rows import Asked, NotCoveredError, Part, whole
from .software import differs
from .table import read

TIMES = ("step_s", "ttft_s", "tpot_s", "tokens_per_s", "samples_per_s")
SIZES = (
    "contraction", "pointwise", "bytes", "launches", "times", "host", "weights", "groups", "again", "calls",
    "unit_s", "spared", "unpacked",
)  # fmt: skip


class Kernels(NamedTuple):
    """The kernels of a part of a row; those of one class are arrays of sizes."""

    works: tuple[Work, ...]
    execution: str
    times: float
    stretch: float  # by a pipeline's bubble
    waits: float  # seconds for collectives
    sequences: float  # that get one token each


class Case(NamedTuple):
    """A measured row."""

    id: str
    stack: str  # whose numbers predict it
    generation: str
    source: str
    quantity: str
    device: devices.Device
    dtype: str
    parts: tuple[Kernels, ...]
    measured: float  # logarithm of seconds
    trains: bool
    devices: int
    version: str = ""  # the stack that it ran, where that one has another's numbers (`same`)
    attention: str = ""  # as the task of a training step has it; no other mode's times depend on it
    host: float = 0.0  # the part of its time for which devices wait, for the host or for kernels' starts

    @property
    def mode(self) -> str:
        """As a profile knows it."""
        return "train" if self.trains else "forward"

    @property
    def key(self) -> str:
        """What its errors are known by."""
        return f"{self.id} {self.quantity}"


def _several(kind: ModuleType, a: Asked) -> bool:
    return kind is inference and "layout" in a.parts[0].settings


def cases(paths: Iterable[str], *, several: bool = False) -> Iterator[Case]:
    """The rows of tables that have a measured time and a prediction, without those that are never fitted, so
    that they can judge the fit: stacks of many devices with every setting published (`judges` in
    software.toml), and one batch on several devices. several: these last alone.
    """
    for path in paths:
        kind, rows = read(path)
        for row in rows:
            try:
                for a in kind.asked(row):
                    judges = differs(a.parts[0].settings.get("stack", "")).get("judges", False)
                    if judges or _several(kind, a) != several:
                        continue
                    if a.quantity in TIMES and a.measured and a.of is None:
                        taken = a.work / a.measured if a.work else a.measured
                        yield _case(row, a.quantity, a.parts, taken)
            except (NotCoveredError, InputError):
                continue


def site(source: str) -> str:
    """Where a source stands: its address (a repository, a domain), else its title, without the part that was
    read.
    """
    address = re.split("[ @]", source)[0]
    if "/" not in address and "." not in address:
        return re.split(r" ?[,(]| Fig\b| Table\b| abstract\b", source)[0]
    return address


def publication(source: str) -> str:
    """The publication that a source names: its site; at an address, each issue or pull request is one of its
    own, as different people write them.
    """
    thread = re.search(r"^\S*[/.]\S* (?:.*\b)?(?:issue|discussion|pull(?: request)?) (\d+)", source)
    return f"{site(source)} {thread[1]}" if thread else site(source)


def _case(row: Mapping[str, str], quantity: str, parts: Sequence[Part], taken: float) -> Case:
    estimates = [run(part) for part in parts]
    e = estimates[0]
    trains = e.task.workload.mode == "train"
    kernels = tuple(_kernels(p, e) for p, e in zip(parts, estimates, strict=True))
    return Case(
        id=row["id"],
        stack=e.stack.same or e.stack.name,
        generation=e.device.generation,
        source=publication(row["source"]),
        quantity=quantity,
        device=e.device,
        dtype=e.task.dtype,
        parts=kernels,
        measured=math.log(taken),
        trains=trains,
        devices=max(int(e.devices), whole(row, "n_gpus", 1)),  # those that take turns by layers, too
        version=e.stack.name if e.stack.same else "",
        attention=e.task.attention if trains else "",
        host=_waiting(parts, estimates),
    )


def _waiting(parts: Sequence[Part], estimates: Sequence[Estimate]) -> float:
    """The part of a row's time for which devices wait: for the host, or for kernels' starts."""
    both = list(zip(parts, estimates, strict=True))
    took = sum(seconds(p, e) for p, e in both)
    waits = sum(float(waiting(e.times) * e.times.step) * p.times for p, e in both if not (p.kind or p.phase))
    return min(waits / took, 1.0)


def _kernels(part: Part, e: Estimate) -> Kernels:
    """A part's kernels, on several devices those of the slowest stage; waiting times are taken as
    predicted.
    """
    t = e.times
    busy = t.forward + t.backward
    wanted = [k.work for k in t.kernels if part.kind in ("", k.work.kind)]
    turns = 0.0 if part.kind else float(decoded(e.program))
    works = tuple(_alike(wanted, part.phase))
    waits = t.communication + part.waits
    return Kernels(works, e.task.execution, part.times, 1 + t.bubble / busy, waits, turns)


def _alike(works: Iterable[Work], phase: str) -> Iterator[Work]:
    """Kernels of one class joined; here no kind of operator has numbers of its own."""
    yield from (
        w._replace(own="") for w, _ in together((w, 0) for w in works if not phase or w.phase == phase)
    )


def together(works: Iterable[tuple[Work, int]]) -> Iterator[tuple[Work, Any]]:
    """Kernels of one class joined into one with arrays of sizes, and the place that each came with."""
    groups: dict[Any, list[tuple[Work, int]]] = {}
    for w, place in works:
        formats = tuple(name for name, _ in w.formats)
        groups.setdefault((w.phase, w.form, w.narrow, w.gemm is None, formats), []).append((w, place))
    for (*_, formats), group in groups.items():
        sizes: dict[str, Any] = {f: _side([getattr(w, f) for w, _ in group]) for f in SIZES}
        flops = zip(*([size for _, size in w.formats] for w, _ in group), strict=True)
        sizes["formats"] = tuple(zip(formats, map(_side, flops), strict=True))
        gemms = [w.gemm for w, _ in group if w.gemm is not None]
        gemm = Gemm(*map(_side, zip(*gemms, strict=True))) if gemms else None
        places: Any = np.repeat([place for _, place in group], [np.size(w.times) for w, _ in group])
        yield group[0][0]._replace(**sizes, gemm=gemm), places


def _side(sizes: Iterable[Any]) -> Any:
    """Numbers and arrays joined into one array."""
    return np.concatenate([np.atleast_1d(np.asarray(size, float)) for size in sizes])
