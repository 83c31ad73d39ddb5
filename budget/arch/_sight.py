"""A tower of patches and a projector of its output, before a decoder of any kind.

The tower's output for a picture takes the place of as many tokens of the text.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from ..config import Workload, at_most, part, setting
from ..errors import InputError, wrong
from ..ir import Node, block, op
from ..size import Size, any_of, floor_div, is_one, is_zero, or_else
from . import _projector, _qformer, _resampler, _tiles, vit
from ._before import Before, before, stored
from ._layers import NORMS, activate, norm, sized
from ._projector import project

UNSEEN = "vision tower"


class Sight(_projector.Projected, _qformer.Queried, _tiles.Tiled, _resampler.Resampled, tower=vit.Config):
    """The tower of images before a decoder: its fields are those of `vit`."""

    unread_layers: int = setting(0, "last layers of the tower that run and nobody reads (LLaVA: 1)", least=0)
    read_layers: tuple[int, ...] = setting(
        (0,),
        "behind so many layers each the tower's features are read, side by side those of one token "
        "(ViP-LLaVA); 0: behind the last that is read",
        least=0,
    )
    deep_layers: tuple[int, ...] = setting(
        (0,),
        "behind so many layers the tower's features are projected, too, and added behind the decoder's first "
        "layers, one each (Qwen3-VL); 0: nowhere",
        least=0,
    )
    stored_towers: int = setting(
        0, "further towers of the same kind, which no picture reaches (Video-LLaVA's of videos)", least=0
    )
    class_tokens: bool = setting(False, "the tokens before the patches are projected, too")
    pool: int = setting(1, "side of a square of patches that are averaged to one (Gemma 3: 4)")
    pool_product: bool = setting(False, "by a product with weights of all patches, in float32 (Gemma 4)")
    merge: int = setting(1, "side of a square of patches, side by side one token (Qwen2-VL: 2)")
    merge_copies: bool = setting(False, "they are copied for it, not stored in this order (Idefics 3)")
    merge_norm: str = setting("", "a norm of each patch before that (Kimi K2.5)", choices=("", *NORMS))
    merge_layer: bool = setting(False, "and projected back to the tower's width (Mistral 3)")
    merge_width: int = setting(0, "or to this one, with biases (GLM-4.1V)", least=0)
    projector_input: bool = setting(
        False, "before the projector a layer as wide as its input, a layer norm and GELU (GLM-4.1V)"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        tower = part(self, "tower")
        for one, other in pairwise((0, *deep(self), tower.layers)):
            at_most("deep_layers", one + 1, "the next, or tower_layers,", other)
        at_most("unread_layers", self.unread_layers + 1, "tower_layers", tower.layers)
        _tiles.check(self, tower.image)
        _resampler.check(self)
        _qformer.check(self)
        _projector.check(self)
        _check_reading(self, tower)
        if not (self.merge_layer or is_zero(self.merge_width)):
            raise InputError("merge_width", "allowed with merge_layer: a width")


def see(c: Sight, w: Workload, layers: Size, width: Size) -> Before:
    """The tower and the projector. Raises InputError for a picture that the tower does not take.

    Without a picture, and where tokens are decoded, they are stored and do not run. layers, width: the
    decoder's.
    """
    tower = part(c, "tower")
    seen = not is_zero(w.image)
    looked, tiles = w._replace(image=or_else(w.image, tower.image)), None
    if seen and _tiles.cuts(c):
        tiles = _tiles.cut(c, w.image, tower.image, floor_div(tower.image, tower.patch * c.merge * c.pool))
        looked = w._replace(image=tower.image, batch=w.batch * (1 + tiles.down * tiles.across))
    each = _tokens(c, tower, looked) if seen else 0
    asked = _qformer.tokens(c, each) if seen else 0
    n = tiles.tokens(c.newline) if tiles else _resampler.tokens(c, asked) if seen else 0
    wide = tower.d_model * c.merge**2 * len(c.read_layers)
    features = {"n": each, "m": wide}  # m: width of a token before the projector
    inside = tuple(sized(_tower(c, tower, looked), **vit.shape(tower, looked), **features))
    merged = or_else(c.merge_width, tower.d_model)
    hidden: dict[str, Size] = {"n": asked, "m": _qformer.width(c, wide)}
    hidden |= {"b": looked.batch, "f": c.projector_width, "g": c.projector_width, "c": merged}
    hidden["e"] = merged if c.merge_layer else wide
    joined = _tiles.join(c, tiles, w.batch) if tiles else _tiles.stored(c)
    sampled = _resampler.resampled(c, width, asked)
    eyes = (
        block("tower", inside, 1),
        *stored(block(f"tower{i + 2}", inside, 1) for i in range(c.stored_towers)),
        *_qformer.queried(c, w.mode, looked.batch, each, wide, words=w.seq),
        *sized(_projections(c, tower), **hidden),
        *joined,
        *sampled,
    )
    behind = (
        op(f"place{i}", f"x: b s d, deep{i}: b n d -> x: b s d", "place_add", n=n)
        for i in range(min(len(deep(c)), layers) if deep(c) else 0)
    )
    pictures = before(w, "image", eyes, n, "pictures", UNSEEN)
    return pictures._replace(deep=tuple(behind)) if pictures.place else pictures


def shallow(c: Sight, kind: str) -> None:
    """Raises InputError where earlier layers' features are for a decoder that takes none."""
    if deep(c):
        raise InputError("deep_layers", f"allowed for {kind}: 0")


