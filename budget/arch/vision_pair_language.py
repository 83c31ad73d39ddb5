"""A transformer with two towers that see the same picture, each at its own size (DeepSeek-VL).

The second one is SAM's encoder, of which an early layer's features are added to the last one's. Source:
transformers.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..config import Workload, part
from ..errors import InputError, wrong
from ..ir import Model, Node, block, op
from ..size import any_of, floor_div, is_zero, or_else
from . import sam, transformer, vit
from ._before import Before, before, transformer_behind
from ._conv import Piece, resize
from ._layers import activate, sized
from ._sight import UNSEEN

TAKES = ("batch", "seq", "image")
MODES = transformer.MODES


class Config(transformer.Config, tower=vit.Config, fine=sam.Config):
    """The decoder's fields are those of a transformer, the towers' those of ViT and of SAM's encoder."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if any_of(self.d_model % 2 != 0):
            raise wrong("d_model", self.d_model, "even numbers")
        fine = part(self, "fine")
        if fine.full_layers[0] >= fine.layers:
            raise InputError(
                "fine_full_layers", f"got {fine.full_layers[0]}; allowed first: a layer's number"
            )


def build(c: Config, w: Workload) -> Model:
    """A picture [b, c, y, x] and tokens [b, words] to logits [b, s, v]; s has the picture's tokens, too."""
    return transformer_behind("vision_pair_language", c, w, "image", _see(c, w))


def _see(c: Config, w: Workload) -> Before:
    """Both towers and their projector; `image` is the size that the first one sees."""
    tower, fine = part(c, "tower"), part(c, "fine")
    if any_of(or_else(w.image, tower.image) != tower.image):
        raise wrong("image", w.image, f"as its positions, {tower.image}")
    across = floor_div(tower.image, tower.patch)
    looked = w._replace(image=tower.image)
    n = across * across
    d = c.d_model
    wide = {"b": w.batch, "n": n, "m": tower.d_model, "c": 4 * fine.neck, "e": d // 2, "f": d, "d": d}
    eyes = (
        block("tower", sized(_coarse(tower, looked), **vit.shape(tower, looked), n=n), 1),
        block("fine", sized(_fine(fine, w, across), **sam.shape(fine, w.batch), n=n), 1),
        *sized(_projector(), **wide),
    )
    return before(w, "image", eyes, 0 if is_zero(w.image) else n, "pictures", UNSEEN)


def _coarse(tower: vit.Config, w: Workload) -> Iterator[Node]:
    """The first tower: to `coarse: b n m`."""
    yield from vit.embedding(tower, w.mode)
    yield from vit.layers(tower, w, "layers", tower.layers)
    yield from vit.pooling(tower)
    yield op("coarse", "x: b s d -> coarse: b n m", "view", m=tower.d_model)


def _fine(c: sam.Config, w: Workload, across: int) -> Iterator[Node]:
    """The second: to `fine: b n c`."""
    read = c.full_layers[0] + 1
    yield from sam.embedding(c, "fine_image")
    yield from sam.layers(c, w, 0, read)
    yield op("early", "x: b s d -> early: b s d", "view")
    yield from sam.layers(c, w, read, c.layers - read)
    yield from sam.neck(c, "neck", "features")
    x = yield from _halved(c, "late", "features", across)
    yield op("early.read", "early: b s d -> x: b s d", "view")
    yield from sam.neck(c, "early_neck", "early_features")
    early = yield from _halved(c, "early", "early_features", across)
    yield op("early.weigh", f"{early.name}: {x.dims}, *u -> weighed: {x.dims}", "mul", **x.sizes, u=1)
    yield op("add", f"{x.name}: {x.dims}, weighed: {x.dims} -> sum: {x.dims}", "add", **x.sizes)
    yield op("flatten", f"sum: {x.dims} -> fine: b n c", "copy", **x.sizes)


def _halved(c: sam.Config, name: str, features: str, across: int) -> Piece:
    """Features as large as four times the first tower's, halved twice: both by the same convolutions."""
    x = sam.features(c, features)
    x = yield from resize("interpolate", f"{name}.resize", x, (4 * across, 4 * across))
    return (yield from sam.halved(f"{name}.halved", x, 2 * c.neck, 4 * c.neck, weight="halves"))


def _projector() -> Iterator[Node]:
    """From what both make to `pictures: b n d`."""
    yield op("projector.coarse", "coarse: b n m, *e m, +*e -> coarse: b n e")
    yield op("projector.fine", "fine: b n c, *e c, +*e -> fine: b n e")
    yield op("projector.join", "fine: b n e, coarse: b n e -> z: b n f", "cat")
    yield activate("projector.act", "gelu", "z", "z")
    yield op("projector", "z: b n f, *d f, +*d -> pictures: b n d")
