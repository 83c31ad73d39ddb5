"""An encoder of sound in chunks: three strided convolutions on each, and layers that attend within windows of
several chunks (Qwen3-ASR's). Source: transformers.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..config import Settings, Workload, divides, setting
from ..ir import Model, Node, model, op
from ..size import Size, ceil_div, exact_div, floor_div, is_zero, or_else
from ._attention import Attention
from ._layers import ACTIVATIONS, norm, sized
from ._stacks import Layer, encoder
from .audio_encoder import FRAMES

TAKES = ("batch", "sound")

SECONDS = 30


class Config(Settings):
    """That of Qwen3-ASR 1.7B."""

    layers: int = setting(24, "layers")
    d_model: int = setting(1024, "width of the residual stream")
    heads: int = setting(16, "attention heads")
    d_ff: int = setting(4096, "hidden width of the MLPs")
    activation: str = setting("gelu", "of the MLPs", choices=ACTIVATIONS)
    mels: int = setting(128, "channels of the spectrogram")
    chunk: int = setting(100, "frames of a chunk")
    chunks: int = setting(8, "chunks of a window")
    channels: int = setting(480, "of the convolutions")

    def __post_init__(self) -> None:
        divides("heads", self.heads, "d_model", self.d_model)


def build(c: Config, w: Workload) -> Model:
    """Spectrograms [chunks, 1, mels, frames] of so many seconds to hidden states [b, s, d]."""
    w = w._replace(sound=or_else(w.sound, SECONDS))
    s = positions(c, w.sound)
    nodes = sized(encode(c, w), **shape(c, w))
    return model("chunk_encoder", c, w, nodes, {}, samples=w.batch, tokens=w.batch * s, sound=w.sound)


def positions(c: Config, sound: Size) -> Size:
    """Of so many seconds: those of whole chunks, and of what is left."""
    frames = sound * FRAMES
    whole = floor_div(frames, c.chunk)
    return whole * strided(c.chunk) + strided(frames - whole * c.chunk)


def strided(extent: Size) -> Size:
    """What three padded convolutions of stride 2 leave."""
    for _ in range(3):
        extent = ceil_div(extent, 2)
    return extent


def shape(c: Config, w: Workload) -> dict[str, Size]:
    """The dimensions' sizes."""
    s = positions(c, w.sound)
    return {
        "b": w.batch, "s": s, "t": s, "d": c.d_model, "h": c.heads, "r": 1,
        "k": exact_div(c.d_model, c.heads), "f": c.d_ff,
    }  # fmt: skip


def encode(c: Config, w: Workload) -> Iterator[Node]:
    """From `mel: b c y+i x+j`, a chunk each, to `x: b s d`."""
    several, long = ceil_div(w.sound * FRAMES, c.chunk), strided(c.chunk)
    chunks = w.batch * several
    x, channels, high, wide = "!mel", 1, c.mels, c.chunk
    for i in (1, 2, 3):
        y, across = ceil_div(high, 2), ceil_div(wide, 2)
        sizes: dict[str, Size] = {
            "b": chunks, "c": channels, "d": c.channels, "y+i": high, "x+j": wide, "y": y, "x": across,
            "i": 3, "j": 3,
        }  # fmt: skip
        yield op(f"conv{i}", f"{x}: b c y+i x+j, *d c i j, +*d -> x: b d y x", **sizes)
        yield op(f"gelu{i}", "x: b d y x -> x:", "gelu", **sizes)
        x, channels, high, wide = "x", c.channels, y, across
    sizes |= {"n": long, "c": c.channels * high}
    yield op("flatten", "x: b d y x -> x: b n c", "copy", **sizes)
    each: dict[str, Size] = {"b": chunks, "n": long, "c": c.channels * high}
    yield op("conv_out", "x: b n c, *c d -> x: b n d", **each)
    yield op("positions", "x: b n d, !places: n d -> x: b n d", "add", **each)
    yield op("valid", "x: b.u n d -> x: b s d", "slice", u=several, n=long)
    a = Attention(causal=False, windows=_windows(c, w))
    yield encoder("layers", Layer(a, c.activation), c.layers)
    yield norm("norm", "layer_norm", "x", "x")


def _windows(c: Config, w: Workload) -> tuple[tuple[Size, Size, Size], ...]:
    """Windows and their positions: whole ones, and what is left."""
    long, s = c.chunks * strided(c.chunk), positions(c, w.sound)
    whole = floor_div(s, long)
    found = (whole, long), (1, s - whole * long)
    return tuple((n, n * w.batch, tokens) for n, tokens in found if not is_zero(n * tokens))
