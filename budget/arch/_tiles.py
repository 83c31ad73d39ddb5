"""Pictures of any size, cut into tiles that a tower reads in addition to the whole picture (LLaVA-NeXT).

A picture is scaled to the resolution that keeps most of it. The tower's outputs for the tiles are put
together again, without padding, and follow its output for the whole picture. Source: transformers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf, sqrt

from ..config import Settings, setting
from ..errors import InputError, shown
from ..ir import Node, op
from ..named import NamedTuple
from ..size import Size, any_of, is_number, is_zero


class Tiled(Settings):
    """The tiles into which a picture is cut; none by default."""

    resolutions: tuple[int, ...] = setting(
        (0,),
        "heights and widths, in pairs, that pictures of any size are scaled into, to be cut into tiles as "
        "large as the tower's image, beside the whole (LLaVA-NeXT); 0: pictures are not cut",
        least=0,
    )
    most_tiles: int = setting(
        0, "where the features are more than of so many tiles, they are scaled down; 0: never", least=0
    )
    newline: bool = setting(False, "a learned token behind each row of the tiles' features")


class Tiles(NamedTuple):
    """The tiles of one square picture, in tiles and in tokens."""

    down: int
    across: int
    side: Size  # tokens along a side of a tile
    rows: int  # tokens of all tiles, the padding cut off
    columns: int
    scaled: tuple[int, int]  # these, scaled down

    def tokens(self, newline: bool) -> Size:
        """The picture's tokens: those of the whole, and of the tiles."""
        rows, columns = self.scaled
        return self.side * self.side + rows * (columns + newline)


def cuts(c: Tiled) -> bool:
    """Whether pictures are cut."""
    return any(not is_zero(side) for side in c.resolutions)


def check(c: Tiled, tile: int) -> None:
    """Raises InputError for resolutions that are not made of whole tiles, and for settings that need them."""
    if not cuts(c):
        for name in ("most_tiles", "newline"):
            if getattr(c, name):
                raise InputError(name, "allowed with resolutions")
        return
    if len(c.resolutions) % 2:
        raise InputError("resolutions", f"got {len(c.resolutions)} sides; allowed: pairs")
    if any(is_zero(side) or side % tile for side in c.resolutions):
        raise InputError("resolutions", f"allowed: multiples of the tower's image, {tile}")


def cut(c: Tiled, image: Size, tile: int, side: int) -> Tiles:
    """The tiles of a square picture; tile: pixels along a side of one, side: tokens.

    Raises InputError for pictures of several sizes at once.
    """
    if not is_number(image) or any_of(image < 1):
        raise InputError("image", f"got {shown(image)}; allowed where it is cut into tiles: one number")
    down, across = (part // tile for part in resolution(int(image), c.resolutions))
    rows, columns = down * side, across * side
    short = min(rows, columns)  # the padding at both ends of the longer side is cut off
    rows, columns = (full - 2 * ((full - short) // 2) for full in (rows, columns))
    ratio = sqrt(rows * columns / (c.most_tiles * side**2)) if c.most_tiles else 0.0
    scaled = (int(rows // ratio), int(columns // ratio)) if ratio > 1.1 else (rows, columns)
    return Tiles(down, across, side, rows, columns, scaled)


def resolution(image: int, sides: Sequence[int]) -> tuple[int, int]:
    """The height and width that keep most of a square picture, and waste least.

    Source: transformers' image_processing_utils.select_best_resolution.
    """
    best, most, least = (sides[0], sides[1]), 0, inf
    for height, width in zip(sides[::2], sides[1::2], strict=True):
        scale = min(width / image, height / image)
        kept = min(int(image * scale) ** 2, image * image)
        wasted = height * width - kept
        if kept > most or (kept == most and wasted < least):
            best, most, least = (height, width), kept, wasted
    return best


def stored(c: Tiled) -> Iterator[Node]:
    """The weights for joining tiles, where there are no tiles."""
    if c.newline:
        yield op("tiles.newline", "*d -> newline: d", "resident")


def join(c: Tiled, t: Tiles, b: Size) -> Iterator[Node]:
    """From the features of every tile, `pictures: b.q n d`, to those of every picture, `pictures: b n d`."""
    square, tiles = t.side * t.side, t.down * t.across
    part: dict[str, Size] = {"b": b, "q": 1 + tiles, "n": square}
    grid: dict[str, Size] = {"y": t.down * t.side, "x": t.across * t.side}
    kept: dict[str, Size] = {"b": b, "r": t.rows, "c": t.columns}
    yield op("tiles.whole", "pictures: b.q n d -> whole: b n d", "slice", **part)
    yield op("tiles.parts", "pictures: b.q n d -> parts: b z d", "slice", **part, z=tiles * square)
    yield op("tiles.grid", "parts: b z d -> parts: b d y x", "copy", b=b, **grid, z=tiles * square)
    if (t.rows, t.columns) != (grid["y"], grid["x"]):
        yield op("tiles.unpad", "parts: b d y x -> parts: b d r c", "slice", **grid, **kept)
    if t.scaled != (t.rows, t.columns):
        now: dict[str, Size] = {"y": t.scaled[0], "x": t.scaled[1]}
        yield op("tiles.scale", "parts: b d r c -> parts: b d y x", "interpolate", **kept, **now)
    last: dict[str, Size] = {"b": b, "r": t.scaled[0], "c": t.scaled[1]}
    line = "c"
    if c.newline:
        line = "e"
        yield op("tiles.newline", "parts: b d r c, *d -> parts: b d r e", "cat", **last, e=last["c"] + 1)
    tokens = t.tokens(c.newline)
    yield op(
        "tiles.join", f"whole: b n d, parts: b d r {line} -> pictures: b m d", "cat",
        **last, e=t.scaled[1] + 1, n=square, m=tokens,
    )  # fmt: skip
