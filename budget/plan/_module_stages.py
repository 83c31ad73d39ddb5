"""Pipeline stages of a captured module: its numbered modules are divided, by their paths.

It has its backward pass already, so both passes are cut: an operator goes where its module is, a backward
operator where its forward one is. An operator without a number goes with the one that ran before it. A tensor
that another stage has made is received straight from there.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..fold.rows import layer_of
from ..ir import INPUT, WEIGHTS, Model, Op, Tensor, walk
from ..layout import Layout
from .stage import Stage, even_stages

Made = dict[str, tuple[int, Op, Tensor]]  # by name: in which stage, by what, how


def module_stages(model: Model, layout: Layout) -> tuple[Stage, ...]:
    """The stages of a captured module. Raises InputError where it has fewer numbered modules than stages."""
    ops = [o for o, _ in walk(model.nodes)]
    units = list(dict.fromkeys(unit for o in ops if o.phase == "forward" and o.outs and (unit := _unit(o))))
    counts = even_stages(len(units), model.name, layout)
    if len(counts) == 1:
        return (Stage(model, counts[0], (0,)),)
    home = dict(zip(units, _repeated(counts), strict=True))
    at = _places(ops, home, len(counts) - 1)
    made: Made = {t.name: (at[i], o, t) for i, o in reversed(list(enumerate(ops))) for t in o.outs}
    return tuple(
        Stage(_stage(model, ops, at, made, stage), count, (stage,)) for stage, count in enumerate(counts)
    )


def _unit(o: Op) -> str:
    return layer_of(o.of or o.name)[0]


def _repeated(counts: tuple[int, ...]) -> list[int]:
    return [stage for stage, count in enumerate(counts) for _ in range(count)]


def _places(ops: list[Op], home: dict[str, int], last: int) -> dict[int, int]:
    """The stage of each operator that runs, by its number."""
    stages: dict[int, int] = {}
    by_name: dict[str, int] = {}
    now = 0
    for i, o in enumerate(ops):
        if not o.outs:  # a declaration
            continue
        if o.phase == "forward":
            now = by_name[o.name] = home.get(_unit(o), now)
        stages[i] = by_name.get(o.of or o.name, now if o.phase == "forward" else last)
    return stages


def _stage(model: Model, ops: list[Op], at: dict[int, int], made: Made, stage: int) -> Model:
    """One stage's operators, with what it receives from other stages and what it sends to them."""
    mine = [o for i, o in enumerate(ops) if at.get(i) == stage]
    reads = {t.name for o in mine for t in o.ins}
    nodes: list[Op] = [o for declared in ops if not declared.outs for o in _declared(declared, reads)]
    for phase in ("forward", "backward"):
        run = [o for o in mine if o.phase == phase]
        here = {t.name for o in nodes for t in o.outs}
        wanted = dict.fromkeys(t.name for o in run for t in o.ins if t.role not in (*WEIGHTS, INPUT))
        far = (name for name in wanted if name in made and made[name][0] != stage and name not in here)
        nodes += [_receive(name, made, phase) for name in far]
        nodes += run
        nodes += _sends(ops, at, made, stage, phase)
    outputs = (name for name in model.outputs if name in made and made[name][0] == stage)
    return model._replace(nodes=tuple(nodes), outputs=tuple(outputs))


def _declared(o: Op, reads: set[str]) -> Iterator[Op]:
    """A declaration, reduced to what a stage reads."""
    ins = tuple(t for t in o.ins if t.name in reads)
    if ins:
        yield o._replace(ins=ins)


def _receive(name: str, made: Made, phase: str) -> Op:
    _, o, t = made[name]
    far = Tensor(f"{name}@before", t.dims, dtype=t.dtype, on_chip=True)
    here = Tensor(name, t.dims, dtype=t.dtype)
    return Op(f"receive.{name}", "receive", (far,), (here,), o.sizes, phase, axis="pp")


def _sends(ops: list[Op], at: dict[int, int], made: Made, stage: int, phase: str) -> Iterator[Op]:
    """A message to each stage that reads something which a pass of this one has made."""
    readers: dict[str, set[int]] = {}
    for i, o in enumerate(ops):
        for t in o.ins:
            if i in at and at[i] != stage:
                readers.setdefault(t.name, set()).add(at[i])
    for name, (home, o, t) in made.items():
        if home == stage and o.phase == phase and t.role not in WEIGHTS:
            for other in sorted(readers.get(name, ())):
                here = Tensor(name, t.dims, dtype=t.dtype)
                far = here._replace(name=f"{name}@{other}", on_chip=True)
                yield Op(f"send.{name}.{other}", "send", (here,), (far,), o.sizes, phase, axis="pp")
