"""Layer norms as torch's exporter writes them, in a graph whose library has no kernel for them.

The graph has a mean, the differences from it, their squares, another mean, and the scaling of the
differences. TensorRT fuses neighbouring elementwise operators, but not the two means. So the input is read
twice, and the differences and their squares are each written and read again: five tensors more than a kernel
moves that holds a row. Measured rows with one sequence show no more kernel starts than that kernel, so all
parts count as one.
Sources: torch-onnx-norm, tensorrt-fusions; that TensorRT 8 has no kernel is inferred from eight pages.
"""

from __future__ import annotations

from ..config import FUSED, Task, setting
from ..errors import InputError
from ..ir import Model, Op, rewrite

WAYS = ("kernel", "exported")
SETTINGS = {
    "norms": setting("kernel", "layer norms, where a graph has them as they were exported", choices=WAYS)
}
EXPORTED = {"layer_norm": "layer_norm_exported", "layer_norm_plain": "layer_norm_exported_plain"}


def exported(model: Model) -> Model:
    """The network whose layer norms are their exporter's operators."""

    def written(o: Op) -> tuple[Op]:
        return (o._replace(kind=EXPORTED.get(o.kind, o.kind)),)

    return model._replace(nodes=rewrite(model.nodes, written))


def check(task: Task, device: object) -> None:
    """Raise an InputError where the network does not run as a graph: norms have kernels there."""
    if task.workload.mode == "train" or task.execution not in FUSED:
        got = f"exported in mode {task.workload.mode}, execution {task.execution}"
        allowed = " or ".join(FUSED)
        raise InputError("norms", f"got {got}; allowed: in inference, with execution {allowed}")


STAGES = {"fuse": lambda model, _: exported(model)}
