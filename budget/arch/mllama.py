"""Llama 3.2 Vision: some of the decoder's layers attend to a picture instead of tokens.

A picture is cut into tiles, all of which see one another in the tower. Without one, these layers and the
tower are stored and skipped. Source: transformers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from ..config import Settings, Workload, at_most, divides, part, setting
from ..errors import InputError, wrong
from ..ir import EMBED, Model, Node, block, model, op
from ..size import Size, any_of, ceil_div, exact_div, floor_div, is_number, is_zero, or_else
from ._attention import Attention, attention, causal_mask, rotary
from ._before import stored
from ._heads import vocabulary
from ._layers import ACTIVATIONS, ATTENTION_DROPOUT, mlp, norm, sized
from ._loss import cross_entropy
from ._sight import UNSEEN
from ._stacks import Layer, encoder

TAKES = ("batch", "seq", "image")
MODES = ("train", "forward", "prefill", "decode")

SEQ = 4096
NORM = "rms_norm"
MULTIPLE = 8  # the tokens of a tile are padded to one of these. Source: transformers


class Tower(Settings):
    """The defaults are Llama 3.2 11B Vision's, but for the side of its tiles, 560."""

    layers: int = setting(32, "layers before its last norm")
    d_model: int = setting(1280, "width of its residual stream")
    heads: int = setting(16, "attention heads")
    d_ff: int = setting(5120, "hidden width of its MLPs")
    patch: int = setting(14, "side of a patch, in pixels")
    image: int = setting(448, "side of a tile, in pixels")
    channels: int = setting(3, "channels of the picture")
    activation: str = setting("gelu", "of its MLPs", choices=ACTIVATIONS)

    def __post_init__(self) -> None:
        divides("heads", self.heads, "d_model", self.d_model)
        at_most("patch", self.patch, "image", self.image)


class Config(Settings, tower=Tower):
    """Llama 3.2 11B Vision."""

    layers: int = setting(40, "layers")
    cross_layers: tuple[int, ...] = setting(
        (3, 8, 13, 18, 23, 28, 33, 38), "those that attend to the picture, from 0", least=0
    )
    d_model: int = setting(4096, "width of the residual stream")
    heads: int = setting(32, "query heads")
    kv_heads: int = setting(8, "key-value heads")
    d_ff: int = setting(14336, "hidden width of the MLPs")
    activation: str = setting("silu", "of the MLPs", choices=ACTIVATIONS)
    attention_dropout: float = ATTENTION_DROPOUT
    vocab: int = setting(128256, "tokens that have a score")
    further_tokens: int = setting(8, "tokens that have an embedding alone", least=0)
    head: str = setting("lm", "a language model's, or none", choices=("lm", "none"))
    global_layers: int = setting(8, "layers of the tower behind its last norm, each gated")
    tiles: int = setting(4, "tiles of a picture, some of them padding")
    aspect_ratios: int = setting(8, "ways to cut pictures, each with embeddings of its own")
    read_layers: tuple[int, ...] = setting(
        (4, 8, 16, 24, 31), "behind so many layers the tower's features are read as well"
    )

    def __post_init__(self) -> None:
        divides("heads", self.heads, "d_model", self.d_model)
        divides("kv_heads", self.kv_heads, "heads", self.heads)
        if not is_number(self.layers):
            raise InputError("layers", "allowed: one number, since its layers differ")
        for behind in self.read_layers:
            at_most("read_layers", behind, "tower_layers", part(self, "tower").layers)


def build(c: Config, w: Workload) -> Model:
    """A picture [b, tiles, c, y, x] and tokens [b, s] to logits [b, s, v]."""
    tower = part(c, "tower")
    if not is_zero(w.image) and any_of(w.image != tower.image):
        raise wrong("image", w.image, f"a tile's side, {tower.image}")
    seq = or_else(w.seq, SEQ)
    s, width = 1 if w.mode == "decode" else seq, exact_div(c.d_model, c.heads)
    sizes = {
        "b": w.batch, "s": s, "t": seq, "d": c.d_model, "v": c.vocab, "f": c.d_ff, "w": 1,
        "h": c.kv_heads, "r": exact_div(c.heads, c.kv_heads), "k": width,
    }  # fmt: skip
    uncounted = (f"{UNSEEN}, which no input reaches",) if is_zero(w.image) else ()
    tokens = w.batch * s
    return model(
        "mllama", c, w, _nodes(c, w, seq), sizes, samples=w.batch, tokens=tokens, uncounted=uncounted, seq=seq
    )


