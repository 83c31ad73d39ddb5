"""A transformer with a tower of sound, whose output takes the place of as many tokens of the text."""

from __future__ import annotations

from ..config import Workload
from ..ir import Model
from . import transformer
from ._before import transformer_behind
from ._hearing import Hearing, hear

TAKES = ("batch", "seq", "sound")
MODES = transformer.MODES


class Config(transformer.Config, Hearing):
    """The decoder's fields are those of a transformer, the tower's those of an encoder of sound."""


def build(c: Config, w: Workload) -> Model:
    """Spectrograms [clips, mels, frames] and tokens [b, words] to logits [b, s, v]; s has sound's, too."""
    return transformer_behind("audio_language", c, w, "sound", hear(c, w, c.d_model))
