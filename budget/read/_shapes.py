"""Inputs of torch modules that are given by their sizes, and the dtypes that a module may be cast to."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import InputError, wrong
from ..named import Any, NamedTuple

CASTS = ("float64", "float32", "tf32", "bfloat16", "float16")


class Shape(NamedTuple):
    """An input's sizes and its dtype ("": the module's own)."""

    sizes: tuple[int, ...]
    dtype: str = ""


def sized(inputs: Any) -> Any:
    """Inputs that are given as sizes, one or a list or dict of them, as Shapes; None for others.

    `8x128`, `int64:8x128`, (8, 128), ("int64", 8, 128). Raises InputError for text that is none of these.
    """
    if isinstance(inputs, str):
        dtype, _, sizes = inputs.rpartition(":")
        parts = sizes.split("x")
        if not all(part.isascii() and part.isdigit() and int(part) for part in parts) or ":" in dtype:
            raise InputError("inputs", f"got {inputs[:60]!r}; allowed: sizes as 8x3x224x224 or int64:8x128")
        return Shape(tuple(map(int, parts)), dtype)
    if isinstance(inputs, Mapping):
        named = {name: sized(x) for name, x in inputs.items()}
        return named if named and None not in named.values() else None
    if not isinstance(inputs, tuple | list) or not inputs:
        return None
    dtype, *rest = inputs if isinstance(inputs[0], str) else ("", *inputs)
    if rest and all(isinstance(n, int) and not isinstance(n, bool) for n in rest):
        if min(rest) < 1:
            raise wrong("inputs", inputs, "sizes of 1 or more")
        return Shape(tuple(rest), dtype)
    shapes = [sized(x) for x in inputs]
    return shapes if None not in shapes else None