def _nodes(c: Config, w: Workload, seq: Size) -> Iterator[Node]:
    seen = not is_zero(w.image)
    picture = _tokens(part(c, "tower")) * c.tiles
    eyes = tuple(_tower(c, w.batch))
    yield from eyes if seen and w.mode != "decode" else stored(eyes)
    if seen and w.mode == "decode":  # its keys and values are in the cache
        yield op("pictures", "!none: b n d -> pictures: b n d", "view", n=0)
    rows = c.vocab + c.further_tokens
    yield op("embed", "!ids/int64: b s, *embed: ~u d -> x: b s d", "gather", EMBED, u=rows)
    yield rotary()
    yield causal_mask()
    if seen:
        yield causal_mask("seen", t=picture)
        yield op("rows", "!positions/int64: s -> rows: b s", "table")
    first = 0
    for crosses, run in groupby(i in c.cross_layers for i in range(c.layers)):
        count = len(list(run))
        body = sized(_cross(c, w.mode), t=picture) if crosses else _layer(c, w.mode)
        made = block(f"{'cross' if crosses else 'layers'}{first}", body, count)
        yield from (made,) if seen or not crosses else stored((made,))
        first += count
    yield norm("norm", NORM)
    if c.head == "none":
        return
    yield from vocabulary(w.mode, tied=False)
    if w.mode == "train":
        yield from cross_entropy("logits", upcast=True)


def _layer(c: Config, mode: str) -> Iterator[Node]:
    yield norm("attn.norm", NORM)
    yield from attention("attn", _attention(c, mode)._replace(rope=True, mask="mask"), mode)
    yield op("attn.residual", "x:, a: -> x:", "add")
    yield norm("mlp.norm", NORM)
    yield from mlp("mlp", c.activation, gated=True, bias=False)
    yield op("mlp.residual", "x:, m: -> x:", "add")


def _cross(c: Config, mode: str) -> Iterator[Node]:
    """A layer that attends to the picture; a gate of one number scales each of its residuals."""
    a = _attention(c, mode)._replace(norm=NORM, mask="seen", causal=False)
    yield norm("cross.norm", NORM)
    yield from attention("cross", a, mode, memory="pictures")
    yield op("cross.gate", "a: b s d, *w -> a: b s d", "mul")
    yield op("cross.residual", "x:, a: -> x:", "add")
    yield norm("mlp.norm", NORM)
    yield from mlp("mlp", c.activation, gated=True, bias=False)
    yield op("mlp.rows", "m: b s d, rows: b s -> m: b s d", "mul")
    yield op("mlp.gate_all", "m: b s d, *w -> m: b s d", "mul")
    yield op("mlp.residual", "x:, m: -> x:", "add")


def _attention(c: Config, mode: str) -> Attention:
    shared = exact_div(c.heads, c.kv_heads)
    drops = mode == "train" and c.attention_dropout > 0
    return Attention(bias=False, out_bias=False, heads_per_key=shared, dropout=drops)


def _tokens(tower: Tower) -> Size:
    """A tile's tokens: its patches, and the class."""
    across = floor_div(tower.image, tower.patch)
    return across * across + 1


