"""The part of Janus that draws images as tokens of a codebook: a VQGAN and its ends, stored beside a model
that reads.

No text reaches it. Its weights are those of an encoder to the codebook, of the codebook, of a decoder from
it, of an embedding for an image's tokens, and of a head that scores the next one. Source: transformers.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..config import Settings, setting
from ..errors import wrong
from ..ir import Op, op
from ..size import Size, any_of

GROUPS = 32  # of each group norm. Source: transformers


class ImageTokens(Settings):
    """The codebook, the networks around it, and the layers between it and the decoder of text."""

    draw_channels: int = setting(128, "channels that VQGAN's levels have multiples of, divisible by 32")
    draw_levels: tuple[int, ...] = setting((1, 1, 2, 2, 4), "the multiples, from the largest level")
    draw_blocks: int = setting(2, "blocks of a level, one more in the decoder")
    draw_latent: int = setting(256, "channels between VQGAN's networks and its codebook")
    draw_doubled: bool = setting(False, "the encoder makes twice as many")
    draw_codes: int = setting(16384, "vectors of the codebook, which are tokens of an image")
    draw_code: int = setting(8, "their width")
    draw_inputs: int = setting(3, "channels of the image that is read")
    draw_outputs: int = setting(3, "channels of the image that is drawn")
    draw_width: int = setting(2048, "width of what a token of an image becomes")
    draw_layers: int = setting(2, "linear layers that make it")
    draw_read: int = setting(2048, "width of what its scores are made from")

    def __post_init__(self) -> None:
        super().__post_init__()
        if any_of(self.draw_channels % GROUPS != 0):
            raise wrong("draw_channels", self.draw_channels, f"multiples of {GROUPS}")


def image_tokens(c: ImageTokens) -> Iterator[Op]:
    """All of its weights, which are stored and do not run."""
    yield from _encoder(c)
    yield from _decoder(c)
    yield _weights("draw.codebook", "n k", n=c.draw_codes, k=c.draw_code)
    yield from _conv("draw.to_code", c.draw_latent, c.draw_code, 1)
    yield from _conv("draw.from_code", c.draw_code, c.draw_latent, 1)
    yield _weights("draw.embedding", "n k", n=c.draw_codes, k=c.draw_code)
    yield from _linear("draw.in0", c.draw_code, c.draw_width)
    for i in range(1, c.draw_layers):
        yield from _linear(f"draw.in{i}", c.draw_width, c.draw_width)
    yield from _linear("draw.out", c.draw_read, c.draw_width)
    yield from _linear("draw.head", c.draw_width, c.draw_codes)


def _encoder(c: ImageTokens) -> Iterator[Op]:
    name, base, last = "draw.encoder", c.draw_channels, len(c.draw_levels) - 1
    yield from _conv(f"{name}.in", c.draw_inputs, base, 3)
    before = 1
    for i, times in enumerate(c.draw_levels):
        yield from _level(c, f"{name}.{i}", before, times, c.draw_blocks, attends=i == last)
        if i < last:
            yield from _conv(f"{name}.{i}.down", base * times, base * times, 3)
        before = times
    yield from _middle(f"{name}.middle", base * before)
    yield from _ends(name, base * before, (1 + c.draw_doubled) * c.draw_latent)


def _decoder(c: ImageTokens) -> Iterator[Op]:
    name, base, before = "draw.decoder", c.draw_channels, c.draw_levels[-1]
    yield from _conv(f"{name}.in", c.draw_latent, base * before, 3)
    yield from _middle(f"{name}.middle", base * before)
    for i, times in reversed(tuple(enumerate(c.draw_levels))):
        last = i == len(c.draw_levels) - 1
        yield from _level(c, f"{name}.{i}", before, times, c.draw_blocks + 1, attends=last)
        if i:
            yield from _conv(f"{name}.{i}.up", base * times, base * times, 3)
        before = times
    yield from _ends(name, base * before, c.draw_outputs)


def _level(c: ImageTokens, name: str, before: int, times: int, blocks: int, *, attends: bool) -> Iterator[Op]:
    """Blocks from one multiple of the channels to another, each with attention or without."""
    for i in range(blocks):
        yield from _block(f"{name}.{i}", c.draw_channels, times if i else before, times)
        if attends:
            yield from _attention(f"{name}.{i}.attn", c.draw_channels * times)


def _middle(name: str, channels: Size) -> Iterator[Op]:
    yield from _block(f"{name}.0", channels, 1, 1)
    yield from _attention(f"{name}.attn", channels)
    yield from _block(f"{name}.1", channels, 1, 1)


def _ends(name: str, channels: Size, out: Size) -> Iterator[Op]:
    yield from _norm(f"{name}.norm", channels)
    yield from _conv(f"{name}.out", channels, out, 3)


def _block(name: str, base: Size, before: int, times: int) -> Iterator[Op]:
    """Two convolutions with their norms, beside one of single pixels where the channels change."""
    c, f = base * before, base * times
    yield from _norm(f"{name}.norm1", c)
    yield from _conv(f"{name}.conv1", c, f, 3)
    yield from _norm(f"{name}.norm2", f)
    yield from _conv(f"{name}.conv2", f, f, 3)
    if before != times:
        yield from _conv(f"{name}.shortcut", c, f, 1)


def _attention(name: str, channels: Size) -> Iterator[Op]:
    yield from _norm(f"{name}.norm", channels)
    for part in ("q", "k", "v", "o"):
        yield from _conv(f"{name}.{part}", channels, channels, 1)


def _conv(name: str, c: Size, f: Size, side: int) -> Iterator[Op]:
    yield _weights(name, "f c i j", c=c, f=f, i=side, j=side)
    yield _weights(f"{name}.bias", "f", f=f)


def _linear(name: str, c: Size, f: Size) -> Iterator[Op]:
    yield _weights(name, "f c", c=c, f=f)
    yield _weights(f"{name}.bias", "f", f=f)


def _norm(name: str, f: Size) -> Iterator[Op]:
    yield _weights(name, "f", f=f)
    yield _weights(f"{name}.bias", "f", f=f)


def _weights(name: str, dims: str, **sizes: Size) -> Op:
    return op(name, f"*{dims} -> {name}~stored: {dims}", "resident", **sizes)
