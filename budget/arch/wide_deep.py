"""Wide & Deep: a linear model of crossed features beside a tower over embeddings.

Source: wide-deep (Cheng et al. 2016), figure 4; its feature sizes are not published, so the
default takes Criteo's.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..config import Settings, Workload, setting
from ..ir import EMBED, HEAD, LOSS, Model, Node, model, op
from ._tables import CRITEO_KAGGLE, tables, tower

TAKES = ("batch",)


class Config(Settings):
    """The paper's towers over Criteo's Kaggle features."""

    dense_features: int = setting(13, "numbers that describe a sample")
    tables: tuple[int, ...] = setting(CRITEO_KAGGLE, "rows of each embedding table, by commas")
    embedding_dim: int = setting(32, "width of the tables")
    wide_rows: int = setting(1_000_000, "crossed features that the linear part knows")
    crosses: int = setting(26, "crossed features of a sample")
    hidden: tuple[int, ...] = setting((1024, 512, 256), "hidden widths of the deep part")


def build(c: Config, w: Workload) -> Model:
    """Dense features, ids for each table and crossed features to a probability [b, 1]."""
    return model("wide_deep", c, w, _nodes(c, w), {"b": w.batch}, samples=w.batch)


def _nodes(c: Config, w: Workload) -> Iterator[Node]:
    d, n = c.embedding_dim, len(c.tables)
    width = n * d + c.dense_features
    yield from tables(c.tables, d, 1)
    embeddings = ", ".join(f"e{i}: b d" for i in range(n))
    yield op("deep.cat", f"{embeddings}, !dense: b c -> x: b f", "cat", c=c.dense_features, d=d, f=width)
    yield from tower("deep", "x", (width, *c.hidden, 1), "deep", last="", head=HEAD)
    yield op(
        "wide",
        "!crosses/int64: b l, *~v f, +*f -> wide: b f",
        "embedding_bag",
        EMBED,
        v=c.wide_rows,
        l=c.crosses,
        f=1,
    )
    yield op("sum", "deep: b f, wide: b f -> click: b f", "add", f=1)
    yield op("sigmoid", "click: -> click:", "sigmoid", f=1)
    if w.mode == "train":
        yield op("loss", "click: -> loss: 1", "binary_cross_entropy", LOSS)
