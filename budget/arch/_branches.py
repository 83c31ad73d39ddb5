"""Chains of convolutions, of which GoogLeNet and Inception-v3 run several in parallel."""

from __future__ import annotations

from ._conv import Each, Features, Piece, conv_norm

Layer = (
    tuple[int, Each] | tuple[int, Each, int]
)  # channels, kernel, and optionally a stride, which means no padding


def chain(name: str, x: Features, *layers: Layer) -> Piece:
    """Convolutions in sequence, each with batch norm and ReLU."""
    for i, (f, kernel, *stride) in enumerate(layers):
        window = (stride[0], 0) if stride else (1, None)
        x = yield from conv_norm(f"{name}.{i}", x, f, kernel, *window, act="relu_")
    return x