def deep(c: Sight) -> tuple[int, ...]:
    """After how many layers of the tower its features are projected, too."""
    return tuple(behind for behind in c.deep_layers if not is_zero(behind))


def _check_reading(c: Sight, tower: vit.Config) -> None:
    """Raises InputError for layers that do not exist, and for two ways of reading at once."""
    for behind in c.read_layers:
        if _several(c):
            at_most("read_layers", behind, "tower_layers", tower.layers)
    if _several(c) and any(is_zero(behind) for behind in c.read_layers):
        raise InputError("read_layers", "allowed: one 0, or numbers of layers")
    if _several(c) and not (is_zero(c.unread_layers) and is_one(c.pool)):
        raise InputError("read_layers", "allowed without unread_layers and pool")
    if not is_zero(c.qformer_layers) and (deep(c) or _tiles.cuts(c)):
        raise InputError("qformer_layers", "allowed without deep_layers and resolutions: layers")
    if deep(c) and (_several(c) or _tiles.cuts(c)):
        raise InputError("deep_layers", "allowed without read_layers and resolutions: layers")
    if c.class_tokens and _tiles.cuts(c) and not is_zero(tower.extra_tokens + tower.registers):
        raise InputError("class_tokens", "got true; allowed with resolutions: false")


def _several(c: Sight) -> bool:
    """Whether the outputs of several listed layers are read."""
    return tuple(c.read_layers) != (0,)


def _tokens(c: Sight, tower: vit.Config, w: Workload) -> Size:
    """Tokens that a picture takes. Raises InputError for one that the tower does not take."""
    if tower.positions in ("learned", "both") and any_of(w.image != tower.image):
        raise wrong("image", w.image, f"as its positions, {tower.image}")
    least = tower.patch * c.merge * c.pool
    if tower.positions in ("rotary", "none") and any_of(w.image % least != 0):
        raise wrong("image", w.image, f"multiples of patch x merge x pool, {least}")
    across = floor_div(floor_div(w.image, tower.patch), c.pool * c.merge)
    return across * across + (tower.extra_tokens + tower.registers if c.class_tokens else 0)


