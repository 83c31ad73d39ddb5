"""A transformer of pictures without a tower: a patch is projected to a token (Fuyu). Source: transformers."""

from __future__ import annotations

from ..config import Workload, setting
from ..errors import wrong
from ..ir import Model, op
from ..size import any_of, floor_div
from . import transformer
from ._before import before, transformer_behind

TAKES = ("batch", "seq", "image")
MODES = transformer.MODES


class Config(transformer.Config):
    """The fields are those of a transformer, and its patches'."""

    patch: int = setting(30, "side of a patch, in pixels")
    channels: int = setting(3, "channels of the picture")


def build(c: Config, w: Workload) -> Model:
    """Patches [b, n, c] and tokens [b, words] to logits [b, s, v]; s has the patches, too."""
    if any_of(w.image % c.patch != 0):
        raise wrong("image", w.image, f"multiples of a patch, {c.patch}")
    across, wide = floor_div(w.image, c.patch), c.channels * c.patch**2
    n = across * across
    nodes = (
        op(
            "patches", "!patches: b n c, *c d, +*d -> pictures: b n d",
            b=w.batch, n=n, c=wide, d=c.d_model,
        ),
    )  # fmt: skip
    seen = before(w, "image", nodes, n, "pictures", "layer that embeds patches")
    return transformer_behind("patch_language", c, w, "image", seen)
