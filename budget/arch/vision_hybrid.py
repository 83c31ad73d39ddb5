"""A hybrid with a tower of images: a picture's tokens stand among those of the text (Qwen3.5)."""

from __future__ import annotations

from ..config import Workload
from ..ir import Model, model
from ..size import or_else
from . import hybrid
from ._sight import Sight, see, shallow

TAKES = ("batch", "seq", "image")
MODES = hybrid.MODES


class Config(hybrid.Config, Sight):
    """The decoder's fields are those of a hybrid, the tower's those of a vision transformer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        shallow(self, "a hybrid")


def build(c: Config, w: Workload) -> Model:
    """A picture [b, c, y, x] and tokens [b, words] to logits [b, s, v]; s has the picture's tokens, too."""
    seen = see(c, w, c.layers, c.d_model)
    seq = or_else(w.seq, hybrid.SEQ - seen.tokens) + seen.tokens
    s = 1 if w.mode == "decode" else seq
    nodes = (*seen.nodes, *hybrid.embedding(c), *seen.place, *hybrid.behind_embedding(c, w.mode, s))
    return model(
        "vision_hybrid", c, w, nodes, hybrid.shape(c, w, seq), samples=w.batch, tokens=w.batch * s, seq=seq,
        uncounted=seen.uncounted,
    )  # fmt: skip
