"""A transformer with a tower of images, whose output takes the place of as many tokens of the text."""

from __future__ import annotations

from ..config import Workload
from ..ir import Model
from . import transformer
from ._before import transformer_behind
from ._sight import Sight, see

TAKES = ("batch", "seq", "image")
MODES = transformer.MODES


class Config(transformer.Config, Sight):
    """The decoder's fields are those of a transformer, the tower's those of a vision transformer."""


def build(c: Config, w: Workload) -> Model:
    """A picture [b, c, y, x] and tokens [b, words] to logits [b, s, v]; s has the picture's tokens, too."""
    return transformer_behind("vision_language", c, w, "image", see(c, w, c.layers, c.d_model))
