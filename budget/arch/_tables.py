"""What recommenders share: embedding tables and towers of linear layers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

from ..ir import EMBED, Node, op
from ..size import Size

# Rows of Criteo's 26 categorical features in its Kaggle data set. Source: dlrm-repository.
CRITEO_KAGGLE = (
    1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194, 27, 14992, 5461306,
    10, 5652, 2173, 4, 7046547, 18, 15, 286181, 105, 142572,
)  # fmt: skip


def tables(rows: Iterable[Size], width: Size, lookups: Size) -> Iterator[Node]:
    """One table a categorical feature: `lookups` rows of it are added up to `e0: b d`, `e1: b d`, ..."""
    for i, v in enumerate(rows):
        yield op(
            f"tables.{i}",
            f"!ids{i}/int64: b l, *~v d -> e{i}: b d",
            "embedding_bag",
            EMBED,
            v=v,
            d=width,
            l=lookups,
        )


def tower(
    name: str, x: str, widths: Iterable[Size], out: str, last: str = "relu", head: str = ""
) -> Iterator[Node]:
    """Linear layers from `x: b c` to `out: b f`, with ReLU between them and `last` ("": nothing) at the end.

    head: the last layer's tag.
    """
    steps = list(pairwise(widths))
    for i, (c, f) in enumerate(steps):
        yield op(
            f"{name}.linear{i}",
            f"{x}: b c, *c f, +*f -> {out}: b f",
            tag=head if i == len(steps) - 1 else "",
            c=c,
            f=f,
        )
        act = "relu" if i < len(steps) - 1 else last
        if act:
            yield op(f"{name}.{act}{i}", f"{out}: -> {out}:", act)
        x = out
