"""A Q-Former: learned queries that attend to what a tower makes, and stand for it (BLIP-2).

Its layers are BERT's, some of which attend to the tower's output, too. Source: transformers.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..config import Settings, divides, setting
from ..errors import InputError
from ..ir import Node, op
from ..size import Size, exact_div, is_number, is_zero
from ._attention import Attention
from ._layers import ACTIVATIONS, dropout, norm, sized
from ._periods import stack
from ._stacks import Layer, attending


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


def check(c: Queried) -> None:
    """Raises InputError for heads that do not share the width, and for layers that are no number."""
    if not is_number(c.qformer_layers):
        raise InputError("qformer_layers", "allowed: one number")
    divides("qformer_heads", c.qformer_heads, "qformer_d_model", c.qformer_d_model)


def tokens(c: Queried, n: Size) -> Size:
    """That stand for n of the tower."""
    return n if is_zero(c.qformer_layers) else c.qformer_tokens


def width(c: Queried, m: Size) -> Size:
    """Of what is projected, where the tower's is m."""
    return m if is_zero(c.qformer_layers) else c.qformer_d_model


def queried(c: Queried, mode: str, b: Size, n: Size, m: Size) -> Iterator[Node]:
    """From `z: b n m` to as many tokens as there are queries, and as wide; nothing without a Q-Former."""
    if is_zero(c.qformer_layers):
        return
    s, train = c.qformer_tokens, mode == "train"
    sizes: dict[str, Size] = {
        "b": b, "s": s, "t": s, "d": c.qformer_d_model, "h": c.qformer_heads, "r": 1,
        "k": exact_div(c.qformer_d_model, c.qformer_heads), "f": c.qformer_d_ff, "m": m,
    }  # fmt: skip
    a = Attention(upcast=False, causal=False, dropout=train and c.qformer_attention_dropout > 0)
    layer = Layer(a, c.qformer_activation, pre=False, dropout=c.qformer_dropout if train else 0.0)
    kinds = (True, *[False] * (c.qformer_cross - 1))

    def one(crosses: bool) -> Iterator[Node]:
        return attending(layer, a._replace(source="m") if crosses else None, "q", "seen", s, n)

    yield from sized(
        (
            op("qformer.seen", "z: b n m -> seen: b t m", "view", t=n, n=n),
            op("qformer.queries", "*s d -> q: b s d", "repeat"),
            norm("qformer.norm", "layer_norm", "q", "q"),
            *dropout("qformer", c.qformer_dropout, mode, "q"),
            *stack("qformer", kinds, c.qformer_layers, one),
            op("qformer.out", "q: b s d -> z: b n m", "view", n=s, m=c.qformer_d_model),
        ),
        **sizes,
    )
