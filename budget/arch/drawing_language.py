"""A transformer with a tower of images that also draws them, token by token (Janus); that part is stored."""

from __future__ import annotations

from ..config import Workload
from ..ir import Model
from . import vision_language
from ._before import transformer_behind
from ._sight import see
from ._vqgan import ImageTokens, image_tokens

TAKES = vision_language.TAKES
MODES = vision_language.MODES


class Config(vision_language.Config, ImageTokens):
    """The fields of a transformer with a tower of images, and those of the part that draws."""


def build(c: Config, w: Workload) -> Model:
    """A picture [b, c, y, x] and tokens [b, words] to logits [b, s, v]; s has the picture's tokens, too."""
    seen = see(c, w, c.layers, c.d_model)
    return transformer_behind(
        "drawing_language", c, w, "image", seen._replace(nodes=(*image_tokens(c), *seen.nodes))
    )
