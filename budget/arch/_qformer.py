"""A Q-Former: learned queries that attend to a tower's output and replace it (BLIP-2).

Its layers are BERT's; some of them also attend to the tower's output. InstructBLIP's read the words of the
instruction next to the queries. Source: transformers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..config import Settings, divides, setting
from ..errors import InputError
from ..ir import KEY, OUTPUT, QUERY, VALUE, Node, Op, op
from ..size import Size, exact_div, is_number, is_zero, minimum, or_else
from ._attention import Attention, mix
from ._layers import ACTIVATIONS, dropout, norm, sized
from ._periods import stack
from ._stacks import Layer, attend, attending, think


class Queried(Settings):
    """The Q-Former between a tower and a projector; none by default."""

    qformer_layers: int = setting(
        0, "layers of a Q-Former, whose learned queries attend to the tower's output (BLIP-2)", least=0
    )
    qformer_tokens: int = setting(32, "its queries, which stand for what the tower makes")
    qformer_cross: int = setting(
        2, "one of so many of its layers attends to the tower's output, from the first"
    )
    qformer_d_model: int = setting(768, "width of its residual stream")
    qformer_heads: int = setting(12, "its attention heads")
    qformer_d_ff: int = setting(3072, "hidden width of its MLPs")
    qformer_activation: str = setting("gelu", "of its MLPs", choices=ACTIVATIONS)
    qformer_dropout: float = setting(
        0.0, "training: part of its queries and of what its layers add, dropped", least=0, most=1
    )
    qformer_attention_dropout: float = setting(
        0.0, "training: part of its attention's weights that is dropped", least=0, most=1
    )
    qformer_vocab: int = setting(
        0, "rows of a table of words that stand beside the queries (InstructBLIP); 0: no words do", least=0
    )
    qformer_context: int = setting(512, "words that it takes at most")


def check(c: Queried) -> None:
    """Raises InputError for heads that do not divide the width, and for several numbers of layers."""
    if not is_number(c.qformer_layers):
        raise InputError("qformer_layers", "allowed: one number")
    divides("qformer_heads", c.qformer_heads, "qformer_d_model", c.qformer_d_model)


def tokens(c: Queried, n: Size) -> Size:
    """How many tokens replace n of the tower's."""
    return n if is_zero(c.qformer_layers) else c.qformer_tokens


def width(c: Queried, m: Size) -> Size:
    """The width of the projector's input, where the tower's output is m wide."""
    return m if is_zero(c.qformer_layers) else c.qformer_d_model


def queried(
    c: Queried, mode: str, b: Size, n: Size, m: Size, *, words: Size = 0, alone: bool = False
) -> Iterator[Node]:
    """From `z: b n m` to as many tokens as there are queries, and as wide; nothing without a Q-Former.

    words: how many tokens of each sequence it reads, where it has a table for them. alone: queries are the
    same for all samples until the first layer attends to the tower's output (Granite Speech).
    """
    if is_zero(c.qformer_layers):
        return
    s, train = c.qformer_tokens, mode == "train"
    sizes: dict[str, Size] = {
        "b": b, "s": s, "t": s, "d": c.qformer_d_model, "h": c.qformer_heads, "r": 1,
        "k": exact_div(c.qformer_d_model, c.qformer_heads), "f": c.qformer_d_ff, "m": m,
    }  # fmt: skip
    a = Attention(upcast=False, causal=False, dropout=train and c.qformer_attention_dropout > 0)
    layer = Layer(a, c.qformer_activation, pre=False, dropout=c.qformer_dropout if train else 0.0)
    cross = a._replace(source="m")
    kinds = (True, *[False] * (c.qformer_cross - 1))
    if not is_zero(c.qformer_vocab):
        few = minimum(or_else(words, c.qformer_context), c.qformer_context)
        yield from sized(_with_words(c, layer, cross, n, few, mode), **sizes, u=few, z=s + few)
        return
    first: tuple[Node, ...] = ()
    rest = c.qformer_layers
    if alone:
        first, rest = tuple(_first(layer, cross, s, n)), rest - 1
        kinds = (*kinds[1:], kinds[0])

    def each(crosses: bool) -> Iterator[Node]:
        return attending(layer, cross if crosses else None, "asked", "seen", s, n)

    asked = (
        op("qformer.queries", "*s d -> asked: b s d", "repeat"),
        norm("qformer.norm", "layer_norm", "asked", "asked"),
        *dropout("qformer", c.qformer_dropout, mode, "asked"),
    )
    yield from sized(
        (
            op("qformer.seen", "z: b n m -> seen: b t m", "view", t=n, n=n),
            *(_once(asked) if alone else asked),
            *first,
            *stack("qformer", kinds, rest, each),
            op("qformer.out", "asked: b s d -> z: b n m", "view", n=s, m=c.qformer_d_model),
        ),
        **sizes,
    )


