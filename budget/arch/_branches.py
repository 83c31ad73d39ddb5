"""Rows of convolutions, of which GoogLeNet and Inception-v3 run several side by side."""

from __future__ import annotations

from ._conv import Each, Features, Piece, conv_norm

Layer = tuple[int, Each] | tuple[int, Each, int]  # channels, kernel, and a stride: then unpadded


def chain(name: str, x: Features, *layers: Layer) -> Piece:
    """Convolutions behind one another, each with its batch norm and its relu."""
    for i, (f, kernel, *stride) in enumerate(layers):
        window = (stride[0], 0) if stride else (1, None)
        x = yield from conv_norm(f"{name}.{i}", x, f, kernel, *window, act="relu_")
    return x
