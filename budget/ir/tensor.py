"""Tensors: named axes, what they are there for, and what they are of one another.

An axis is a letter; `y+i` is what a window `i` slides over to give `y`, `~v` a dimension from which each
element picks one, and `G.H.k|G.n` several axes joined into one: H k and n of each G, side by side. Letters
mean the same to every question and technique, whatever the network:

    every network   b batch, s positions (queries), t keys' positions or time steps, d width of the stream,
                    f width inside or output channels, v vocabulary or classes, c input channels or features
    attention       h key-value heads, r query heads for each of them, k head_dim, p positions of a table
    experts         e experts, a those of them that a token goes to
    images, sound   z y x space, l i j a window's extent along them, g groups of channels
    recurrences     n state, m output; G groups of heads that share C and B (queries, keys), H heads of each
    techniques      R rank of an adapter, chunk tokens of a loss

Other letters are an operator's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

from ..named import NamedTuple
from ..size import Size, product

WEIGHT, ACTIVATION, INPUT, CACHE, STATE = "weight", "activation", "input", "cache", "state"
FROZEN = "frozen"  # a weight that is not trained (plan/freeze.py)
HOST = "host"  # in the memory of the host (plan/offload.py)
GIVEN = "given"  # there already and counted by another name: all gradients, a part of a state
SCALE = "scale"  # stored beside a weight in few bits, and no parameter (plan/packed.py)
WEIGHTS = (WEIGHT, FROZEN, SCALE)
# The dimensions that rules and techniques ask for by name.
BATCH, SEQ, KEY_SEQ, KV_HEADS, Q_HEADS = "b", "s", "t", "h", "r"
SSM_GROUPS, SSM_HEADS, D_FF, VOCAB = "G", "H", "f", "v"
SPACE = ("z", "y", "x")
ACTIVE, EXPERTS = "a", "~e"  # the experts that a token goes to; all of them, of which rows pick
# What a tensor is of another one: its gradient, something that the backward pass reads, the same in another
# dtype, a summand, so much of it as one chunk of tokens has; the same, transposed; or what lives while an
# operator runs.
GRADIENT, SAVED, COPY, SUMMAND = "gradient", "saved", "copy", "summand"
CHUNK, TRANSPOSED, TEMPORARY = "chunk", "transposed", "temporary"


class Tensor(NamedTuple):
    """A named tensor: its axes, what it is, its dtype ("" is the model's own)."""

    name: str
    dims: tuple[str, ...]
    role: str = ACTIVATION
    dtype: str = ""
    added: bool = False  # added to a contraction, not contracted
    on_chip: bool = False  # never reaches device memory: part of a fused kernel
    part: str = ""  # what it is of another tensor, and of which; "" where it is none but itself
    of: str = ""

    @property
    def label(self) -> str:
        """What it was called in its operator's line: its name without the number that tells it apart."""
        return self.name.partition("'")[0]


def elements(t: Tensor, sizes: Mapping[str, Size]) -> Size:
    """The number of elements of a tensor."""
    n: Size = 1
    for d in t.dims:  # nothing runs more often
        n = n * (sizes[d] if d in sizes else sizes[base(d)])
    return n


def base(dim: str) -> str:
    """A dimension without the mark that elements pick from it."""
    return dim[1:] if dim[0] == "~" else dim


def is_picked(dim: str) -> bool:
    """Whether each element picks one of a dimension."""
    return dim[0] == "~"


def window(axis: str) -> tuple[str, ...]:
    """The dimensions of an axis: the one that a window slides over to give, and the window's own; or one."""
    return tuple(axis.split("+"))


def joint(each: Iterable[tuple[str, ...]], sizes: Mapping[str, Size]) -> dict[str, Size]:
    """The sizes of those of tensors' axes that are several: `.` multiplies, `|` adds up."""
    axes = [several for dims in each for several in _joint(dims)]
    return {axis: sum([product([sizes[d] for d in part]) for part in parts]) for axis, parts in axes}


@lru_cache(maxsize=4096)
def _joint(dims: tuple[str, ...]) -> tuple[tuple[str, tuple[tuple[str, ...], ...]], ...]:
    axes = (axis for axis in dims if "." in axis or "|" in axis)
    return tuple((axis, tuple(tuple(part.split(".")) for part in axis.split("|"))) for axis in axes)


@lru_cache(maxsize=4096)
def letters(dims: tuple[str, ...]) -> frozenset[str]:
    """The letters of dimensions: a picked one with its mark and without, all of a window or a joint one."""
    return frozenset(
        d for axis in dims for d in (axis, base(axis), *window(axis), *axis.replace("|", ".").split("."))
    )


def picked(t: Tensor) -> str:
    """The dimension from which each element picks one; "" where there is none."""
    return _picked(t.dims)


@lru_cache(maxsize=4096)
def _picked(dims: tuple[str, ...]) -> str:
    return next((base(d) for d in dims if is_picked(d)), "")