def _tower(c: Sight, tower: vit.Config, w: Workload) -> Iterator[Node]:
    """From the image to the projector's input, `z: b n m`."""
    yield from vit.embedding(tower, w.mode)
    done = 0
    for i, behind in enumerate(deep(c)):
        yield from vit.layers(tower, w, f"layers{i}", behind - done)
        yield op(f"deep{i}", f"x: b s d -> deep{i}: b n m", "view")
        done = behind
    kept = "s" if c.class_tokens or is_zero(tower.extra_tokens + tower.registers) else "p"
    if _several(c):
        yield from _read(c, tower, w, kept, done)
        return
    yield from vit.layers(tower, w, "layers", tower.layers - c.unread_layers - done)
    yield from _unread(tower, w, c.unread_layers)
    if kept == "p":
        yield op("patches", "x: b s d -> x: b p d", "slice")
    if not is_one(c.pool):
        yield from _pooled(c, floor_div(w.image, tower.patch), kept)
        kept = "n"
    if c.merge_norm:
        yield norm("merge.norm", c.merge_norm, "x", "x")
    yield op("merge", f"x: b {kept} d -> z: b n m", "copy" if c.merge_copies else "view")


def _read(c: Sight, tower: vit.Config, w: Workload, kept: str, done: Size) -> Iterator[Node]:
    """Several layers' outputs side by side, for the tokens that are kept; the last one's is behind its
    norm.
    """
    how = "slice" if kept == "p" else "view"
    for behind in sorted({*c.read_layers}):
        yield from vit.layers(tower, w, f"layers{behind}", behind - done)
        done = behind
        if behind != tower.layers:
            yield op(f"read{behind}", f"x: b s d -> read{behind}: b {kept} d", how)
    yield from _unread(tower, w, tower.layers - done)
    if done == tower.layers:
        yield op(f"read{done}", f"x: b s d -> read{done}: b {kept} d", how)
    read = ", ".join(f"read{behind}: b {kept} d" for behind in c.read_layers)
    yield op("read", f"{read} -> z: b {kept} m", "cat")
    yield op("merge", f"z: b {kept} m -> z: b n m", "view")


def _unread(tower: vit.Config, w: Workload, layers: Size) -> Iterator[Node]:
    """The last layers, which nothing reads, and the norm."""
    last = "x"
    if not is_zero(layers):
        last = "late"
        yield op("late", "x: b s d -> late: b s d", "view")
        yield from vit.layers(tower, w, "late_layers", layers, x=last)
    yield from vit.pooling(tower, last)


def _pooled(c: Sight, across: Size, kept: str) -> Iterator[Node]:
    """Squares of patches, so many along a side, averaged to one token each."""
    if c.pool_product:
        yield op("pool.weights", f"!cells/int64: b {kept} -> weights/float32: b {kept} n", "table")
        yield op("pool.upcast", f"x: b {kept} d -> whole/float32:", "cast")
        yield op("pool", f"whole: b {kept} d, weights: b {kept} n -> pooled/float32: b n d")
        yield op("pool.downcast", "pooled: -> x:", "cast")
        return
    out = floor_div(across, c.pool)
    grid: dict[str, Size] = {"y": out, "x": out, "y+i": across, "x+j": across, "i": c.pool, "j": c.pool}
    yield op("pool.grid", f"x: b {kept} d -> x: b d y+i x+j", "copy", **grid)
    yield op("pool", "x: b d y+i x+j -> x: b d y x", "avg_pool", **grid)
    yield op("pool.tokens", "x: b d y x -> x: b n d", "view", **grid)


def _projections(c: Sight, tower: vit.Config) -> Iterator[Node]:
    """From `z: b n m` to `pictures: b n d`, as wide as the decoder; earlier features likewise."""
    m = "m"
    if c.merge_layer:
        bias = "" if is_zero(c.merge_width) else ", +*c"
        yield op("projector.merge", f"z: b n m, *m c{bias} -> z: b n c")
        m = "c"
    if c.projector_input:
        yield op("projector.in", f"z: b n {m}, *{m} e -> z: b n e")
        m = "e"
        yield norm("projector.in_norm", "layer_norm", "z", "z", dim=m)
        yield activate("projector.in_act", "gelu", "z", "z")
    yield from project(c, "projector", "z", "pictures", c.projector_norm, m)
    for i in range(len(deep(c))):
        yield from project(c, f"projector{i}", f"deep{i}", f"deep{i}", tower.norm)
