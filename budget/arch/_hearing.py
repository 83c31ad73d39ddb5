"""A tower of sound and a projector of its output, before a decoder.

Sound is cut into clips of the tower's length. The tower's output takes the place of as many tokens of the
text.
Source: transformers.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..config import Workload, at_most, part, setting
from ..ir import Node, block, op
from ..size import Size, ceil_div, floor_div
from . import _projector, audio_encoder
from ._before import Before, before
from ._layers import sized
from .audio_encoder import FRAMES


class Hearing(_projector.Projected, tower=audio_encoder.Config):
    """The tower of sound before a decoder: its fields are those of `audio_encoder`."""

    merge: int = setting(4, "positions of a clip, side by side one token (Voxtral: 4)")
    padding: bool = setting(False, "what fills a clip up is heard, too (Voxtral)")

    def __post_init__(self) -> None:
        super().__post_init__()
        _projector.check(self)
        at_most("merge", self.merge, "positions of a clip", audio_encoder.positions(part(self, "tower")))


def hear(c: Hearing, w: Workload, width: Size) -> Before:
    """The tower and the projector. width: the decoder's.

    Without sound, and where tokens are decoded, they are stored and do not run.
    """
    tower = part(c, "tower")
    frames = w.sound * FRAMES
    clips = ceil_div(frames, tower.frames)
    each = floor_div(audio_encoder.positions(tower), c.merge)
    n = clips * each if c.padding else _tokens(c, tower, frames)
    sizes = {**audio_encoder.shape(tower, w.batch * clips), "n": each, "m": tower.d_model * c.merge}
    nodes = (
        block("tower", sized(_tower(c, tower, w.mode), **sizes), 1),
        *sized(_projector.project(c, "projector", "z", "heard", c.projector_norm), **{
            **sizes, "d": width, "f": c.projector_width, "g": c.projector_width,
        }),
        op("clips", "heard: b.u n d -> heard: b p d", "slice", u=clips, n=each, p=n, b=w.batch),
    )  # fmt: skip
    return before(w, "sound", nodes, n, "heard", "audio tower")


def _tokens(c: Hearing, tower: audio_encoder.Config, frames: Size) -> Size:
    """Tokens for so many frames, without the padding of the last clip."""
    whole = floor_div(frames, tower.frames)
    return sum(
        clips * floor_div(ceil_div(length, 2), tower.pool * c.merge)
        for clips, length in ((whole, tower.frames), (1, frames - whole * tower.frames))
    )


def _tower(c: Hearing, tower: audio_encoder.Config, mode: str) -> Iterator[Node]:
    """From spectrograms to the projector's input, `z: b n m`."""
    yield from audio_encoder.encode(tower, mode)
    s = audio_encoder.positions(tower)
    yield op("merge", "x: b s d -> z: b n m", "view", s=s)
