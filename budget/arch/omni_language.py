"""A transformer that sees and hears: towers of images and of sound in chunks (Qwen2.5-Omni's thinker)."""

from __future__ import annotations

from ..config import Workload, part, setting
from ..ir import Model, op
from ..size import is_zero
from . import transformer, vision_language
from ._before import Before, transformer_behind
from ._chunks import Chunks, hear
from ._sight import see

TAKES = ("batch", "seq", "image", "sound")
MODES = transformer.MODES


class Config(vision_language.Config, sound=Chunks):
    """The fields of a transformer with a tower of images; those of sound have a part of their own."""

    sound_ends: int = setting(0, "stored vectors for the ends of sound, that no pass reads", least=0)


def build(c: Config, w: Workload) -> Model:
    """A picture, spectrograms and tokens [b, words] to logits [b, s, v]; s has the tokens of all three."""
    seen, heard = see(c, w, c.layers, c.d_model), hear(part(c, "sound"), w, c.d_model, "sound_")
    ends = () if is_zero(c.sound_ends) else (
        op("sound_ends", "*u d -> ends~stored: u d", "resident", u=c.sound_ends, d=c.d_model),
    )  # fmt: skip
    both = Before(
        seen.tokens + heard.tokens,
        (*ends, *heard.nodes, *seen.nodes),
        (*(o._replace(name="place_sound") for o in heard.place), *seen.place),
        seen.deep,
        (*seen.uncounted, *heard.uncounted),
    )
    return transformer_behind("omni_language", c, w, "sound" if is_zero(w.image) else "image", both)