def _with_words(
    c: Queried, layer: Layer, cross: Attention, n: Size, words: Size, mode: str
) -> Iterator[Node]:
    """The layers with words behind the queries, u of z positions."""
    s = c.qformer_tokens
    yield op("qformer.seen", "z: b n m -> seen: b t m", "view", t=n, n=n)
    yield op("qformer.queries", "*s d -> asked: b s d", "repeat")
    yield op("qformer.words", "!instruction/int64: b u, *~v d -> told: b u d", "gather", v=c.qformer_vocab)
    line = "!instruction_places/int64: u, *~v d -> places: u d"
    yield op("qformer.positions", line, "gather", v=c.qformer_context)
    yield op("qformer.placed", "told: b u d, places: u d -> told: b u d", "add")
    yield op("qformer.join", "asked: b s d, told: b u d -> all: b z d", "cat")
    yield norm("qformer.norm", "layer_norm", "all", "all")
    yield from dropout("qformer", c.qformer_dropout, mode, "all")
    kinds = (True, *[False] * (c.qformer_cross - 1))
    yield from stack(
        "qformer",
        kinds,
        c.qformer_layers,
        lambda crosses: _both(layer, cross if crosses else None, s, n, words),
    )
    yield op("qformer.asked", "all: b z d -> asked: b s d", "slice")
    yield op("qformer.out", "asked: b s d -> z: b n m", "view", n=s, m=c.qformer_d_model)


def _both(layer: Layer, cross: Attention | None, s: Size, n: Size, words: Size) -> Iterator[Node]:
    """One layer on `all: b z d`: queries alone attend to the tower's output, and words have their own MLP."""
    yield from sized(attend("attn", layer, layer.attention, "forward", "all"), s=s + words, t=s + words)
    yield op("asked", "all: b z d -> asked: b s d", "slice")
    if cross:
        yield from sized(attend("cross", layer, cross, "forward", "asked", "seen"), t=n)
    yield from think(layer, "asked")
    yield op("told", "all: b z d -> told: b u d", "slice")
    yield from sized(think(layer, "told", "words"), s=words)
    yield op("join", "asked: b s d, told: b u d -> all: b z d", "cat")


def _once(nodes: Iterable[Op]) -> Iterator[Op]:
    """Operators for one sample, which stands for all."""
    for o in nodes:
        ins, outs = ([t._replace(dims=tuple("u" if d == "b" else d for d in t.dims)) for t in side]
                     for side in (o.ins, o.outs))  # fmt: skip
        yield o._replace(ins=tuple(ins), outs=tuple(outs), sizes={**o.sizes, "u": 1})


def _first(layer: Layer, cross: Attention, s: Size, n: Size) -> Iterator[Node]:
    """A layer whose queries are one sample's until they attend to the tower's output."""
    name = "qformer.first"
    yield from sized(_once(attend(f"{name}.attn", layer, layer.attention, "forward", "asked")), t=s)
    yield op(f"{name}.cross.q", "asked: u s d, *d h r k, +*h r k -> q: u s h r k", tag=QUERY, u=1)
    yield op(f"{name}.cross.all", "q: u s h r k -> q: b s h r k", "repeat", u=1)
    yield op(f"{name}.cross.k", "seen: b t m, *m h k, +*h k -> k: b t h k", tag=KEY, t=n)
    yield op(f"{name}.cross.v", "seen: b t m, *m h k, +*h k -> v: b t h k", tag=VALUE, t=n)
    yield from sized(mix(f"{name}.cross", cross), t=n)
    yield op(f"{name}.cross.o", "y: b s h r k, *h r k d, +*d -> a: b s d", tag=OUTPUT)
    yield from dropout(f"{name}.cross", layer.dropout, "train", "a")
    yield op(f"{name}.cross.spread", "asked: u s d -> asked: b s d", "repeat", u=1)
    yield op(f"{name}.cross.residual", "asked:, a: -> asked:", "add")
    yield norm(f"{name}.cross.norm", layer.norm, "asked", "asked")
    yield from think(layer, "asked", f"{name}.mlp")
