"""A transformer with a tower of sound in chunks, whose tokens stand before those of the text (Qwen3-ASR)."""

from __future__ import annotations

from ..config import Workload
from ..ir import Model
from . import transformer
from ._before import transformer_behind
from ._chunks import Chunks, hear

TAKES = ("batch", "seq", "sound")
MODES = transformer.MODES


class Config(transformer.Config, Chunks):
    """The decoder's fields are those of a transformer, the tower's those of an encoder of chunks."""


def build(c: Config, w: Workload) -> Model:
    """Spectrograms [chunks, 1, mels, frames] and tokens [b, words] to logits [b, s, v]; s has both."""
    return transformer_behind("chunk_language", c, w, "sound", hear(c, w, c.d_model))
