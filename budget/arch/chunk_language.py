"""A transformer with a tower of sound in chunks, whose tokens stand before those of the text (Qwen3-ASR)."""

from __future__ import annotations

from ..config import Workload, part
from ..ir import Model, block, op
from . import _projector, chunk_encoder, transformer
from ._before import before, transformer_behind
from ._layers import sized

TAKES = ("batch", "seq", "sound")
MODES = transformer.MODES


class Config(transformer.Config, _projector.Projected, tower=chunk_encoder.Config):
    """The decoder's fields are those of a transformer, the tower's those of an encoder of chunks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _projector.check(self)
        part(self, "tower")


def build(c: Config, w: Workload) -> Model:
    """Spectrograms [chunks, 1, mels, frames] and tokens [b, words] to logits [b, s, v]; s has both."""
    tower = part(c, "tower")
    sizes = chunk_encoder.shape(tower, w)
    n = chunk_encoder.positions(tower, w.sound)
    projected = {"n": n, "m": tower.d_model, "d": c.d_model, "f": c.projector_width, "g": c.projector_width}
    last = {**sizes, **projected}
    nodes = (
        block("tower", sized(chunk_encoder.encode(tower, w), **sizes), 1),
        op("projector.tokens", "x: b s m -> z: b n m", "view", s=n, b=w.batch, n=n, m=tower.d_model),
        *sized(_projector.project(c, "projector", "z", "heard", c.projector_norm), **last),
    )
    heard = before(w, "sound", nodes, n, "heard", "audio tower")
    return transformer_behind("chunk_language", c, w, "sound", heard)
