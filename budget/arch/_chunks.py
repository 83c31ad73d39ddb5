"""A tower of sound in chunks and a projector of its output, before a decoder."""

from __future__ import annotations

from ..config import Workload, part
from ..ir import block, op
from ..size import Size
from . import _projector, chunk_encoder
from ._before import Before, before
from ._layers import sized


class Chunks(_projector.Projected, tower=chunk_encoder.Config):
    """The tower's fields are those of an encoder of chunks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _projector.check(self)
        part(self, "tower")


def hear(c: Chunks, w: Workload, width: Size, name: str = "") -> Before:
    """The tower and the projector. width: the decoder's. name: the prefix of the operators' names."""
    tower = part(c, "tower")
    sizes = chunk_encoder.shape(tower, w)
    n = chunk_encoder.positions(tower, w.sound)
    last = {
        **sizes, "n": n, "m": tower.d_model, "d": width, "f": c.projector_width, "g": c.projector_width,
    }  # fmt: skip
    nodes = (
        block(f"{name}tower", sized(chunk_encoder.encode(tower, w), **sizes), 1),
        op(f"{name}tokens", "x: b s m -> z: b n m", "view", s=n, b=w.batch, n=n, m=tower.d_model),
        *sized(_projector.project(c, f"{name}projector", "z", "heard", c.projector_norm), **last),
    )
    return before(w, "sound", nodes, n, "heard", "audio tower")
