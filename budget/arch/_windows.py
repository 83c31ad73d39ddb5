"""Attention within square windows, with a learned bias for each distance (Swin, MaxViT)."""

from __future__ import annotations

from collections.abc import Iterator

from ..ir import Op, op
from ..size import Size


def window_sizes(side: Size, d: Size, heads: Size) -> dict[str, Size]:
    """Sizes of attention over the side x side tokens of a window; p distances along both axes."""
    tokens = side * side
    inner = {"d": d, "h": heads, "r": 1, "k": d // heads}
    return {"s": tokens, "t": tokens, "p": (2 * side - 1) ** 2, **inner}


def relative_bias(name: str, table: str = "*") -> Iterator[Op]:
    """A bias for each distance and head, out of a table: to `relative: h r s t`."""
    yield op(f"{name}.relative", f"!index/int64: s t, {table}~p h -> relative: s t h", "gather")
    yield op(f"{name}.order", "relative: s t h -> relative: h r s t", "copy")
