"""The kernels that a record's workload runs, and the time that a profile predicts for them.

A workload is a network's name or config with its settings, or operators written as in ir/line.py.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..config import Workload
from ..device import Device
from ..device.kernel_class import Dispatch, Profile
from ..dtype import full_name
from ..errors import InputError, shown
from ..estimate import estimate
from ..fold.count import flops
from ..fold.kernels import Work, works
from ..fold.pages import Loop, loop
from ..fold.time import total
from ..ir import Model, model, op
from ..named import Any, NamedTuple
from ..plan.backward import backward
from ..plan.fuse import fuse
from ..plan.recompute import recompute


class Program(NamedTuple):
    """The kernels of a workload, and the weights that its optimizer updates one by one."""

    kernels: tuple[Work, ...]
    stepped: Loop
    flops: float
    dtype: str
    bare: bool  # single operators, without the overhead of a network's code around them

    @property
    def bytes(self) -> float:
        """The bytes that its kernels read and write."""
        return float(sum(w.bytes * w.times for w in self.kernels))


def work(workload: Mapping[str, Any]) -> Program:
    """The kernels of a record's workload. Raises InputError for one that cannot be read."""
    try:
        return _network(workload) if "model" in workload else _operators(workload)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError("workload", f"{shown(dict(workload))}: {error}") from None


def settings(workload: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `estimate` for a network's workload, without the model; as in the suites, forward
    passes name an optimizer, too.
    """
    ignored = ("model",) if workload["mode"] == "train" else ("model", "optimizer")
    return {"precision": "pure", **{k: v for k, v in workload.items() if k not in ignored}}


def _network(workload: Mapping[str, Any]) -> Program:
    e = estimate(workload["model"], **settings(workload))
    kernels = works(e.program.nodes, e.task.dtype, e.task.execution)
    total = e.hardware.forward + e.hardware.backward
    return _program(e.program, tuple(kernels), total, e.task.dtype, bare=False)


def _operators(workload: Mapping[str, Any]) -> Program:
    """Operators as ir/line.py writes them; those of one `group` are one fused kernel."""
    dtype = full_name(workload["dtype"])
    nodes = (op(name, line, kind) for name, line, kind in workload["ops"])
    group = workload.get("group", "")
    built = model(
        "ops", {}, Workload(), (o._replace(group=group) for o in nodes), workload["sizes"], samples=1
    )
    built = fuse(built, {group}) if group else built
    if workload["mode"] == "train":
        built = recompute(backward(built), "none")
    counted = flops(built)
    return _program(
        built, tuple(works(built.nodes, dtype)), counted.forward + counted.backward, dtype, bare=True
    )


def _program(program: Model, kernels: tuple[Work, ...], total: float, dtype: str, *, bare: bool) -> Program:
    stepped = any(w.phase == "optimizer" for w in kernels)
    return Program(kernels, loop(program, dtype) if stepped else Loop(), total, dtype, bare)


def seconds(program: Program, device: Device, profile: Profile) -> float:
    """The predicted time of a program; bare operators have no host's overhead of a network."""
    if program.bare:
        forms = {name: form._replace(host_s=0.0) for name, form in profile.forms.items()}
        profile = profile._replace(dispatch=Dispatch(0, 0, 0), forms=forms)
    return float(total(program.kernels, program.stepped, device, profile, program.dtype))


def predict(workload: Mapping[str, Any], device: Device, profile: Profile) -> float:
    """Seconds that a profile predicts for a record's workload. Raises InputError."""
    return seconds(work(workload), device, profile)
