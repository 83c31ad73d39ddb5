"""Layer norms as torch's exporter writes them, in a graph whose library has no kernel for them.

A mean, the differences from it, their squares, another mean, and what scales the differences: neighbours
that work on each number are joined, the two means are not. So the input is read twice, differences are
written and read again, and so are their squares: five tensors more than a kernel moves that holds a row.
Rows of one sequence show no more starts than that kernel's, so the parts are taken to be one of them.
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
    """Raise an InputError where no graph runs it: there norms have kernels."""
    if task.workload.mode == "train" or task.execution not in FUSED:
        got = f"exported in mode {task.workload.mode}, execution {task.execution}"
        allowed = " or ".join(FUSED)
        raise InputError("norms", f"got {got}; allowed: in inference, with execution {allowed}")


STAGES = {"fuse": lambda model, _: exported(model)}
