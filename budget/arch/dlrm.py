"""Deep learning recommendation model: embedding tables, two towers, and dot products between them.

Source: dlrm (Naumov et al. 2019), as its reference repository writes it.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..config import Settings, Workload, setting
from ..ir import HEAD, LOSS, Model, Node, model, op
from ._tables import CRITEO_KAGGLE, tables, tower

TAKES = ("batch",)


class Config(Settings):
    """The repository's model for Criteo's Kaggle data."""

    dense_features: int = setting(13, "numbers that describe a sample")
    tables: tuple[int, ...] = setting(CRITEO_KAGGLE, "rows of each embedding table, by commas")
    embedding_dim: int = setting(16, "width of the tables and of the bottom tower's output")
    lookups: int = setting(1, "rows of each table that a sample adds up")
    bottom: tuple[int, ...] = setting((512, 256, 64), "hidden widths of the tower of dense features")
    top: tuple[int, ...] = setting((512, 256), "hidden widths of the tower behind the dot products")


def build(c: Config, w: Workload) -> Model:
    """Dense features [b, c] and a row of ids for each table to a click's probability [b, 1]."""
    return model("dlrm", c, w, _nodes(c, w), {"b": w.batch}, samples=w.batch)


def _nodes(c: Config, w: Workload) -> Iterator[Node]:
    d, n = c.embedding_dim, len(c.tables) + 1
    yield from tower("bottom", "!dense", (c.dense_features, *c.bottom, d), "x")
    yield from tables(c.tables, d, c.lookups)
    features = ", ".join(["x: b d", *(f"e{i}: b d" for i in range(n - 1))])
    pairs = n * (n - 1) // 2
    yield op("interact.stack", f"{features} -> rows: b c d", "cat", c=n, d=d)
    yield op("interact.dots", "rows: b c d, rows: b t d -> dots: b c t", c=n, t=n, d=d)
    yield op("interact.triangle", "dots: b c t -> dots: b f", "copy", c=n, t=n, f=pairs)
    yield op("interact.cat", "x: b d, dots: b f -> z: b c", "cat", d=d, f=pairs, c=d + pairs)
    yield from tower("top", "z", (d + pairs, *c.top, 1), "click", last="sigmoid", head=HEAD)
    if w.mode == "train":
        yield op("loss", "click: -> loss: 1", "binary_cross_entropy", LOSS)
