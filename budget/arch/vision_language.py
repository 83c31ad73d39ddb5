"""A transformer that sees: what a tower makes of a picture takes the place of as many tokens of the text."""

from __future__ import annotations

from ..config import Workload, at_most
from ..ir import Model, model
from ..size import is_zero, or_else
from . import transformer
from ._heads import ends
from ._sight import Sight, see

TAKES = ("batch", "seq", "image")
MODES = transformer.MODES


class Config(transformer.Config, Sight):
    """The decoder's fields are those of a transformer, the tower's those of a vision transformer."""


def build(c: Config, w: Workload) -> Model:
    """A picture [b, c, y, x] and tokens [b, words] to logits [b, s, v]; s has the picture's tokens, too."""
    seen = see(c, w, c.layers, c.d_model)
    longest = transformer.length(c, w._replace(seq=0))
    if not is_zero(w.image):
        at_most("image", seen.tokens + 1, "context, in tokens", longest)
    words = or_else(w.seq, longest - seen.tokens)
    seq = transformer.length(c, w._replace(seq=words + seen.tokens))
    nodes = (
        *seen.eyes,
        *transformer.embedding(c, w.mode),
        *seen.place,
        *transformer.behind_embedding(c, w.mode, seq, seen.deep),
    )
    tokens = w.batch * (1 if w.mode == "decode" else seq)
    return model(
        "vision_language", c, w, nodes, transformer.shape(c, w, seq), samples=w.batch, tokens=tokens,
        outputs=ends(c, w.mode), uncounted=seen.uncounted,
    )  # fmt: skip
