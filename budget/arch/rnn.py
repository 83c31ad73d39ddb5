"""Recurrent networks: RNN, LSTM and GRU layers; with a vocabulary, a language model."""

from __future__ import annotations

from collections.abc import Iterator

from ..config import Settings, Workload, at_most, setting
from ..errors import InputError
from ..ir import EMBED, HEAD, Model, Node, block, model, op
from ..size import Size, is_zero, or_else
from ._loss import cross_entropy
from ._recurrent import GATES, Cell, recurrent

TAKES = ("batch", "seq")
MODES = ("train", "forward", "prefill", "decode")

SEQ = 128


class Config(Settings):
    """A two-layer LSTM over 128 steps of 256 features."""

    cell: str = setting("lstm", "what a step computes", choices=tuple(GATES))
    input_size: int = setting(256, "features of a time step")
    hidden_size: int = setting(512, "width of the state")
    layers: int = setting(2, "recurrent layers")
    bidirectional: bool = setting(False, "a second recurrence runs from the end of the sequence")
    proj_size: int = setting(0, "width that an LSTM's output is projected to; 0: none", least=0)
    bias: bool = setting(True, "both linear maps of a cell have a bias")
    vocab: int = setting(0, "tokens of an embedding before and a head behind the layers; 0: neither", least=0)

    def __post_init__(self) -> None:
        if self.cell != "lstm" and self.projects:
            raise InputError(
                "proj_size", f"got {self.proj_size} with cell {self.cell}; allowed: 0, or cell lstm"
            )
        at_most("proj_size", self.proj_size, "hidden_size - 1", self.hidden_size - 1)

    @property
    def projects(self) -> bool:
        """Whether an LSTM's output is narrower than its state."""
        return not is_zero(self.proj_size)

    @property
    def worded(self) -> bool:
        """Whether the input is tokens, not features."""
        return not is_zero(self.vocab)


def build(c: Config, w: Workload) -> Model:
    """Features or tokens [b, t] to the outputs or logits of every step; decode runs a single step."""
    steps = 1 if w.mode == "decode" else or_else(w.seq, SEQ)
    sizes = {"b": w.batch, "t": steps, "v": c.vocab}
    return model("rnn", c, w, _nodes(c, w, steps), sizes, samples=w.batch, tokens=w.batch * steps)


def _nodes(c: Config, w: Workload, steps: Size) -> Iterator[Node]:
    if c.worded:
        yield op("embed", "!ids/int64: b t, *~v c -> x: b t c", "gather", EMBED, c=c.input_size)
    cell = Cell(c.cell, c.hidden_size, c.bias, c.proj_size)
    width = cell.out * (2 if c.bidirectional else 1)
    x = "x" if c.worded else "!x"
    yield from recurrent("layer0", cell, x, "x", c=c.input_size, steps=steps, bidirectional=c.bidirectional)
    layer = recurrent("layer", cell, "x", "x", c=width, steps=steps, bidirectional=c.bidirectional)
    yield block("layers", layer, c.layers - 1)
    if c.worded:
        yield op("head", "x: b t c, *v c, +*v -> logits: b t v", tag=HEAD, c=width)
        if w.mode == "train":
            yield from cross_entropy("logits")
