"""A training step over many devices: for each different stage of a pipeline, one device's program.

    stage -> backward -> divide -> recompute -> shard -> accumulate -> optimizer

Divide stands before `recompute`, so that what is recomputed communicates again; shard behind it, or a weight
would be gathered twice. Everything is counted from these programs: bytes, seconds, and the communication.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..config import Task
from ..errors import InputError
from ..fold.count import training
from ..fold.step import Rank
from ..ir import GIVEN, Model, Op, Same, Tensor, elements
from ..layout import Layout
from ..size import is_one, once
from . import run
from ._layers import outside
from .backward import backward
from .divide import Divided, check, divide
from .fsdp import gathered, summed
from .mesh import Axis, mesh
from .optimizer import optimizer
from .recompute import recompute
from .shard import Partial, among, gathers, owned, reductions
from .stage import Stage, stages
from .techniques import KEPT, LEARNING, prepare, served, undivided
from .units import by_unit


def spread(model: Model, task: Task) -> tuple[Model, Model, tuple[Rank, ...]]:
    """The network and its book for all devices together, and the program of one device of each stage.

    Raises InputError for a layout that the network cannot have.
    """
    layout, task = task.layout, gathered(task)
    network, book = prepare(model, task)
    book, ranks = _of_module(book, task) if book.captured else _of_network(network, book, task)
    if task.workload.mode == "train":
        book = run(book, task, "accumulate")
    whole = {"samples": book.samples * layout.dp, "tokens": book.tokens * layout.dp}
    return network._replace(**whole), book._replace(**whole), ranks


def _of_network(network: Model, book: Model, task: Task) -> tuple[Model, tuple[Rank, ...]]:
    """The book of a micro-batch, and the ranks of a network whose dimensions have names."""
    layout: Layout = task.layout
    trains = task.workload.mode == "train"
    whole = undivided(task)
    learned = _learned(Same(book), whole)
    micro = whole._replace(layout=Layout(tp=layout.tp))  # a written-out loss depends on tp
    scatters = bool(task.techniques.used.get("scatter_gather"))
    axes = mesh(layout, learned, scatters=scatters)
    alike = tuple(axis._replace(degree=2) if axis.is_given else axis for axis in axes)
    parts = _stages(Same(learned), Layout(pp=layout.pp, stages=layout.stages))
    divides: set[tuple[int, str]] = set()
    ranks = []
    for part in parts:
        if layout.built not in (None, *part.ranks):
            continue
        divided = _divided(Same(part.model), micro, alike)
        divides |= divided.divides
        ends = tuple(name for name in divided.model.outputs if name in learned.outputs)
        program = divided.model._replace(outputs=ends)
        if trains:
            program = _stepped(program, task, divided.partial, part, parts)
        else:
            program = run(program, task, "sparse")
        ranks.append(Rank(program, task.dtype, part.ranks, part.layers))
    check(network, axes, divides)
    return _both(Same(learned), micro) if trains else book, tuple(ranks)


@once
def _learned(book: Same, task: Task) -> Model:
    """The network that is divided: as it is trained, or as an engine runs it."""
    trains = task.workload.mode == "train"
    return run(book.model, task, *LEARNING) if trains else served(book.model, task)


@once
def _stages(learned: Same, layout: Layout) -> tuple[Stage, ...]:
    return stages(learned.model, layout)


@once
def _both(network: Same, task: Task) -> Model:
    """A network, or a stage of one, with its backward pass."""
    return run(backward(network.model), task, "gradients")


@once
def _divided(network: Same, task: Task, axes: tuple[Axis, ...]) -> Divided:
    """One device's program of a network or a stage, both passes of it where it trains."""
    return divide(_both(network, task) if task.workload.mode == "train" else network.model, axes)


def _of_module(book: Model, task: Task) -> tuple[Model, tuple[Rank, ...]]:
    """The book and the ranks of a torch module, whose dimensions have no names: the batch is divided (dp),
    and the numbered modules (pp). Raises InputError for other degrees.
    """
    from ._module_stages import module_stages

    layout: Layout = task.layout
    for axis in ("tp", "cp", "ep"):
        if not is_one(getattr(layout, axis)):
            problem = "a torch module's dimensions have no names; allowed: dp, zero, shard, pp"
            raise InputError(f"layout.{axis}", problem)
    trains = task.workload.mode == "train"
    book = run(book, task, "gradients") if trains else book
    ranks = []
    for part in module_stages(book, layout):
        program = _stepped(part.model, task, {}, part) if trains else part.model
        ranks.append(Rank(program, task.dtype, part.ranks, part.layers))
    return book, tuple(ranks)


def _stepped(program: Model, task: Task, partial: Partial, part: Stage, parts: Sequence[Stage] = ()) -> Model:
    """A stage's step, from a program of both passes: recomputation, the traffic of weight units, the sums of
    gradients, the optimizer for what this device owns, and the gathers after it.
    """
    layout, root = task.layout, task.techniques.used.get("fsdp_root", "whole")
    moved = by_unit(recompute(program, task.recompute), layout, summed(task), root)
    again = run(moved, task, *KEPT)
    sums = (*reductions(again, layout, partial), *_tied(again, part, parts))
    model = again._replace(nodes=(*again.nodes, *sums))
    own = owned(model, layout, task.optimizer)
    shared = among(layout, task.optimizer) or 1
    steps = optimizer(own, task.optimizer, master=task.master, among=shared).nodes[len(own.nodes) :]
    program = run(model._replace(nodes=(*model.nodes, *steps)), task, "states")
    return program._replace(nodes=(*program.nodes, *gathers(program, layout)))


def _tied(model: Model, part: Stage, parts: Sequence[Stage]) -> Iterator[Op]:
    """The sums of gradients of weights that two stages share: a pipeline's ends add them up once a step."""
    others = {
        t.name for other in parts if other is not part for o in outside(other.model.nodes) for t in o.weights
    }
    for t, o, _ in training(model):
        if t.name in others:
            what, sizes = Tensor("gradients", ("p",), GIVEN, t.dtype), {"p": elements(t, o.sizes)}
            yield Op(f"{t.name}.all_reduce", "all_reduce", (what,), (), sizes, "backward", axis="ends")
