"""Stacks of encoder and decoder layers, shared by T5, BART, Whisper and ViT."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..ir import Block, Node, Op, block, op
from ..named import NamedTuple
from ..size import Size
from ._attention import Attention, attention
from ._layers import dropout, mlp, norm, sized


class Layer(NamedTuple):
    """The variant of a layer: its norms come before attention and MLP (pre) or behind their additions."""

    attention: Attention
    activation: str = "gelu"
    norm: str = "layer_norm"
    pre: bool = True
    gated: bool = False
    bias: bool = True  # of the MLP
    scale: bool = False  # outputs of attention and MLP are scaled channel by channel (LayerScale)
    dropout: float = 0.0  # dropout of the outputs of attention and MLP; 0 outside training
    inner_dropout: float = 0.0  # dropout inside the MLP, behind its activation
    out_norm: bool = False  # with `pre`: norms behind attention and MLP as well, before they are added
    gate: bool = False  # outputs of attention and MLP are scaled by one number each (Llama 3.2)


def encoder(name: str, layer: Layer, count: Size, *, x: str = "x") -> Block:
    """`count` layers on `x: b s d`; every position sees every other."""
    return block(name, layer_of(layer, x), count)


def layer_of(layer: Layer, x: str = "x") -> Iterator[Node]:
    """One layer of an encoder on `x: b s d`."""
    yield from attend("attn", layer, layer.attention, "forward", x)
    yield from think(layer, x)


def decoder(
    name: str,
    layer: Layer,
    count: Size,
    mode: str,
    *,
    keys: Size,
    memory: Size,
    cross: Attention | None = None,
) -> Block:
    """`count` layers on `x: b s d` that also attend to `memory: b t d`.

    `keys` are the positions of its own that a query sees, `memory` those of the encoder.
    """
    body = (
        *sized(attend("attn", layer, layer.attention._replace(mask="mask"), mode), t=keys),
        *sized(attend("cross", layer, cross or layer.attention, mode, memory="memory"), t=memory),
        *think(layer),
    )
    return block(name, body, count)


def attending(
    layer: Layer, cross: Attention | None, x: str, memory: str, keys: Size, length: Size
) -> Iterator[Node]:
    """One layer on `x: b s d`, which sees its own positions, `keys`; with `cross` those of `memory: b t
    m`.
    """
    yield from sized(attend("attn", layer, layer.attention, "forward", x), t=keys)
    if cross:
        yield from sized(attend("cross", layer, cross, "forward", x, memory), t=length)
    yield from think(layer, x)


def attend(name: str, layer: Layer, a: Attention, mode: str, x: str = "x", memory: str = "") -> Iterator[Op]:
    """Attention of a layer, to itself or to `memory`, and its addition to `x: b s d`."""
    yield from _residual(name, layer, x, lambda n: attention(name, a, mode, x=n, memory=memory))


def think(layer: Layer, x: str = "x", name: str = "mlp") -> Iterator[Op]:
    """The MLP of a layer and its addition to `x: b s d`."""

    def part(n: str) -> Iterator[Op]:
        drops = layer.inner_dropout
        return mlp(name, layer.activation, gated=layer.gated, bias=layer.bias, x=n, out="a", dropout=drops)

    yield from _residual(name, layer, x, part)


def _residual(name: str, layer: Layer, x: str, part: Callable[[str], Iterator[Op]]) -> Iterator[Op]:
    """A part from its input to `a`, added to the stream, with its norm before or behind."""
    if layer.pre:
        yield norm(f"{name}.norm", layer.norm, x)
        yield from part("n")
        if layer.out_norm:
            yield norm(f"{name}.out_norm", layer.norm, "a", "a")
        yield from dropout(name, layer.dropout, "train", "a")
        if layer.gate:
            yield op(f"{name}.gate_all", "a: b s d, *w -> a: b s d", "mul", w=1)
        if layer.scale:
            yield op(f"{name}.weigh", "a: b s d, *d -> a: b s d", "mul")
        yield op(f"{name}.residual", f"{x}:, a: -> {x}:", "add")
    else:
        yield from part(x)
        yield from dropout(name, layer.dropout, "train", "a")
        yield op(f"{name}.residual", f"{x}:, a: -> {x}:", "add")
        yield norm(f"{name}.norm", layer.norm, x, x)
