"""Gemma 4 with its tower of images: a picture's tokens stand among those of the text."""

from __future__ import annotations

from ..config import Workload
from ..ir import Model, model
from ..size import or_else
from . import gemma4
from ._sight import Sight, see, shallow

TAKES = ("batch", "seq", "image")
MODES = gemma4.MODES


class Config(gemma4.Config, Sight):
    """The decoder's fields are those of Gemma 4, the tower's those of a vision transformer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        shallow(self, "Gemma 4")


def build(c: Config, w: Workload) -> Model:
    """A picture [b, c, y, x] and tokens [b, words] to logits [b, s, v]; s has the picture's tokens, too."""
    seen = see(c, w, c.layers, c.d_model)
    seq = or_else(w.seq, gemma4.SEQ - seen.tokens) + seen.tokens
    nodes = (*seen.nodes, *gemma4.embedding(c), *seen.place, *gemma4.behind_embedding(c, w.mode, seq))
    return model(
        "vision_gemma4", c, w, nodes, gemma4.shape(c, w, seq), samples=w.batch,
        tokens=w.batch * (1 if w.mode == "decode" else seq), uncounted=seen.uncounted, seq=seq,
    )  # fmt: skip
