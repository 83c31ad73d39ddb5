"""New pages: memory that a processor's C library asks the system for again in each step.

Its tensors come from malloc, which keeps what is freed for the next one. From MAPPED bytes on it maps and
unmaps them instead, and whoever writes to one first waits for each of its pages: a copy of 40 MB takes six
times as long as its bytes do. The gradients are freed together between two steps, and malloc returns such a
part of its heap, too. Source: mallopt.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..dtype import BYTES
from ..ir import ACTIVATION, TEMPORARY, Model, Op, elements
from ..named import NamedTuple
from ..size import Size, maximum, minimum
from .count import training

MAPPED = 32 * 2**20  # bytes: the most to which the C library's threshold grows by itself. Source: mallopt
# Tensors of a weight's size that an optimizer's step makes: roots, quotients, means. Source: torch-optim
STEPS = {"adam": 2, "adamw": 2, "adagrad": 1, "rmsprop": 1}


class Loop(NamedTuple):
    """What an optimizer goes through on a processor, one weight after the other."""

    weights: Size = 0
    bytes: Size = 0  # of all
    mapped: Size = 0  # bytes of those that are so large that what is made of their size is mapped

    def new(self, optimizer: str) -> Size:
        """Bytes of gradients, and of what an optimizer's step makes, on pages that are new."""
        return self.bytes + STEPS.get(optimizer, 0) * self.mapped


def loop(model: Model, dtype: str) -> Loop:
    """The weights of a model that train."""
    sizes = [(elements(t, o.sizes) * BYTES[t.dtype or dtype], n) for t, o, n in training(model)]
    return Loop(
        sum([n for _, n in sizes]),
        sum([size * n for size, n in sizes]),
        sum([mapped(size) * n for size, n in sizes]),
    )


def mapped(size: Size) -> Size:
    """The bytes of a tensor if it is so large that it is mapped, else 0."""
    return size * minimum(maximum(size - MAPPED + 1, 0), 1)


def anew(ops: Sequence[Op], dtype: str, kernels: int) -> tuple[Size, ...]:
    """Bytes of each activation that an operator of eager code makes. kernels: that it starts, each of which
    makes one.
    """
    makers = [o for o in ops if not (o.rule.view or o.rule.inplace or o.rule.updates)]
    made = [
        elements(t, o.sizes) * BYTES[t.dtype or dtype]
        for o in makers
        for t in o.outs
        if t.role == ACTIVATION and t.part != TEMPORARY and not t.on_chip
    ]
    return tuple(made * kernels)
