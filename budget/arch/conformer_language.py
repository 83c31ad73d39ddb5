"""A transformer behind a conformer, whose windows a Q-Former turns into tokens (Granite Speech)."""

from __future__ import annotations

from ..config import Workload, part, setting
from ..ir import Model, block, op
from ..size import ceil_div
from . import _qformer, block_conformer, transformer
from ._before import before, transformer_behind
from ._layers import sized

TAKES = ("batch", "seq", "sound")
MODES = transformer.MODES


class Config(transformer.Config, _qformer.Queried, tower=block_conformer.Config):
    """The decoder's fields are those of a transformer, the tower's those of a conformer."""

    qformer_layers: int = setting(2, "layers of the Q-Former")
    qformer_tokens: int = setting(3, "its queries, which stand for a window")
    qformer_window: int = setting(15, "positions of the conformer that they attend to")

    def __post_init__(self) -> None:
        super().__post_init__()
        _qformer.check(self)
        part(self, "tower")


def build(c: Config, w: Workload) -> Model:
    """Features [b, n, c] and tokens [b, words] to logits [b, s, v]; s has the sound's tokens, too."""
    tower = part(c, "tower")
    s = block_conformer.positions(w.sound)
    windows = ceil_div(s, c.qformer_window)
    n = windows * c.qformer_tokens
    sizes = block_conformer.shape(tower, w.batch, s)
    cut = {"p": windows * c.qformer_window, "u": windows, "n": c.qformer_window, "m": tower.d_model}
    nodes = (
        block("tower", sized(block_conformer.encode(tower, w.mode, w.batch, s), **sizes), 1),
        *sized(
            (
                op("windows.pad", "x: b s d -> x: b p d", "zero_pad"),
                op("windows", "x: b p d -> z: b.u n m", "view"),
            ),
            **sizes,
            **cut,
        ),
        *_qformer.queried(c, w.mode, w.batch * windows, c.qformer_window, tower.d_model, alone=True),
        op(
            "projector.tokens", "z: b.u q m -> z: b n m", "view",
            u=windows, q=c.qformer_tokens, m=c.qformer_d_model, b=w.batch, n=n,
        ),
        op(
            "projector", "z: b n m, *m d, +*d -> heard: b n d",
            m=c.qformer_d_model, b=w.batch, n=n, d=c.d_model,
        ),
    )  # fmt: skip
    heard = before(w, "sound", nodes, n, "heard", "audio tower")
    return transformer_behind("conformer_language", c, w, "sound", heard)
