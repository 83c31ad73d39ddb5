"""Distillation: a teacher's forward pass in addition to the student's, and a loss between their logits.

The teacher's weights are frozen, so its pass keeps only the logits.
Source: hinton-2015.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import eq

from ..config import Task, setting
from ..errors import InputError
from ..ir import INPUT, LOSS, Block, Carry, Model, Node, Op, Tensor, elements
from ..size import all_of
from ._names import untrained
from .freeze import frozen
from .fuse import fuse

SETTINGS = {"teacher": setting("", "a preset whose answers the network learns")}
NEEDS = {"teacher": ("train",)}


def distill(student: Model, teacher: Model) -> Model:
    """The student in training with a teacher, a model of mode forward. To be applied before `backward`.

    The loss is the student's own and the divergence of its answer from the teacher's; losses of other heads
    stay. Raises InputError.
    """
    untrained(student, "teacher")
    loss = next((n for n in student.nodes if isinstance(n, Op) and n.tag == LOSS), None)
    if loss is None:
        raise InputError("teacher", f"{student.name} has no loss; allowed: students with one, in mode train")
    logits = loss.ins[0]
    nodes = _renamed(frozen(teacher, None).nodes)
    answer = next(t for n in reversed(nodes) for t in _made(n) if t.name == f"teacher.{teacher.outputs[0]}")
    made = next(n for n in reversed(nodes) if answer in _made(n))
    sizes = made.sizes if isinstance(made, Op) else {}
    ours, theirs = [loss.sizes.get(d) for d in logits.dims], [sizes.get(d) for d in answer.dims]
    if len(ours) != len(theirs) or not all(map(all_of, map(eq, ours, theirs))):
        given, wanted = _text(answer, sizes), _text(logits, loss.sizes)
        raise InputError("teacher", f"answers {given}, the student {wanted}; allowed: answers of one shape")
    divergence, total = Tensor("distill.divergence", ("1",)), Tensor("distill.loss", ("1",))
    log_p, q = logits._replace(name="distill.log_p"), answer._replace(name="distill.q", dims=logits.dims)
    ops = (
        Op("loss.teacher", "softmax", (answer._replace(dims=logits.dims),), (q,), loss.sizes),
        Op("loss.student", "log_softmax", (logits,), (log_p,), loss.sizes),
        Op("loss.divergence", "kl", (log_p, q), (divergence,), loss.sizes),
        Op("loss.sum", "add", (Tensor(student.outputs[0], ("1",)), divergence), (total,), loss.sizes),
    )
    return student._replace(nodes=(*nodes, *student.nodes, *ops), outputs=(total.name, *student.outputs[1:]))


def _made(node: Node) -> tuple[Tensor, ...]:
    return node.outs if isinstance(node, Op) else tuple(t for inner in node.body for t in _made(inner))


def _text(t: Tensor, sizes: object) -> str:
    try:
        return f"{elements(t, sizes):,} numbers"  # type: ignore[arg-type] # a mapping where it is known
    except (KeyError, TypeError, ValueError):
        return "numbers of another shape"


def _renamed(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """The teacher's operators and tensors under names of their own; its inputs are the student's."""
    own: Callable[[str], str] = lambda name: f"teacher.{name}" if name else ""  # noqa: E731
    inputs: set[str] = set()

    def tensor(t: Tensor) -> Tensor:
        if t.role == INPUT:
            inputs.add(t.name)
        return t if t.name in inputs else t._replace(name=own(t.name))

    def visit(node: Node) -> Node:
        if isinstance(node, Block):
            carry = tuple(
                Carry(c.init if c.init in inputs else own(c.init), own(c.enter), own(c.leave))
                for c in node.carry
            )
            return node._replace(name=own(node.name), body=tuple(visit(n) for n in node.body), carry=carry)
        ins, outs = tuple(tensor(t) for t in node.ins), tuple(tensor(t) for t in node.outs)
        return node._replace(name=own(node.name), ins=ins, outs=outs)

    return tuple(visit(node) for node in nodes)


def apply(student: Model, task: Task) -> Model:
    """The student with its teacher, at the same sizes of input. Raises InputError."""
    from ..read.source import resolve

    w = task.workload
    seq = student.tokens // student.samples if student.counts_tokens else w.seq
    try:
        _, module, settings, *_ = resolve(task.techniques.teacher, {})
        teacher: Model = module.build(settings, w._replace(mode="forward", seq=seq))
    except InputError as error:
        raise InputError("teacher", str(error).removeprefix("model: ")) from None
    return distill(student, fuse(teacher, {"attention"}, task.attention))


STAGES = {"teach": apply}