def _tower(c: Config, b: Size) -> Iterable[Node]:
    """From the picture to `pictures: b t d`, as wide as the decoder."""
    tower = part(c, "tower")
    across, n = floor_div(tower.image, tower.patch), _tokens(tower)
    padded = MULTIPLE * ceil_div(n, MULTIPLE)
    wide = tower.d_model * (1 + len(c.read_layers))
    sizes: dict[str, Size] = {
        "b": b, "q": c.tiles, "u": b * c.tiles, "c": tower.channels, "y": across, "x": across,
        "y+i": tower.image, "x+j": tower.image, "i": tower.patch, "j": tower.patch, "p": across * across,
        "n": n, "g": padded, "s": c.tiles * padded, "t": c.tiles * padded, "d": tower.d_model, "a": 1,
        "e": c.aspect_ratios + 1, "h": tower.heads, "r": 1, "k": exact_div(tower.d_model, tower.heads),
        "f": tower.d_ff, "m": wide - tower.d_model, "o": wide, "w": 1,
    }  # fmt: skip
    yield block("tower", sized(_eyes(c, tower), **sizes), 1)
    kept: dict[str, Size] = {"q": c.tiles, "n": n, "o": wide, "t": c.tiles * n}
    yield op("projector", "features: b q n o, *o d, +*d -> pictures: b q n d", **kept)
    yield op("projector.tokens", "pictures: b q n d -> pictures: b t d", "view", **kept)


def _eyes(c: Config, tower: Tower) -> Iterator[Node]:
    """From the picture to `features: b q n o`: those of the last layer, and of listed ones."""
    yield from _patches()
    yield op("present", "!present: b s, !others: b t -> masked: b s t")
    yield op("absent", "masked: -> masked:", "scale")
    a = Attention(bias=False, out_bias=False, mask="masked", causal=False)
    done = 0
    for behind in sorted({*c.read_layers}):
        yield encoder(f"layers{done}", Layer(a, tower.activation), behind - done)
        yield op(f"read{behind}", f"x: b s d -> read{behind}: b s d", "view")
        done = behind
    if done < tower.layers:
        yield encoder(f"layers{done}", Layer(a, tower.activation), tower.layers - done)
    yield norm("norm", "layer_norm", "x", "x")
    yield op("tiles", "x: b s d -> x: b q g d", "view")
    yield from _tiles("late", "g")
    yield op("tokens", "x: b q g d -> x: b s d", "view")
    yield encoder("global_layers", Layer(a, tower.activation, gate=True), c.global_layers)
    yield op("last", "x: b s d -> last: b q g d", "view")
    yield op("last.kept", "last: b q g d -> last: b q n d", "slice")
    reads = ", ".join(f"read{behind}: b s d" for behind in c.read_layers)
    yield op("read", f"{reads} -> read: b s m", "cat")
    yield op("read.tiles", "read: b s m -> read: b q g m", "view")
    yield op("read.kept", "read: b q g m -> read: b q n m", "slice")
    yield op("features", "last: b q n d, read: b q n m -> features: b q n o", "cat")


def _patches() -> Iterator[Node]:
    """From the picture to `x: b s d`: patches, a class for each tile, positions, padding."""
    yield op("embed.patches", "!image: u c y+i x+j, *d c i j -> x: u d y x", tag=EMBED)
    yield op("embed.flatten", "x: u d y x -> x: b q p d", "view")
    yield from _tiles("early", "p")
    yield op("embed.class", "x: b q p d, *a d -> x: b q n d", "cat")
    yield op("embed.gate", "*n d, *gate: w -> places: n d", "mul")
    yield op("embed.positions", "x: b q n d, places: n d -> x: b q n d", "add")
    yield op("embed.by_tile", "!aspect/int64: b, *~e q n d -> tiled: b q n d", "gather")
    yield op("embed.tile_gate", "tiled:, *gate: w -> tiled:", "mul")
    yield op("embed.tile_positions", "x: b q n d, tiled: b q n d -> x: b q n d", "add")
    yield norm("embed.norm", "layer_norm", "x", "x")
    yield op("embed.pad", "x: b q n d -> x: b q g d", "zero_pad")
    yield op("embed.tokens", "x: b q g d -> x: b s d", "view")


def _tiles(name: str, tokens: str) -> Iterator[Node]:
    """The gated embedding of each tile's place, by the picture's shape, added to `x`."""
    yield op(f"{name}.tiles", "!aspect/int64: b, *~e q d -> tile: b q d", "gather")
    yield op(f"{name}.gate", "tile:, *w -> tile:", "mul")
    yield op(f"{name}.add", f"x: b q {tokens} d, tile: b q d -> x: b q {tokens} d", "add")
