"""An encoder of sound: a spectrogram through two convolutions, and layers that see all of it (Whisper's).

Source: transformers.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..config import Settings, Workload, divides, setting
from ..errors import wrong
from ..ir import Model, Node, model, op
from ..size import Size, ceil_div, exact_div, floor_div, is_number, is_one, is_zero, or_else
from ._attention import Attention, rotary
from ._layers import ACTIVATION_DROPOUT, ATTENTION_DROPOUT, DROPOUT, dropout, norm, sized
from ._stacks import Layer, encoder

TAKES = ("batch", "sound")

FRAMES = 100  # a second, one for every 160 samples at 16 kHz. Source: transformers

ACTIVATIONS = ("gelu", "gelu_tanh", "gelu_new", "quick_gelu", "silu", "relu")


class Config(Settings):
    """The defaults are Whisper-large's encoder, as in Qwen2-Audio and Voxtral."""

    layers: int = setting(32, "layers")
    d_model: int = setting(1280, "width of the residual stream")
    heads: int = setting(20, "attention heads")
    kv_heads: int = setting(0, "key-value heads; 0: as many as heads", least=0)
    head_dim: int = setting(0, "width of a head; 0: d_model / heads", least=0)
    d_ff: int = setting(0, "hidden width of the MLPs; 0: 4 x d_model", least=0)
    mels: int = setting(128, "channels of the spectrogram")
    frames: int = setting(
        3000, "of a clip, two for each position; sound is cut into clips, the last one padded"
    )
    activation: str = setting("gelu", "of the MLPs", choices=ACTIVATIONS)
    positions: str = setting(
        "table", "how positions enter: a table that is not trained, or rotary", choices=("table", "rotary")
    )
    pool: int = setting(1, "positions that are averaged to one before the last norm (Qwen2-Audio: 2)")
    dropout: float = DROPOUT
    attention_dropout: float = ATTENTION_DROPOUT
    activation_dropout: float = ACTIVATION_DROPOUT

    def __post_init__(self) -> None:
        if is_zero(self.head_dim):
            divides("heads", self.heads, "d_model", self.d_model)
        divides("kv_heads", or_else(self.kv_heads, self.heads), "heads", self.heads)
        check_frames(self.frames)


def check_frames(frames: Size) -> None:
    """Raise an InputError for frames that are not whole positions of two frames."""
    if is_number(frames) and frames % 2:
        raise wrong("frames", frames, "even numbers")


def build(c: Config, w: Workload) -> Model:
    """Spectrograms [clips, mels, frames] to hidden states [clips, s, d]: a clip, or so many seconds."""
    clips, sound = w.batch, c.frames / FRAMES
    if not is_zero(w.sound):
        clips, sound = w.batch * ceil_div(w.sound * FRAMES, c.frames), w.sound
    sizes = shape(c, clips)
    tokens = clips * positions(c)
    return model("audio_encoder", c, w, encode(c, w.mode), sizes, samples=w.batch, tokens=tokens, sound=sound)


def shape(c: Config, clips: Size) -> dict[str, Size]:
    """The dimensions' sizes."""
    places, heads = exact_div(c.frames, 2), or_else(c.kv_heads, c.heads)
    return {
        "b": clips, "s": places, "t": places, "d": c.d_model, "h": heads, "r": exact_div(c.heads, heads),
        "k": or_else(c.head_dim, exact_div(c.d_model, c.heads)), "f": or_else(c.d_ff, 4 * c.d_model),
    }  # fmt: skip


def positions(c: Config) -> Size:
    """Number of positions of a clip, behind the last norm."""
    return floor_div(exact_div(c.frames, 2), c.pool)


def encode(c: Config, mode: str, x: str = "x", name: str = "") -> Iterator[Node]:
    """From `mel: b c frames` to `x: b s d`. name: the prefix of the operators' names."""
    places = exact_div(c.frames, 2)
    wide: dict[str, Size] = {"c": c.mels, "y": c.frames, "y+l": c.frames, "l": 3}
    half: dict[str, Size] = {"c": c.d_model, "y": places, "y+l": c.frames, "l": 3}
    yield op(f"{name}conv1", f"!mel: b c y+l, *d c l, +*d -> {x}: b d y", **wide)
    yield op(f"{name}gelu1", f"{x}: b d y -> {x}:", "gelu", **wide)
    yield op(f"{name}conv2", f"{x}: b c y+l, *d c l, +*d -> {x}: b d y", **half)
    yield op(f"{name}gelu2", f"{x}: b d y -> {x}:", "gelu", **half)
    if c.positions == "rotary":
        yield op(f"{name}tokens", f"{x}: b d y -> {x}: b s d", "view", **half)
        yield rotary()
    else:
        line = "!frames/int64: s, *~y d -> sinusoids: s d"
        yield op(f"{name}sinusoids", line, "frozen_gather", y=places)
        yield op(f"{name}positions", f"{x}: b s d, sinusoids: s d -> {x}: b s d", "add")
    yield from dropout(f"{name}positions", c.dropout, mode, x)
    yield encoder(f"{name}layers", layer(c, mode), c.layers, x=x)
    if is_one(c.pool):
        yield norm(f"{name}norm", "layer_norm", x, x)
        return
    pooled: dict[str, Size] = {"y": positions(c), "y+i": places, "i": c.pool}
    yield op(f"{name}pool.time", f"{x}: b s d -> {x}: b d y+i", "view", **pooled)
    yield op(f"{name}pool", f"{x}: b d y+i -> {x}: b d y", "avg_pool", **pooled)
    last: dict[str, Size] = {"s": positions(c)}
    yield op(f"{name}pool.tokens", f"{x}: b d y -> {x}: b s d", "view", **last, **pooled)
    yield from sized([norm(f"{name}norm", "layer_norm", x, x)], **last)


def layer(c: Config, mode: str) -> Layer:
    """A layer; Whisper's keys have no bias, and its decoder's layers are the same."""
    train = mode == "train"
    a = Attention(key_bias=False, dropout=train and c.attention_dropout > 0)
    if c.positions == "rotary":
        shared = exact_div(c.heads, or_else(c.kv_heads, c.heads))
        a = a._replace(rope=True, rope_part=True, heads_per_key=shared, causal=False)
    else:
        a = a._replace(scale=False, scale_q=True, heads_first=True, upcast=False)
    if not train:
        return Layer(a, c.activation)
    return Layer(a, c.activation, dropout=c.dropout, inner_dropout=c.activation_dropout)
