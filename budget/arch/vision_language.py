"""A language model that sees: a tower of patches, a projector of its output, and a decoder of both.

What the tower makes of a picture takes the place of as many tokens of the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

from ..config import Workload, any_of, at_most, part, setting
from ..errors import InputError, shown
from ..ir import DOWN, UP, WEIGHT, Block, Model, Node, Op, Tensor, block, model, op
from ..size import Size, floor_div, is_one, is_zero, or_else
from . import transformer, vit
from ._heads import ends
from ._layers import ACTIVATIONS, NORMS, activate, norm, sized

TAKES = ("batch", "seq", "image")
MODES = transformer.MODES

UNSEEN = "vision tower, which no input reaches"


class Config(transformer.Config, tower=vit.Config):
    """The decoder's fields are those of a transformer, the tower's those of a vision transformer."""

    unread_layers: int = setting(0, "last layers of the tower that run and nobody reads (LLaVA: 1)", least=0)
    deep_layers: tuple[int, ...] = setting(
        (0,),
        "behind so many layers the tower's features are projected, too, and added behind the decoder's first "
        "layers, one each (Qwen3-VL); 0: nowhere",
        least=0,
    )
    class_tokens: bool = setting(False, "the tokens before the patches are projected, too")
    pool: int = setting(1, "side of a square of patches that are averaged to one (Gemma 3: 4)")
    merge: int = setting(1, "side of a square of patches, side by side one token (Qwen2-VL: 2)")
    merge_copies: bool = setting(False, "they are copied for it, not stored in this order (Idefics 3)")
    projector_norm: str = setting("", "a norm before the projector", choices=("", *NORMS))
    projector_width: int = setting(0, "hidden width of the projector; 0: it is one linear layer", least=0)
    projector_activation: str = setting("gelu", "of a projector with hidden units", choices=ACTIVATIONS)
    projector_bias: bool = setting(True, "the projector has biases")

    def __post_init__(self) -> None:
        super().__post_init__()
        tower = part(self, "tower")
        for one, other in pairwise((0, *_deep(self), tower.layers)):
            at_most("deep_layers", one + 1, "the next, or tower_layers,", other)
        at_most("unread_layers", self.unread_layers + 1, "tower_layers", tower.layers)


def build(c: Config, w: Workload) -> Model:
    """A picture [b, c, y, x] and tokens [b, words] to logits [b, s, v], s the picture's tokens and the words.

    Without a picture the tower is stored and not run, and so it is where tokens are decoded.
    """
    tower = part(c, "tower")
    seen = not is_zero(w.image)
    n = _tokens(c, tower, w) if seen else 0
    longest = transformer.length(c, w._replace(seq=0))
    if seen:
        at_most("image", n + 1, "context, in tokens", longest)
    seq = transformer.length(c, w._replace(seq=or_else(w.seq, longest - n) + n))
    side = or_else(w.image, tower.image)
    wide = tower.d_model * c.merge**2  # of a token before the projector
    features = {"n": n, "m": wide}
    runs = seen and w.mode != "decode"
    looked = w._replace(image=side)
    inside = sized(_tower(c, tower, looked), **vit.shape(tower, looked), **features)
    eyes = [block("tower", inside, 1), *sized(_projector(c, tower), **features, f=c.projector_width)]
    nodes: list[Node] = list(eyes if runs else _stored(eyes))
    nodes += transformer.embedding(c, w.mode)
    if runs:
        nodes.append(op("place", "x: b s d, pictures: b n d -> x: b s d", "place", n=n))
    deep = (
        op(f"place{i}", f"x: b s d, deep{i}: b n d -> x: b s d", "place_add", n=n)
        for i in range(min(len(_deep(c)), c.layers) if runs else 0)
    )
    nodes += transformer.behind_embedding(c, w.mode, seq, tuple(deep))
    sizes = transformer.shape(c, w, seq)
    tokens = w.batch * (1 if w.mode == "decode" else seq)
    left = () if seen else (UNSEEN,)
    return model(
        "vision_language", c, w, nodes, sizes, samples=w.batch, tokens=tokens,
        outputs=ends(c, w.mode), uncounted=left,
    )  # fmt: skip


def _tokens(c: Config, tower: vit.Config, w: Workload) -> Size:
    """Tokens that a picture takes. Raises InputError for one that the tower does not take."""
    if tower.positions == "learned" and any_of(w.image != tower.image):
        raise InputError("image", f"got {shown(w.image)}; allowed: as its positions, {tower.image}")
    least = tower.patch * c.merge
    if tower.positions == "rotary" and any_of(w.image % least != 0):
        raise InputError("image", f"got {shown(w.image)}; allowed: multiples of patch x merge, {least}")
    across = floor_div(floor_div(w.image, tower.patch), c.pool * c.merge)
    return across * across + (tower.extra_tokens + tower.registers if c.class_tokens else 0)


def _tower(c: Config, tower: vit.Config, w: Workload) -> Iterator[Node]:
    """From the image to what is projected of it: `z: b n m`."""
    yield from vit.embedding(tower, w.mode)
    done = 0
    for i, behind in enumerate(_deep(c)):
        yield from vit.layers(tower, w, f"layers{i}", behind - done)
        yield op(f"deep{i}", f"x: b s d -> deep{i}: b n m", "view")
        done = behind
    yield from vit.layers(tower, w, "layers", tower.layers - c.unread_layers - done)
    last = "x"
    if not is_zero(c.unread_layers):
        last = "late"
        yield op("late", "x: b s d -> late: b s d", "view")
        yield from vit.layers(tower, w, "late_layers", c.unread_layers, x=last)
    yield from vit.pooling(tower, last)
    kept = "s" if c.class_tokens or is_zero(tower.extra_tokens + tower.registers) else "p"
    if kept == "p":
        yield op("patches", "x: b s d -> x: b p d", "slice")
    if not is_one(c.pool):
        across = floor_div(w.image, tower.patch)
        out = floor_div(across, c.pool)
        grid: dict[str, Size] = {"y": out, "x": out, "y+i": across, "x+j": across, "i": c.pool, "j": c.pool}
        yield op("pool.grid", f"x: b {kept} d -> x: b d y+i x+j", "copy", **grid)
        yield op("pool", "x: b d y+i x+j -> x: b d y x", "avg_pool", **grid)
        yield op("pool.tokens", "x: b d y x -> x: b n d", "view", **grid)
        kept = "n"
    yield op("merge", f"x: b {kept} d -> z: b n m", "copy" if c.merge_copies else "view")


def _projector(c: Config, tower: vit.Config) -> Iterator[Node]:
    """From `z: b n m` to `pictures: b n d`, as wide as the decoder; and the same of earlier features."""
    yield from _project(c, "projector", "z", "pictures", c.projector_norm)
    for i in range(len(_deep(c))):
        yield from _project(c, f"projector{i}", f"deep{i}", f"deep{i}", tower.norm)


def _deep(c: Config) -> tuple[int, ...]:
    return tuple(behind for behind in c.deep_layers if not is_zero(behind))


def _project(c: Config, name: str, x: str, out: str, kind: str) -> Iterator[Node]:
    """From `x: b n m` to `out: b n d`."""
    if kind:
        yield norm(f"{name}.norm", kind, x, x, dim="m")
    up, down = (", +*f", ", +*d") if c.projector_bias else ("", "")
    if is_zero(c.projector_width):
        yield op(name, f"{x}: b n m, *m d{down} -> {out}: b n d")
        return
    yield op(f"{name}.up", f"{x}: b n m, *m f{up} -> u: b n f", tag=UP)
    yield activate(f"{name}.act", c.projector_activation, "u")
    yield op(f"{name}.down", f"g: b n f, *f d{down} -> {out}: b n d", tag=DOWN)


def _stored(nodes: Iterable[Node]) -> Iterator[Node]:
    """The weights of operators that do not run."""
    for node in nodes:
        if isinstance(node, Block):
            yield node._replace(body=tuple(_stored(node.body)))
            continue
        if own := tuple(t._replace(added=False) for t in node.ins if t.role == WEIGHT):
            yield Op(node.name, "resident", own, (Tensor(f"{node.name}~stored", own[0].dims),), node.sizes)
