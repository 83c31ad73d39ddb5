"""Recurrent layers as torch runs them: the input products of all steps at once, then step by step."""

from __future__ import annotations

from collections.abc import Iterator

from ..ir import Node, block, op
from ..named import NamedTuple
from ..size import Size, is_zero, or_else

GATES = {"lstm": 4, "gru": 3, "rnn": 1}  # linear maps of each cell, each as wide as its state


class Cell(NamedTuple):
    """What a step computes, and how wide: `n` the state, `project` an LSTM's output (0: as the state)."""

    kind: str
    n: Size
    bias: bool = True
    project: Size = 0

    @property
    def projects(self) -> bool:
        return not is_zero(self.project)

    @property
    def out(self) -> Size:
        return or_else(self.project, self.n)


def recurrent(
    name: str, cell: Cell, x: str, y: str, *, c: Size, steps: Size, t: str = "t", bidirectional: bool = False
) -> Iterator[Node]:
    """One layer from `x: b t c` to `y: b t m`, or two directions side by side.

    `x` and `y` are names as in op(), with `!` where x is the network's input.
    """
    if not bidirectional:
        yield from _scan(name, cell, x, y, c, steps, t)
        return
    for side in ("ahead", "back"):
        yield from _scan(f"{name}.{side}", cell, x, f"{y}_{side}", c, steps, t)
    m = cell.out
    yield op(f"{name}.cat", f"{y}_ahead: b {t} m, {y}_back: b {t} m -> {y}: b {t} c", "cat", m=m, c=2 * m)


def _scan(name: str, cell: Cell, x: str, y: str, c: Size, steps: Size, t: str) -> Iterator[Node]:
    """One direction: a block repeated with shared weights, whose steps run in sequence."""
    sizes = {"c": c, "n": cell.n, "m": cell.out, "f": GATES[cell.kind] * cell.n}
    bias = ", +*f" if cell.bias else ""
    yield op(f"{name}.ih", f"{x}: b {t} c, *c f{bias} -> gx: b {t} f", **sizes)
    yield op(f"{name}.h0", "!zero: 1 -> h: b m", "fill", **sizes)
    if cell.kind == "lstm":
        yield op(f"{name}.c0", "!zero: 1 -> c: b n", "fill", **sizes)
    body = (
        op("step", f"gx: b {t} f -> gt: b f", "step", **sizes),
        op("hh", f"h: b m, *m f{bias} -> gh: b f", **sizes),
        *_CELLS[cell.kind],
        *([op("project", "h: b n, *n m -> h: b m")] if cell.projects else []),
    )
    yield block(f"{name}.steps", (o._replace(sizes=sizes) for o in body), steps, shared=True)
    yield op(f"{name}.stack", f"h: b m -> {y}: b {t} m", "copy", **sizes)


_CELLS = {
    "lstm": (
        op("gates", "gh: b f, gt: b f -> g: b f", "add"),
        op("cell", "g: b f, c: b n -> h: b n, c: b n", "lstm_cell"),
    ),
    "gru": (op("cell", "gt: b f, gh: b f, h: b n -> h: b n", "gru_cell"),),
    "rnn": (op("gates", "gh: b f, gt: b f -> g: b f", "add"), op("cell", "g: b n -> h: b n", "tanh")),
}
