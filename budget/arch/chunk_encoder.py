"""An encoder of sound in chunks: strided convolutions on each, and layers that attend within windows of
several chunks (Qwen3-ASR's, and that of Qwen2.5-Omni). Source: transformers.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..config import Settings, Workload, divides, setting
from ..ir import Model, Node, model, op
from ..size import Size, ceil_div, exact_div, floor_div, is_zero, minimum, or_else
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
    pairs: bool = setting(
        False,
        "two convolutions along time, one of them strided, in the place of three along both axes; "
        "keys have no bias, and positions are averaged in pairs behind the layers (Qwen2.5-Omni)",
    )

    def __post_init__(self) -> None:
        divides("heads", self.heads, "d_model", self.d_model)


def build(c: Config, w: Workload) -> Model:
    """Spectrograms [chunks, 1, mels, frames] of so many seconds to hidden states [b, s, d]."""
    w = w._replace(sound=or_else(w.sound, SECONDS))
    s = positions(c, w.sound)
    nodes = sized(encode(c, w), **shape(c, w))
    return model("chunk_encoder", c, w, nodes, {}, samples=w.batch, tokens=w.batch * s, sound=w.sound)


def positions(c: Config, sound: Size) -> Size:
    """How many positions the encoder makes of so many seconds."""
    s = inside(c, sound)
    return floor_div(s, 2) if c.pairs else s


def inside(c: Config, sound: Size) -> Size:
    """The positions of the whole chunks in so many seconds, and of the rest."""
    frames = sound * FRAMES
    whole = floor_div(frames, c.chunk)
    return whole * _strided(c, c.chunk) + _strided(c, frames - whole * c.chunk)


def strided(extent: Size, times: int = 3) -> Size:
    """The length that so many padded convolutions of stride 2 leave."""
    for _ in range(times):
        extent = ceil_div(extent, 2)
    return extent


def _strided(c: Config, extent: Size) -> Size:
    return strided(extent, 1 if c.pairs else 3)


def shape(c: Config, w: Workload) -> dict[str, Size]:
    """The dimensions' sizes."""
    s = inside(c, w.sound)
    return {
        "b": w.batch, "s": s, "t": s, "d": c.d_model, "h": c.heads, "r": 1,
        "k": exact_div(c.d_model, c.heads), "f": c.d_ff,
    }  # fmt: skip


def encode(c: Config, w: Workload) -> Iterator[Node]:
    """From `mel`, a chunk each, to `x: b s d`."""
    several = ceil_div(w.sound * FRAMES, c.chunk)
    wide = minimum(c.chunk, w.sound * FRAMES)  # of chunks, padded to the longest one
    chunks, long = w.batch * several, _strided(c, wide)
    yield from _along_time(c, chunks, wide) if c.pairs else _along_both(c, chunks, wide)
    each: dict[str, Size] = {"b": chunks, "n": long}
    yield op("positions", "x: b n d, !places: n d -> x: b n d", "add", **each)
    yield op("valid", "x: b.u n d -> x: b s d", "slice", u=several, n=long)
    a = Attention(causal=False, key_bias=not c.pairs, windows=_windows(c, w))
    yield encoder("layers", Layer(a, c.activation), c.layers)
    last: dict[str, Size] = {}
    if c.pairs:
        last = {"s": positions(c, w.sound)}
        halves = {"y": last["s"], "y+i": inside(c, w.sound), "i": 2}
        yield op("pairs", "x: b y+i d -> x: b y d", "avg_pool", **halves)
        yield op("paired", "x: b y d -> x: b s d", "view", **halves, **last)
    yield from sized([norm("norm", "layer_norm", "x", "x")], **last)


def _along_both(c: Config, chunks: Size, wide: Size) -> Iterator[Node]:
    """Three convolutions of `mel: b c y+i x+j`, and a layer, to `x: b n d`."""
    x, channels, high = "!mel", 1, c.mels
    for i in (1, 2, 3):
        y, across = ceil_div(high, 2), ceil_div(wide, 2)
        sizes: dict[str, Size] = {
            "b": chunks, "c": channels, "d": c.channels, "y+i": high, "x+j": wide, "y": y, "x": across,
            "i": 3, "j": 3,
        }  # fmt: skip
        yield op(f"conv{i}", f"{x}: b c y+i x+j, *d c i j, +*d -> x: b d y x", **sizes)
        yield op(f"gelu{i}", "x: b d y x -> x:", "gelu", **sizes)
        x, channels, high, wide = "x", c.channels, y, across
    sizes |= {"n": wide, "c": c.channels * high}
    yield op("flatten", "x: b d y x -> x: b n c", "copy", **sizes)
    each: dict[str, Size] = {"b": chunks, "n": wide, "c": c.channels * high}
    yield op("conv_out", "x: b n c, *c d -> x: b n d", **each)


def _along_time(c: Config, chunks: Size, wide: Size) -> Iterator[Node]:
    """Two convolutions of `mel: b c y+l` to `x: b n d`."""
    whole: dict[str, Size] = {"b": chunks, "c": c.mels, "y": wide, "y+l": wide, "l": 3}
    half: dict[str, Size] = {**whole, "c": c.d_model, "y": ceil_div(wide, 2), "n": ceil_div(wide, 2)}
    yield op("conv1", "!mel: b c y+l, *d c l, +*d -> x: b d y", **whole)
    yield op("gelu1", "x: b d y -> x:", "gelu", **whole)
    yield op("valid1", "x: b d y, !heard: b y -> x: b d y", "mul", **whole)
    yield op("conv2", "x: b c y+l, *d c l, +*d -> x: b d y", **half)
    yield op("gelu2", "x: b d y -> x:", "gelu", **half)
    yield op("tokens", "x: b d y -> x: b n d", "view", **half)


def _windows(c: Config, w: Workload) -> tuple[tuple[Size, Size, Size], ...]:
    """Windows and their positions: whole windows, and the rest."""
    long, s = c.chunks * _strided(c, c.chunk), inside(c, w.sound)
    whole = floor_div(s, long)
    windows = (whole, long), (1, s - whole * long)
    return tuple((n, n * w.batch, tokens) for n, tokens in windows if not is_zero(n * tokens))
