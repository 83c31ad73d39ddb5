"""A transformer with SAM's encoder before it, whose output is halved twice (GOT-OCR 2.0)."""

from __future__ import annotations

from collections.abc import Iterator

from ..config import Workload, part
from ..ir import Model, Node, block, op
from ..size import ceil_div, is_zero
from . import sam, transformer
from ._before import Before, before, transformer_behind
from ._layers import sized
from ._sight import UNSEEN

TAKES = ("batch", "seq", "image")
MODES = transformer.MODES


class Config(transformer.Config, tower=sam.Config):
    """The decoder's fields are those of a transformer, the tower's those of SAM's encoder."""


def build(c: Config, w: Workload) -> Model:
    """A picture [b, c, y, x] and tokens [b, words] to logits [b, s, v]; s has the picture's tokens, too."""
    return transformer_behind("sam_language", c, w, "image", _see(c, w))


def _see(c: Config, w: Workload) -> Before:
    tower = part(c, "tower")
    sam.check_image(tower, w)
    across = ceil_div(ceil_div(sam.patches(tower), 2), 2)
    n = across * across
    sizes = {**sam.shape(tower, w.batch), "n": n}
    eyes = (
        block("tower", sized(sam.encode(tower, w), **sizes), 1),
        *sized(_projector(c, tower), **{**sizes, "d": c.d_model, "m": c.d_model}),
    )
    return before(w, "image", eyes, 0 if is_zero(w.image) else n, "pictures", UNSEEN)


def _projector(c: Config, tower: sam.Config) -> Iterator[Node]:
    """From the tower's features to `pictures: b n d`."""
    x = yield from sam.halved("projector.halved", sam.features(tower), 2 * tower.neck, c.d_model)
    yield op("projector.flatten", f"{x.name}: {x.dims} -> z: b n c", "view", **x.sizes)
    yield op("projector", "z: b n m, *m d, +*d -> pictures: b n d")
