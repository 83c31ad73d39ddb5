"""FSDP2's mixed precision: float32 weights, each cast to the model's dtype before it is gathered and read.

fully_shard's MixedPrecisionPolicy(param_dtype, reduce_dtype): `--dtype` is param_dtype. Other than under
autocast, everything is computed in that dtype. Where weights are divided (zero 3), gradients stay in it until
all of a layer's are there; they are then cast, added up over the devices in reduce_dtype and kept in float32:
16 bytes a parameter with AdamW (plan/units.py). Source: pytorch-fsdp.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..config import Task, setting
from ..dtype import full_name
from ..errors import InputError
from ..ir import EXPERTS, FROZEN, ONCE, WEIGHT, Block, Model, Node, Op, Tensor, base
from ..ir.kinds.rule import SINGLE
from ._names import wide

SETTINGS = {
    "reduce_dtype": setting("", "precision fsdp: dtype in which gradients are added up over devices"),
    "fsdp_root": setting(
        "whole",
        "FSDP's weights outside of layers: one unit, gathered until the backward pass ends, or several",
        choices=("whole", "parts"),
    ),
}
NEEDS = {"reduce_dtype": ("train",), "fsdp_root": ("train",)}
STORED = (WEIGHT, FROZEN)


def cast_weights(model: Model) -> Model:
    """The model whose weights of its own dtype are float32, and cast. To be applied before `backward`."""
    return model._replace(nodes=tuple(_cast(model.nodes, {})))


def _cast(nodes: Iterable[Node], low: dict[str, Tensor]) -> Iterator[Node]:
    """Nodes with the casts of their weights; `low`: the casts that exist already, by weight."""
    for node in nodes:
        if isinstance(node, Block):
            body = tuple(_cast(node.body, low if node.shared else dict(low)))
            if node.shared:  # a weight that every repetition reads is cast once
                yield from (o for o in body if casts(o))
                body = tuple(o for o in body if not casts(o))
            yield node._replace(body=body)
            continue
        ins = []
        for t in node.ins:
            if t.role not in STORED or t.dtype:
                ins.append(t)
                continue
            if t.name not in low:
                own = tuple(d if d == EXPERTS else base(d) for d in t.dims)  # a device's experts are its own
                low[t.name] = Tensor(f"{t.name}~low", own)
                read = t._replace(dtype=SINGLE, added=False, dims=own)
                name = f"{node.name}.cast_{t.label}"
                cast = Op(name, "cast", (read,), (low[t.name],), node.sizes, tag=ONCE)
                yield cast._replace(module=node.module)
            ins.append(low[t.name]._replace(added=t.added, dims=t.dims))
        yield node._replace(ins=tuple(ins))


def casts(node: Node) -> bool:
    """Whether a node is the cast of a weight."""
    return isinstance(node, Op) and node.rule.casts and node.ins[0].role in STORED


def gathered(task: Task) -> Task:
    """The task where weights stay gathered (zero 1 and 2): products read 16-bit weights, the optimizer holds
    its part of them in float32, as with `master`, and whole gradients are float32.
    """
    if task.precision != "fsdp" or task.layout.zero not in (1, 2):
        return task
    from . import chosen

    rest = {name: x for name, x in task.techniques.used.items() if name != "reduce_dtype"}
    return task._replace(techniques=chosen({**rest, "precision": "master", "grad_dtype": "fp32"}))


def summed(task: Task) -> str | None:
    """The dtype in which gradients are added up, "" is the model's own; None without this precision."""
    own = task.techniques.used.get("reduce_dtype", "")
    dtype = full_name(own) if own else ""
    return None if task.precision != "fsdp" else "" if dtype == task.dtype else dtype


def check(task: Task, device: object) -> None:
    """Raise an InputError for a dtype of sums where nothing is added up in it."""
    own = task.techniques.reduce_dtype
    wide("reduce_dtype", own)
    if own and task.precision != "fsdp":
        raise InputError("reduce_dtype", f"got precision {task.precision}; allowed: with precision fsdp")
    if own and full_name(own) not in (task.dtype, SINGLE):
        raise InputError(
            "reduce_dtype", f"got {own[:40]!r}; allowed: fp32, or {task.dtype}, the weights' own"
        )


STAGES: dict[str, object] = {}
