"""The order of the stages at which techniques are applied; the files of this folder say what is done at each.

    fuse -> freeze -> adapt -> bottom -> group -> store -> attention                     the network
    -> teach -> cast -> backward -> gradients                                            a training step
    -> recompute -> loop -> offload -> accumulate -> sparse -> optimizer -> states
    -> cast -> offload -> absorb -> sparse                                               or inference

Derived: what each needs to see of the others.
"""

from __future__ import annotations

from ..config import Task
from ..ir import Model, Op, Same, rewrite, walk
from ..size import once
from . import chosen, run
from .backward import backward
from .fuse import attention
from .optimizer import optimizer
from .recompute import recompute

NETWORK = ("fuse", "freeze", "adapt", "bottom", "group", "store")
LEARNING = ("teach", "cast")
KEPT = ("loop", "offload", "accumulate", "sparse")
STAGES = (*NETWORK, *LEARNING, "gradients", *KEPT, "states")


def apply(model: Model, task: Task) -> tuple[Model, Model, Model]:
    """The network, its program as the formula book counts it (nothing twice), and the program as it runs.

    Raises InputError for what a technique cannot do to this model.
    """
    network, book = prepare(model, task)
    if task.workload.mode != "train":
        return network, book, run(served(book, task), task, "sparse")
    book, program = steps(book, task)
    micro = {"samples": program.samples, "tokens": program.tokens}
    return network._replace(**micro), run(book, task, "accumulate"), program


def steps(book: Model, task: Task) -> tuple[Model, Model]:
    """A training step of a network with its kernels of attention: as formulas count it, and as it runs."""
    book = run(trained(book, task), task, "gradients")
    again = run(recompute(book, task.recompute), task, *KEPT)
    return book, run(optimizer(again, task.optimizer, master=task.master), task, "states")


def prepare(model: Model, task: Task) -> tuple[Model, Model]:
    """The network with its techniques, and with its kernels of attention."""
    network = _network(Same(model), undivided(task))
    return network, attention(network, task)


def undivided(task: Task) -> Task:
    """A task without the settings that matter only once a program is divided, recomputed and repeated."""
    if "accumulate" in (used := task.techniques.used):
        task = task._replace(techniques=chosen({name: used[name] for name in used if name != "accumulate"}))
    return task._replace(recompute="none", layout=None)


@once
def _network(same: Same, task: Task) -> Model:
    model = same.model
    if task.kept is not None:
        from .kept import given_single, kept

        precision = task.techniques.used.get("precision", "pure")
        if precision == "pure":
            model = kept(model, task.kept.tags(task.dtype))
        elif precision == "autocast":
            model = given_single(model, task.kept.unpacked)
    network = run(model, task, *NETWORK)
    if task.execution == "compiled" and task.workload.mode == "train":
        network = _compiled(network)
    if task.packing is not None:
        from .packed import checkpoint

        network = checkpoint(network, task)
    return network


def _compiled(model: Model) -> Model:
    """The network as a compiler leaves it: a written-out activation is one kernel, which keeps what it reads
    and recomputes its parts in the backward pass. Source: torch-partitioner.
    """

    def change(o: Op) -> tuple[Op]:
        fused = o.rule.family == "activation" and o.rule.fused
        return (o._replace(kind=fused) if fused else o,)

    return model._replace(nodes=rewrite(model.nodes, change))


def trained(model: Model, task: Task) -> Model:
    """The network with its backward pass; a captured module has its own."""
    if any(o.phase == "backward" for o, _ in walk(model.nodes)):
        return model
    return backward(run(model, task, *LEARNING))


def served(model: Model, task: Task) -> Model:
    """The program as an engine runs it: with casts, kernels of its own, latent attention from its cache."""
    model = run(model, task, "cast", "offload")
    if task.workload.mode != "decode" or task.attention != "flash":
        return model
    from .absorb import absorb

    return absorb(model)
